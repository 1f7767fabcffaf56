"""Which option of a multiple-choice question an answer chooses: exactly one, by letter or by its text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping

from megatron_rl.rewards.mathematics.notation import plain

MAX_LINE_CHARACTERS = 300

_MARKUP = re.compile(r"\\text ?|[{}$*`\"]")
_LEAD = r"(?:(?:so|therefore|thus|hence|it's|that's|it|ans|must|be|is|option|choice|answer|letter)\b[,:.]? ?)*"
_LETTER = re.compile(rf"{_LEAD}[(\[]? ?([A-Za-z])(?: ?([)\]]))?(?![\w'])(.*)", re.IGNORECASE | re.DOTALL)
# What may follow the letter: an end, a delimiter and the option's text, a reason, or a verdict.
_REASON = r",? ?(?:because|since|as|which)\b|,? is (?:the )?(?:correct|right|best)\b"
_GOES_ON = re.compile(rf"[\s.,;:!)\]'。]*$|[).:\]]|{_REASON}| ?[:,;(]| - ", re.IGNORECASE)
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
_LINE_LABEL = re.compile(r"^[\s>#*\-(]{0,20}([A-J])[).:]", re.MULTILINE)
_LETTER_LINE = re.compile(r"^[\s>#*\-(]{0,20}([A-J])[\s).*]{0,20}$", re.MULTILINE)


def chosen_option(answer: str, options: Mapping[str, str], is_same: Callable[[str, str], bool]) -> str | None:
    """The label of the one option that the answer chooses, None where it chooses none, or several.

    `options` maps labels to texts and may be empty; `is_same` says whether an answer is an option's text.

    >>> chosen_option("(B) a cell", {}, str.__eq__), chosen_option("A good one", {}, str.__eq__)
    ('B', None)
    """
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
    detail = rest.lstrip(" ).:]-,;=").strip()
    if any(is_same(detail, wording) for wording in options.values()):
        return label if is_same(detail, options[label]) else None
    if _GIVES_REASON.match(rest):
        return label
    names_another = _AND_LETTER.match(rest) or set(_OPTION.findall(rest)) - {label}
    return None if names_another else label


def option_of_last_line(text: str, options: Mapping[str, str], is_same: Callable[[str, str], bool]) -> str | None:
    """The option that the last line chooses, None where the text goes through several options line by line."""
    line = re.sub(r"[*`]", "", text.strip().rpartition("\n")[2]).strip()
    label = chosen_option(line[:MAX_LINE_CHARACTERS], options, is_same)
    labels = set((_LETTER_LINE if _LETTER_LINE.fullmatch(line) else _LINE_LABEL).findall(text))
    return label if labels <= {label} else None
