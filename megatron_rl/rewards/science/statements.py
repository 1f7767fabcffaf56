"""Where a response states its answer in words: behind "the answer is", or in a last line that says nothing else.

Only what is anchored counts: a letter or word that merely occurs in the prose is no answer. What is stated last counts,
so that a correction ("Actually, it is B.") takes back what stood before it, and a denial ("not A; it is B") names none.
"""

from __future__ import annotations

import re

MAX_LINE_CHARACTERS = 300

_SUBJECT = (
    r"(?<!incorrect )(?<!wrong )(?<!false )(?<!impossible )(?<!worst )(?<!unlikely )(?<!excluded )answers?|ans"
    r"|(?:my|correct|right|best|final)\s+(?:option|choice|one|letter|statement|result|pick|guess|selection)"
    r"|correct\s+\w{3,20}"
)
_DENIES = r"(?:(?:is|are|was)n['’]t|(?:can|could)(?:not| not|n['’]t|['’]t) be)\b"
_SAYS = r"(?:(?:is|are|was|would be|should be|must be|will be|(?:would )?ha(?:s|ve) to be)\b|[:=]|→|->| - )(?:\s*:)?"
_BE = r"(?:['’]s| is| was| must be| has to be| should be| would be| ought to be| can only be)"
_LETTER_ENDS = r"(?=(?:option |choice |answer )?\(?(?-i:[A-Z])\)?\s*(?:$|[.!;✓]|,(?!\s?(?:and |or )?\(?(?-i:[A-Z])\b)))"
_SO = r"(?:(?:so|thus|hence|then|therefore|and|but|rather|instead|i think|i believe)\b[\s,]{0,3}){0,3}"
# What begins a correction, and what goes on to state what is right.
_CUE = (
    r"(?:(?:actually|wait|no|nope|sorry|oops|hm{1,9}|hold on|in fact|instead|apologies|pardon|my mistake|rather|better"
    r"|correction|on (?:second|further|closer) (?:thoughts?|reflection|inspection|look)|on reflection"
    r"|after (?:checking|verifying|reconsidering|re-?reading|thinking)(?: again)?"
    r"|(?:scratch|strike) that|(?:i|let me) take (?:that|it) back"
    r"|i (?:misspoke|misread|was wrong|made an? (?:mistake|error))"
    r"|let me (?:correct|revise|rethink|reconsider|fix|change)(?: (?:that|this|it|myself|my answer))?"
    r"|(?:that|this)(?:['’]s| is| was) (?:wrong|not right|incorrect|a mistake|an error))\b[\s,.:;!—–-]{0,5})"
)
_CORRECTS = (
    r"(?:i (?:mean|meant)|make (?:that|it)|or rather)\b[\s,:]{0,3}|(?:correction|corrected|edit|update)\s{0,3}:"
    rf"|{_CUE}{{1,4}}{_SO}(?:(?:it|the (?:right|correct|true) (?:one|option|choice)|this one){_BE}\s"
    rf"|(?:that|this){_BE}\s{_LETTER_ENDS}|(?:it |that )?(?:should|must) be\s|i (?:choose|pick|select|say)\s"
    rf"|{_LETTER_ENDS}|(?=\$?[-+]?[0-9]))"
)
_PAUSE = r"(?:^|(?<=[.!?;:,(—–-])|(?<=[.!?;:,(—–-]\s)|(?<=[.!?;:,(—–-]\s\s))"
_FITS = r"(?:(?:remains|is left|fits|works|holds|matches|agrees|applies|qualifies)(?: best)?)"
# "the answer to the question is", "Answer:", a heading "Answer", "<answer>", "I choose B", "the statement is false"
_ANCHOR = re.compile(
    rf"\b(?:{_SUBJECT})\b[^\n.:=→<]{{0,60}}?\s*{_SAYS}"
    r"|^\W{0,20}(?:final\s{1,9})?answer\W{0,20}$"
    r"|<answer>|答案(?:[是为為]|选|選)?\s*[::]?"
    r"|\b(?:correspond(?:s|ing)? to|match(?:es|ing)?) (?:the )?(?=option|choice|answer)"
    r"|\b(?:choose|select|pick|chose|(?:go|going|went)\s+with)\s+(?=(?:the )?(?:option|choice|answer|\(?(?-i:[A-Z])\b))"
    r"|\b(?:statement|claim)\s+is\s+(?=true\b|false\b)"
    rf"|\bleft with\s{_LETTER_ENDS}"
    rf"|\bonly\s(?=\(?(?-i:[A-Z])\)?\s{_FITS}\b)"
    r"|\b(?:solution is|i(?: would| now|['’]d)? (?:guess|say|think|believe|conclude|answer)(?: it is)?"
    r"|i(?: am|['’]m) (?:sure|certain|confident)(?: that)? it(?:['’]s| is))"
    rf"\s{_LETTER_ENDS}"
    r"|\((?=(?:option|choice|answer)\s\(?(?-i:[A-Z])\)\W{0,9}$)"
    r"|\b(?:which|that|this) is (?=(?:option|choice|answer) \(?(?-i:[A-Z])\b)"
    rf"|\b(?:{_SUBJECT})\b[^\n.:=→<]{{0,60}}?\s(?={_DENIES})"
    rf"|{_PAUSE}{_SO}it{_BE}\s{_LETTER_ENDS}"
    r"|\b(?:so|thus|hence|therefore|leaves?|leaving|remains)(?: only)?,?\s(?=\(?(?-i:[A-Z])\)?(?: it is)?\s*(?:$|[.!]))"
    rf"|\b(?:which|what)\b[^.?!\n]{{0,80}}\?\s+(?={_LETTER_ENDS})"
    rf"|{_PAUSE}(?:{_CORRECTS})"
    rf"|(?:\b(?:so|thus|hence|therefore|giving|namely)[,:]?|→|=>|⇒)\s+(?=(?:the )?(?:option|choice)\s{_LETTER_ENDS})"
    rf"|{_PAUSE}{_SO}(?=(?:option|choice)\s\(?(?-i:[A-Z])\)?(?:\s{_FITS})?\W{{0,9}}\Z)"
    r"|\b(?:of|among|from)\s(?:(?:the|these|those|all|given|listed|available|above|four|five)\b\s?){1,4}"
    r"(?:options|choices|alternatives|candidates|answers)?,?\s?(?:only\s)?"
    rf"(?=(?:option\s|choice\s)?\(?(?-i:[A-Z])\)?\s(?:{_FITS}|is\b))",
    re.IGNORECASE | re.MULTILINE,
)
_DENIAL = re.compile(rf"\s*(?:(?:not|neither|never|anything but)\b|{_DENIES})", re.IGNORECASE)
# Behind a denial: "It is C", "but C", "so it must be C".
_INSTEAD = re.compile(
    rf"{_PAUSE}\s{{0,3}}{_SO}(?:it|that|this|the (?:right|correct) (?:one|option|choice)){_BE}\s+(?!not\b)"
    r"|(?<!anything )\bbut\s+(?:(?:rather|instead)\s+)?|[;,.]\s+(?:rather|instead),?\s+",
    re.IGNORECASE,
)
_VERDICT = re.compile(
    r"(?<![\w'-])(?<!\bor )(?<!\band )(?<!\bnor )\(?([A-Z])\)?\s+"
    r"(?:(?:is|seems|looks|must be|appears)\s+(?:(?:the|to be|therefore|thus|clearly)\s+)*"
    r"(?:correct|right|best|answer(?! to (?:another|a different)))"
    r"|as\s+(?:the|my|our)\s+(?:(?:correct|right|best|final)\s+)?(?:answer|choice|option))\b"
)
_IS_THE_ANSWER = re.compile(
    r"(?:^|(?<=[.!?:]\s))([^.!?:\n]{1,80}?) is (?:the|my) (?:(?:final|correct|right|best) )?(?:answer|choice)\b",
    re.IGNORECASE | re.MULTILINE,
)
_EMPHASIS = re.compile(r"(?<![\w*])\*(?=\S)([^*\n]*)\*(?![\w*])")  # but 3*10^8 stays
_MARKUP = re.compile(r"\*\*|`|^[ \t]{0,20}[#>]+", re.MULTILINE)
_END_OF_SENTENCE = re.compile(r"[.!?;](?:\s|$)")
_REASON = re.compile(r",?\s+(?:because|since|as|(?:and |but )?not|rather than|instead of)\b")
_HEDGE = re.compile(r"\W*(?:or|maybe|perhaps|possibly|alternatively|else|otherwise)\b", re.IGNORECASE)


