"""Which option of a multiple-choice question an answer chooses: exactly one, by letter or by its text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from megatron_rl.rewards.mathematics.notation import plain

MAX_LINE_CHARACTERS = 300

_MARKUP = re.compile(r"\\(?:text|ce|pu) ?|\\?[{}$*`\"<>]")
_LEAD = (
    r"(?:(?:so|therefore|thus|hence|it's|that's|it|ans|must|be|is|option|choice|answer|letter|probably|likely"
    r"|most likely|clearly|definitely|certainly|obviously|simply)\b[,:.]? ?)*"
)
_SIGNS = re.compile(r"^[\s∴⇒→=>✓✔✅☑]+|[\s✓✔✅☑]+$")
_LETTER = re.compile(rf"{_LEAD}[(\[]? ?([A-Za-z])(?: ?([)\]]))?(?![\w'])(.*)", re.IGNORECASE | re.DOTALL)
# What may follow the letter: an end, a delimiter and the option's text, a reason, or a verdict.
_REASON = (
    r",? ?(?:because|since|as|which|(?:and |but )?not|and nothing else|rather than|instead of|over|unlike|except)\b"
    r"|,? (?:is|must be) (?:(?:the|also|only|clearly|equally|most|indeed) ){0,3}(?:correct|right|best|true|valid)\b"
)
_GOES_ON = re.compile(
    r" (?:it is|(?:remains|is left|fits|works|holds|matches|agrees|applies|qualifies)(?: best)?)[\s.!]*$"
    rf"|[\s.,;:!)\]'。]*$|[).:\]]|{_REASON}| ?[:,;(/]| - ",
    re.IGNORECASE,
)
_GIVES_REASON = re.compile(_REASON, re.IGNORECASE)
# What may not: another letter, or another option. "(A) is wrong" is a reason.
_AND_LETTER = re.compile(
    r"[\s,;.)(]*(?:[,;/&+.]|\b(?:or|and|nor|but)\b|(?=\([A-HJ]\))) ?"
    r"(?:(?:possibly|maybe|perhaps|probably|also) )?[\s(]*"
    r"(?:[A-Z](?![\w'])|[a-z][).]*\s*(?:$|[,;]|or\b|and\b))"
)
_OPTION = re.compile(
    r"(?<![\w'])\(?([A-J])[).:]+\s+(?!is\b|are\b|was\b|were\b|would\b|can\b|does\b|has\b|says\b|fails\b)\S"
)
_OR_MAYBE = re.compile(
    r"\b(?:maybe|perhaps|possibly|alternatively|otherwise)[\s,:]+"
    r"(?:(?:option|choice|it is|it's)\s+)?\(?[A-J]\)?[\s.!]*$"
)
_ALSO = re.compile(
    r"(?:(?:or|and|also|maybe|perhaps|possibly|alternatively|else|otherwise|(?:it )?(?:could|might|may)(?: also)? be)\b"
    r"[\s,:]*)+",
    re.IGNORECASE,
)
_NO_CHOICE = re.compile(r"\b(?:not|neither|nor|never|no|or|but|rather|than|except|without|unlike)\b|n['’]t\b")
_OR_ELSE = re.compile(r"[\s,;.:)–—-]*(?:otherwise|or|else|unless|alternatively)\b", re.IGNORECASE)
_ENDS_IN_LETTER = re.compile(r"(?:\b(?:is|be|say|pick|choose|believe)|[,:;—–-])\s+\(?([A-J])\)?\W*$")
_DELIMITER = re.compile(r"^(?:[\s).:\],;=/]|-(?![\d.]))+")  # but "D. -2"
_NAMELY = re.compile(r"^(?:namely|i\.?e\b\.?|that is|which is|being|meaning)[\s,:]*|[\s).]+$", re.IGNORECASE)
_DENIED = re.compile(r",?\s(?:and |but )?(?:not|rather than|instead of|unlike)\s.*", re.DOTALL)
_LETTER_IN_BRACKETS = re.compile(r"\(([A-Z])\)\W*$")
_LABELLED = re.compile(r"[\s(*$\\]{0,9}(?:\\text ?\{ ?)?\(?([A-Ja-j])[).:]\s")
_REASONED = re.compile(r",?\s(?:because|since|as)\b.*", re.DOTALL)
_IN_BRACKETS = re.compile(r"\s*\([^()]*\)\W*$")
_ADDS_NOTHING = re.compile(
    r"(?:so |thus |hence |therefore )?(?:that |because )?(?:it |they |this |that )?(?:s |is |are |must be |would be )?"
    r"(?:the (?:\w+ )?|an? )?\*"
    r"(?: (?:gas|molecules?|atoms?|ions?|compounds?|element|bonds?|bonding|itself|only|alone))?"
    r"(?: (?:in|of|on|from|at|along|for) (?:the |an? |its )?\w+)?"
)
_LINE_LABEL = re.compile(r"^[\s>#*\-(]{0,20}(?:[Oo]ption |[Cc]hoice )?\(?([A-J])[).:]", re.MULTILINE)
_LETTER_LINE = re.compile(r"^[\s>#*\-(]{0,20}([A-J])[\s).*]{0,20}$", re.MULTILINE)


def chosen_option(answer: str, options: Mapping[str, str], is_same: Callable[[str, str], bool]) -> str | None:
    """The label of the one option that the answer chooses, None where it chooses none, or several.

    `options` maps labels to texts and may be empty; `is_same` says whether an answer is an option's text.

    >>> chosen_option("(B) a cell", {}, str.__eq__), chosen_option("A good one", {}, str.__eq__)
    ('B', None)
    """
    answer = _SIGNS.sub("", answer)
    text = " ".join(_MARKUP.sub("", plain(unicodedata.normalize("NFKC", answer))).split())
    match = _LETTER.fullmatch(text)
    label, rest = (match[1].upper(), match[3]) if match else ("", "")
    is_lettered = match is not None and (bool(match[2]) or _GOES_ON.match(rest) is not None)
    if not is_lettered or rest.strip(" .)"):
        same = [option for option, wording in options.items() if is_same(answer, wording)]
        if len(same) == 1:
            return same[0]
    if not is_lettered or options and label not in options:
        return None
    detail = _NAMELY.sub("", _DELIMITER.sub("", rest).strip())
    if any(is_same(detail, wording) for wording in options.values()):
        return label if is_same(detail, options[label]) else None
    if _GIVES_REASON.match(rest):
        return None if _OR_MAYBE.search(rest) else label
    names_another = _AND_LETTER.match(rest) or _OR_ELSE.match(rest) or set(_OPTION.findall(rest)) - {label}
    return None if names_another else label


def stated_option(
    sentences: Sequence[str], options: Mapping[str, str], is_same: Callable[[str, str], bool]
) -> str | None:
    """The option that the first sentence chooses, None where another sentence chooses another one.

    >>> stated_option(["B", "A is too small"], {}, str.__eq__), stated_option(["B", "or A"], {}, str.__eq__)
    ('B', None)
    """
    first, *others = sentences or [""]
    label = chosen_option(first, options, is_same) or _named_option(first, options)
    for other in others:  # "Therefore I say D": whatever it is, it is another letter in the place of an answer
        last = _ENDS_IN_LETTER.search(other)
        if last and last[1] != label and not _NO_CHOICE.search(other):
            return None
    chosen = {chosen_option(_ALSO.sub("", other, count=1), options, is_same) for other in others}
    return label if chosen <= {label, None} else None


def _named_option(sentence: str, options: Mapping[str, str]) -> str | None:
    """The option that a sentence names among words that add nothing: "it decreases", "nitrogen gas (N2)"."""
    sentence = _DENIED.sub("", sentence)  # "mitosis, not meiosis"
    label = _LABELLED.match(sentence)
    said = _REASONED.sub("", _IN_BRACKETS.sub("", sentence))
    letter = _LETTER_IN_BRACKETS.search(sentence)
    named = [
        label
        for label, text in options.items()
        if _ADDS_NOTHING.fullmatch(_folded(said).replace(_folded(text), "*", 1))
    ]
    others = [
        text
        for label, text in options.items()
        if label not in named and f" {_folded(text)} " in f" {_folded(sentence)} "
    ]
    if letter and letter[1] in options and not named:  # "It occurs in the nucleus (B)"
        told = [option for option, text in options.items() if f" {_folded(text)} " in f" {_folded(sentence)} "]
        return letter[1] if told == [letter[1]] and not _NO_CHOICE.search(said) else None
    if len(named) != 1 or others or _NO_CHOICE.search(said) or letter and letter[1] != named[0]:
        return None
    if label and label[1].upper() != named[0]:  # "A. It increases", where that is the text of B
        return None
    return named[0]


def _folded(text: str) -> str:
    """The words of a text in small letters; beside numbers letters are units, and keep their case."""
    said = " ".join(re.findall(r"(?:(?<!\w)-(?=[\d.]))?[^\W_]+", plain(unicodedata.normalize("NFKC", text))))
    return said if any(map(str.isdigit, said)) else said.lower()


def option_of_last_line(text: str, options: Mapping[str, str], is_same: Callable[[str, str], bool]) -> str | None:
    """The option that the last line chooses, None where the text goes through several options line by line."""
    line = re.sub(r"[*`]", "", text.strip().rpartition("\n")[2]).strip()
    if line.endswith("?"):
        return None
    label = chosen_option(line[:MAX_LINE_CHARACTERS], options, is_same)
    labels = set((_LETTER_LINE if _LETTER_LINE.fullmatch(line) else _LINE_LABEL).findall(text))
    return label if labels <= {label} else None
