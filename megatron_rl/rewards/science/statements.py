"""Where a response states its answer in words: behind "the answer is", or in a last line that says nothing else.

Only what is anchored counts: a letter or word that merely occurs in the prose is no answer.
"""

from __future__ import annotations

import re

MAX_LINE_CHARACTERS = 300

_SUBJECT = r"answers?|ans|(?:my|correct|right|best|final)\s+(?:option|choice|one|letter|statement|result)"
_SAYS = r"(?:(?:is|are|was|would be|should be|must be|will be)\b|[:=]|→|->| - )(?:\s*:)?"
# "the answer to the question is", "Answer:", a heading "Answer", "<answer>", "I choose B", "the statement is false"
_ANCHOR = re.compile(
    rf"\b(?:{_SUBJECT})\b[^\n.:=→<]{{0,60}}?\s*{_SAYS}"
    r"|^\W{0,20}(?:final\s{1,9})?answer\W{0,20}$"
    r"|<answer>|答案(?:[是为為]|选|選)?\s*[::]?"
    r"|\b(?:corresponds? to|match(?:es)?) (?:the )?(?=option|choice|answer)"
    r"|\b(?:choose|select|pick|chose|(?:go|going|went)\s+with)\s+(?=(?:the )?(?:option|choice|answer|\(?(?-i:[A-Z])\b))"
    r"|\b(?:statement|claim)\s+is\s+(?=true\b|false\b)",
    re.IGNORECASE | re.MULTILINE,
)
_VERDICT = re.compile(
    r"(?<![\w'-])(?<!\bor )(?<!\band )(?<!\bnor )\(?([A-Z])\)?\s+is\s+(?:(?:the|therefore|thus|clearly)\s+)*"
    r"(?:correct|right|best)\b"
)
_EMPHASIS = re.compile(r"(?<![\w*])\*(?=\S)([^*\n]*)\*(?![\w*])")  # but 3*10^8 stays
_MARKUP = re.compile(r"\*\*|`|^[ \t]{0,20}#+", re.MULTILINE)
_END_OF_SENTENCE = re.compile(r"[.!?;](?:\s|$)")
_REASON = re.compile(r",?\s+(?:because|since|as)\b")


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
    sentence = _END_OF_SENTENCE.split(stated, maxsplit=1)[0]
    cuts = (stated, sentence, _REASON.split(sentence, maxsplit=1)[0])
    return [cut for cut in dict.fromkeys(cut.strip().rstrip(",") for cut in cuts) if cut]


def _last_anchored(text: str) -> str | None:
    anchors = list(_ANCHOR.finditer(text))
    verdicts = list(_VERDICT.finditer(text))
    if verdicts and (not anchors or verdicts[-1].start() > anchors[-1].end()):
        return verdicts[-1][1]
    if not anchors:
        return None
    return text[anchors[-1].end() :].lstrip().partition("\n")[0].partition("</")[0]