def statements(text: str) -> list[str]:
    """What the response states last as its answer: the rest of that line, and how its first sentence begins.

    >>> statements("Is it 4? The answer is 5. It is odd.")
    ['5. It is odd.', '5']
    """
    text = _EMPHASIS.sub(r"\1", _MARKUP.sub("", text))
    stated = _last_anchored(text)
    if stated is None:
        lines = text.split("\n")
        stated = lines[0] if len(lines) == 1 else ""
    stated = stated.strip()[:MAX_LINE_CHARACTERS]
    sentence, *others = _END_OF_SENTENCE.split(stated, maxsplit=1)
    if stated[len(sentence) :].startswith("?") or any(map(_HEDGE.match, others)):
        return []
    cuts = (stated, sentence, _REASON.split(sentence, maxsplit=1)[0])
    return [cut for cut in dict.fromkeys(cut.strip().rstrip(",") for cut in cuts) if cut]


def _last_anchored(text: str) -> str | None:
    anchors = list(_ANCHOR.finditer(text))
    verdicts = list(_VERDICT.finditer(text))
    if verdicts and (not anchors or verdicts[-1].start() > anchors[-1].end()):
        return verdicts[-1][1]
    if not anchors:
        named = list(_IS_THE_ANSWER.finditer(text))
        return named[-1][1] if named else None
    rest = text[anchors[-1].end() :].lstrip()
    if _DENIAL.match(rest) and (others := list(_INSTEAD.finditer(rest[:MAX_LINE_CHARACTERS]))):
        rest = rest[others[-1].end() :]
    line, _, after = rest.partition("\n")
    if _HEDGE.match(after[:MAX_LINE_CHARACTERS]):  # "B", and on the next line "or C"
        line = f"{line} {after.lstrip().partition(chr(10))[0]}"
    return line.partition("</")[0]


def sentences(stated: str) -> list[str]:
    """The sentences of a statement, without what ends them."""
    return [sentence for sentence in map(str.strip, _END_OF_SENTENCE.split(stated)) if sentence]
