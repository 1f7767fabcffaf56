r"""The boxed answer of a response: which `\boxed{...}` after the thinking is meant, if one is.

A response has one answer, or none. Boxes of one value are one answer. Where they differ, the last one counts if its own
words take the others back ("no, wait") or draw it as the conclusion from them ("so the answer is"), and neither offers
a choice ("or", "if not", "alternatively"). Candidates with any other wording between them, in a list or in a table,
are no answer; an earlier box never earns anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from megatron_rl.rewards.mathematics.notation import compact, plain
from megatron_rl.rewards.mathematics.numbers import plain_number
from megatron_rl.rewards.response import after_thinking

MAX_DISTINCT_BOXES = 3
MAX_NUM_BOXES = 100
MAX_TRANSITION_CHARACTERS = 300  # of the words before a box that are read
MAX_DENIAL_CHARACTERS = 40
_BEFORE, _AFTER = 50_000, 25_000  # how far around the start of the last box it is looked at, in characters

_GROUP = r"(?: ?[0-9]| ?\{[^{}]{0,40}\})"
_BARE = rf"-?[0-9](?:[0-9.,]{{0,40}}[0-9])?|[A-Za-z]|\\[dt]?frac{_GROUP}{_GROUP}|\\sqrt{_GROUP}|\\pi"
_BRACE = re.compile(
    r"\\{1,4}(?:boxed|fbox)\s*\{"
    rf"|\\{{1,4}}(?:boxed|fbox)(?![A-Za-z]) ?(?P<bare>{_BARE})(?=[.,;!]?(?:\s*(?:\$|\\[)\]])|\s*\n|\s*$))"
    r"|\\.|[{}]",
    re.DOTALL,
)
_SENTENCE = re.compile(r"[.!?](?=\s|$)|\n|\\\\")
_CHOICE = re.compile(
    r"\b(?:or(?! equivalently)|else|if|unless|otherwise|either|maybe|perhaps|possib\w+|potential\w*|plausib\w+|"
    r"might|may|could|can(?= be| also)|would|should(?! be| read)|alternativ\w+|option\w*|candidate\w*|guess\w*|"
    r"choice\w*|choose|another|others?|also|too|as well|cases?|when|while|whereas|depend\w*|assum\w+|suppos\w+|"
    r"whichever|whether|interpret\w+|reading|vary|varies|first(?! thought)|second|third|fourth|1st|2nd|3rd|failing|"
    r"fallback|backup|not sure|unsure|uncertain|likely|probabl\w+|hedge|either way|both|one of|versus|vs)\b",
    re.IGNORECASE,
)
_TAKES_BACK = re.compile(
    r"\b(?:no|nope|wait|actually|sorry|oops|mistake\w*|error|wrong|incorrect|correct(?:ion|ing|ed)|"
    r"revis\w+|recheck\w*|fix\w*|scratch that|first thought|but (?:it|the answer) is|on second thought|let me re\w+)\b",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"\b(?:so(?! is\b| are\b| does\b| do\b| too\b)|thus|hence|therefore|consequently|accordingly|"
    r"finally|conclu\w+|final|in total|altogether|overall|answer)\b|\\therefore(?![A-Za-z])|∴",
    re.IGNORECASE,
)
_RESTATES = re.compile(
    r"\b(?:that is|i\.e\.?|equivalently|which (?:is|equals|simplifies|gives|means|yields)|simplif\w+)\b|"
    r"^[\s$]*(?:[=≈⇒]|\\(?:approx|implies|Rightarrow|Longrightarrow)(?![A-Za-z]))[\s$]*$",
    re.IGNORECASE,
)
_NUMBERED = re.compile(  # (2), b) or 2. at the start of a line, before a box; a part (b) anywhere
    r"(?:(?:^|[\s(])(?:[2-9]|[b-h]|ii|iii|iv|v)\)|\n\s*[2-9]\.)[\s$*\\(\[]*$"
    r"|(?:(?:^|\n|[.;,])[\s*]*|\b[Pp]art )\(?[b-h]\)"
)
_DENIED = re.compile(  # not \boxed{5}
    r"(?:\b(?:not|never|cannot be|(?:wrong|incorrect) (?:answer|value|result) is)|n't(?: be)?|\\neq?|≠)[\s$*:\\(\[]*$",
    re.IGNORECASE,
)
_IS_ANSWER = re.compile(r"\b(?:answers?|final|solutions?|guesses|possibilities|candidates|options)\b", re.IGNORECASE)


def same_value(content: str) -> object:
    """What two contents of the same value have in common, as far as their spelling shows it."""
    if len(content) > MAX_TRANSITION_CHARACTERS:
        return "".join(content.split())
    text = plain(content)
    number = plain_number(text)
    return compact(text) if number is None else number


def boxed_answer(
    response: str, meaning: Callable[[str], object] = same_value, *, may_restate: bool = True
) -> tuple[str | None, str]:
    r"""The content of the box that counts, else None and why there is none.

    `meaning` is what contents of one answer have in common. Where it knows all meanings, boxes of two are no restated
    one (`may_restate`): "i.e." joins them to a contradiction, not to a conclusion.

    >>> boxed_answer("<think>\\boxed{1}</think>\\boxed{2}, so \\boxed{\\frac{1}{2}}")
    ('\\frac{1}{2}', '')
    >>> boxed_answer("\\boxed{2}, alternatively \\boxed{3}")
    (None, 'several different boxes, and none of them is the conclusion')
    """
    text = after_thinking(response)
    last = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    text = text[max(0, last - _BEFORE) : last + _AFTER] if last >= 0 else ""
    spans, is_open = _boxes(text)
    if not spans or is_open:
        return None, "the last box is not closed" if is_open else "no box after the thinking"
    if _DENIED.search(_words_before(text, spans, len(spans) - 1)[-MAX_DENIAL_CHARACTERS:]):
        return None, "the last box is denied"
    contents = [text[start:end] for start, end in spans]
    if len({"".join(content.split()) for content in contents}) == 1:
        return contents[-1], ""
    if len(contents) > MAX_NUM_BOXES:
        return None, f"more than {MAX_NUM_BOXES} boxes"
    values = [meaning(content) for content in contents]
    if len(set(values)) > MAX_DISTINCT_BOXES:
        return None, f"more than {MAX_DISTINCT_BOXES} different boxes"
    if len(set(values)) > 1 and not _is_conclusion(text, spans, values, may_restate):
        return None, "several different boxes, and none of them is the conclusion"
    return contents[-1], ""


def _is_conclusion(text: str, spans: list[tuple[int, int]], values: list[object], may_restate: bool) -> bool:
    """Whether the words before the last box, or before an equal one behind all others, settle on it."""
    last_other = max(index for index, value in enumerate(values) if value != values[-1])
    was_answer = any(
        _IS_ANSWER.search(_sentences(_words_before(text, spans, index))[-1]) for index in range(last_other + 1)
    )
    for index in range(last_other + 1, len(spans)):
        words = _words_before(text, spans, index)
        sentences = _sentences(words)
        if _NUMBERED.search(words) or any(_CHOICE.search(sentence) for sentence in sentences[-3:]):
            continue
        if any(_TAKES_BACK.search(sentence) for sentence in sentences[-3:]):
            return True
        concludes = _CONCLUDES.search(sentences[-1]) or may_restate and _RESTATES.search(sentences[-1])
        if concludes and not was_answer:
            return True
    return False


def _words_before(text: str, spans: list[tuple[int, int]], index: int) -> str:
    """The words between a box and the one before it, its own command among them."""
    start = spans[index - 1][1] + 1 if index else 0
    end = text.rfind("\\", start, spans[index][0])
    return text[max(start, end - MAX_TRANSITION_CHARACTERS) : end]


def _sentences(words: str) -> list[str]:
    """The sentences and lines of some words that say anything, at least one."""
    found = [piece for piece in _SENTENCE.split(words) if any(map(str.isalnum, piece))]
    return found or [words]


def _boxes(text: str) -> tuple[list[tuple[int, int]], bool]:
    """Where the contents of the outermost closed boxes start and end, and whether the last one is open."""
    spans: list[tuple[int, int]] = []
    starts: list[int] = []  # of the open braces; 0 for one that opens no box
    for match in _BRACE.finditer(text):
        if match["bare"]:
            spans.append(match.span("bare"))
        elif match[0] == "}":
            start = starts.pop() if starts else 0
            if start:
                while spans and spans[-1][0] > start:  # boxes within this one
                    spans.pop()
                spans.append((start, match.start()))
        elif match[0][-1] == "{" and match[0] != r"\{":
            starts.append(match.end() if len(match[0]) > 1 else 0)
    return spans, any(start > (spans[-1][1] if spans else 0) for start in starts)
