r"""The boxed answer of a response: which `\boxed{...}` after the thinking is meant, if one is.

The last box counts, as models box intermediate results and correct themselves; an earlier box earns nothing, so
boxing many candidates does not pay. What hedges is refused all the same: boxes joined by "or", and more than three.
"""

from __future__ import annotations

import re

from megatron_rl.rewards.response import after_thinking

MAX_DISTINCT_BOXES = 3
_BEFORE, _AFTER = 50_000, 25_000  # how far around the start of the last box it is looked at, in characters

_START = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\{1,4}(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_HEDGE = re.compile(r"(?:\\text|or|and|either|maybe|perhaps|[\s,;/|$&{}()\\])*")


def boxed_answer(response: str) -> tuple[str | None, str]:
    r"""The content of the box that counts, else None and why there is none.

    >>> boxed_answer("<think>\\boxed{1}</think>\\boxed{2}, so \\boxed{\\frac{1}{2}}")
    ('\\frac{1}{2}', '')
    """
    text = after_thinking(response)
    last = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    text = text[max(0, last - _BEFORE) : last + _AFTER] if last >= 0 else ""
    spans, is_open = _boxes(text)
    if not spans or is_open:
        return None, "the last box is not closed" if is_open else "no box after the thinking"
    contents = [text[start:end] for start, end in spans]
    distinct = list(dict.fromkeys("".join(content.split()) for content in contents))
    if len(distinct) > MAX_DISTINCT_BOXES:
        return None, f"more than {MAX_DISTINCT_BOXES} different boxes"
    for (_, end), (start, _), first, second in zip(spans, spans[1:], contents, contents[1:], strict=False):
        between = _START.sub("", text[end + 1 : start])
        if "".join(first.split()) != "".join(second.split()) and _HEDGE.fullmatch(between):
            return None, "two different boxes side by side"
    return contents[-1], ""


def _boxes(text: str) -> tuple[list[tuple[int, int]], bool]:
    """Where the contents of the outermost closed boxes start and end, and whether the last one is open."""
    spans: list[tuple[int, int]] = []
    starts: list[int] = []  # of the open braces; 0 for one that opens no box
    for match in _BRACE.finditer(text):
        if match[0] == "}":
            start = starts.pop() if starts else 0
            if start:
                while spans and spans[-1][0] > start:  # boxes within this one
                    spans.pop()
                spans.append((start, match.start()))
        elif match[0][-1] == "{" and match[0] != r"\{":
            starts.append(match.end() if len(match[0]) > 1 else 0)
    return spans, any(start > (spans[-1][1] if spans else 0) for start in starts)
