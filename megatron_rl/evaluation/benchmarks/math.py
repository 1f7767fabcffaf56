r"""Rows of AIME, AMC, MATH, Minerva and OlympiadBench: a problem, and the answer that shall stand in the last box."""

from __future__ import annotations

import math
import re
from typing import Any

from megatron_rl.data.drafts import last_box
from megatron_rl.evaluation.benchmarks.columns import LeftOut, Row, need, shown, text, whole
from megatron_rl.rewards.math import MAX_RELATIVE_TOLERANCE

INSTRUCTION = " Let's think step by step and output the final answer within \\boxed{}."
MINERVA_TOLERANCE = 0.01  # of a decimal: problems and solutions round differently
MAX_AIME = 999

_DECIMAL = re.compile(r"[+-]?\d+\.\d*(e[+-]?\d+)?|[+-]?\d+e[+-]?\d+", re.IGNORECASE)
_DOLLARS = re.compile(r"\$([^$]+)\$")


def aime(row: Row, number: int) -> dict[str, Any]:
    """`problem` and `answer`, a whole number to 999, as digits or as a number; `id` where there is one."""
    answer = whole(row, "answer")
    if not 0 <= answer <= MAX_AIME:
        raise ValueError(f"column 'answer' is {answer}; AIME's lie in 0 to {MAX_AIME}")
    return _problem(row.get("id", number), text(row, "problem"), str(answer))


def amc(row: Row, number: int) -> dict[str, Any]:
    """`problem` and `answer`, a decimal of whole value."""
    return _problem(row.get("id", number), text(row, "problem"), str(whole(row, "answer")))


def math_500(row: Row, number: int) -> dict[str, Any]:
    """`problem`, `answer` in LaTeX, `unique_id`."""
    return _problem(text(row, "unique_id"), text(row, "problem"), text(row, "answer").strip())


def math_full(row: Row, number: int) -> dict[str, Any]:
    """`problem` and `solution`, whose last box is the answer."""
    return _problem(number, text(row, "problem"), last_box(text(row, "solution")))


def minerva(row: Row, number: int) -> dict[str, Any]:
    """`question` and `answer`; or `problem` and `solution`, whose last box is the answer."""
    if "question" in row:
        problem, answer = text(row, "question"), text(row, "answer").strip()
    else:
        problem, answer = text(row, "problem"), last_box(text(row, "solution"))
    found = _problem(row.get("idx", number), problem, answer)
    if _DECIMAL.fullmatch(answer.strip("$ ")):
        found["item"]["relative_tolerance"] = MINERVA_TOLERANCE
    return found


def olympiad(row: Row, number: int) -> dict[str, Any]:
    """`question`, `final_answer` with one text, `is_multiple_answer`, `answer_type`, `error`."""
    answers, error = need(row, "final_answer"), row.get("error")
    if not isinstance(answers, list) or len(answers) != 1 or not isinstance(answers[0], str):
        raise ValueError(f"column 'final_answer' is {shown(answers)}; the published rows have a list of one text")
    parts = [part.strip() for part in _DOLLARS.findall(answers[0])] or [answers[0].strip().rstrip(".")]
    if need(row, "is_multiple_answer") is True and len(parts) > 1:
        answer = "\\{" + ", ".join(parts) + "\\}"
    elif len(parts) == 1:
        answer = parts[0]
    else:
        answer = answers[0].replace("$", "").strip()
    found = _problem(need(row, "id"), text(row, "question"), answer)
    if error:
        found["item"]["relative_tolerance"] = _share_of(str(error), answer)
    return found


def _problem(identifier: Any, problem: str, answer: str) -> dict[str, Any]:
    return {
        "id": str(identifier),
        "domain": "math",
        "prompt": problem.strip() + INSTRUCTION,
        "item": {"answer": answer},
    }


def _share_of(error: str, answer: str) -> float:
    """An absolute error as a share of the answer. Raises LeftOut where they are no numbers, or the share is large."""
    try:
        share = abs(float(error) / float(answer.rstrip("%\\ ")))
    except (ValueError, ZeroDivisionError):
        raise LeftOut("a leeway that is no share of the answer") from None
    if not math.isfinite(share) or share > MAX_RELATIVE_TOLERANCE:
        raise LeftOut("a leeway of more than a tenth")
    return share
