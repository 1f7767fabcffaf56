r"""The reward of a math answer: the last `\boxed{...}` against the reference answer, by value.

Plain numbers are compared exactly, as fractions. All else goes to math-verify, which builds and simplifies symbolic
expressions from the text: it can run for ever or use up the memory, so `judge` belongs into a worker process.

Not covered: an answer that restates the problem (`3+4` or a sum for 7), a chain of equalities, units, number bases.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from megatron_rl.rewards.response import after_thinking
from megatron_rl.types import Verdict

MAX_ANSWER_CHARACTERS = 300
MAX_ANSWER_NESTING = 8  # brackets in brackets; math-verify takes seconds for 12 of them

_BOX = re.compile(r"\\boxed\s*\{")
_DECIMAL = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:(?P<decimal>{_DECIMAL})"
    r"|(?P<over>[0-9]+)\s*/\s*(?P<under>[0-9]+)"
    r"|\\[dt]?frac\s*\{\s*(?P<latex_over>[0-9]+)\s*\}\s*\{\s*(?P<latex_under>[0-9]+)\s*\})"
)


def check_item(item: Mapping[str, Any]) -> None:
    """Raises ValueError unless `item` is {"answer": a reference answer}."""
    if item.keys() != {"answer"}:
        raise ValueError(f"a math item has the key 'answer' alone, not {sorted(item)}; remove or rename the others")
    if not isinstance(item["answer"], str) or not item["answer"].strip():
        raise ValueError(f"the answer of a math item is a text, not {item['answer']!r}; drop the row or mend it")


def verify(response: str, item: Mapping[str, Any]) -> Verdict:
    """The verdict on a response; without a time limit, so for trusted text only.

    >>> verify("<think>3 5 8</think>The median is \\\\boxed{5}.", {"answer": "5"}).score
    1.0
    """
    found = prepare(response, item)
    return found if isinstance(found, Verdict) else judge(found, item)


def prepare(response: str, item: Mapping[str, Any]) -> Verdict | str:
    """The verdict where it is plain, else the boxed answer for `judge`; fast and safe on any text."""
    answer = last_box(after_thinking(response))
    if answer is None:
        return _wrong("no box after the thinking")
    if not answer.strip():
        return _wrong("the box is empty")
    if len(answer) > MAX_ANSWER_CHARACTERS:
        return _wrong(f"the box holds more than {MAX_ANSWER_CHARACTERS} characters")
    if nesting(answer) > MAX_ANSWER_NESTING:
        return _wrong(f"the box nests deeper than {MAX_ANSWER_NESTING} brackets")
    value, reference = exact_number(answer), exact_number(item["answer"])
    if value is not None and reference is not None:
        return _right() if value == reference else _wrong("another number")
    return answer


def load() -> None:
    """Imports what `judge` needs and builds its parser, so that the first case is as fast as the others."""
    judge("x+1", {"answer": "1+x"})


def judge(answer: str, item: Mapping[str, Any]) -> Verdict:
    """math-verify's verdict on a boxed answer; may never return."""
    from math_verify import LatexExtractionConfig, parse, verify

    # LaTeX only: the plain-expression target of math-verify evaluates text with sympy's parse_expr.
    # Its own time limits are alarms, which a long C call ignores and a thread can not set; the worker's limit is used.
    reference, value = (
        parse(f"\\boxed{{{text}}}", [LatexExtractionConfig()], parsing_timeout=None)
        for text in (item["answer"], answer)
    )
    if not reference:
        raise ValueError(f"the reference answer {item['answer']!r} can not be read; drop the row or mend it")
    is_equal = verify(reference, value, timeout_seconds=None, raise_on_error=True)
    return _right() if is_equal else _wrong("another value")


def last_box(text: str) -> str | None:
    r"""The content of the last `\boxed{...}`, None where there is none or it is not closed.

    >>> last_box("\\boxed{1} or \\boxed{\\frac{1}{2}}")
    '\\frac{1}{2}'
    """
    starts = [match.end() for match in _BOX.finditer(text)]
    if not starts:
        return None
    depth, position = 1, starts[-1]
    while position < len(text):
        if text[position] == "\\":
            position += 2  # an escaped brace is a character, not a bracket
            continue
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[starts[-1] : position]
        position += 1
    return None


def nesting(text: str) -> int:
    """How deep the brackets of `text` stand in one another.

    >>> nesting("(1+[2])(3)")
    2
    """
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest


def exact_number(text: str) -> Fraction | None:
    """The value of an integer, a decimal or a simple fraction; None for anything else.

    >>> exact_number("-0.50") == exact_number("-\\\\frac{1}{2}") == Fraction(-1, 2)
    True
    """
    match = _NUMBER.fullmatch(text.strip().strip("$").strip())
    if match is None:
        return None
    over = match["decimal"] or match["over"] or match["latex_over"]
    under = match["under"] or match["latex_under"] or "1"
    if int(under) == 0:
        return None
    value = Fraction(over) / int(under)
    return -value if match["sign"] == "-" else value


def _right() -> Verdict:
    return Verdict(score=1.0, outcome="judged", detail="right")


def _wrong(why: str) -> Verdict:
    return Verdict(score=0.0, outcome="judged", detail=why)
