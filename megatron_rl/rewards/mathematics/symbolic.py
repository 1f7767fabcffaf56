r"""Verdicts that need an expression to be evaluated, on texts in plain form; imported by worker processes only.

What the grammar covers is evaluated with bounds on its size. A reference outside it, as one with a sum or an integral,
is left to math-verify, which can run for ever or use up the memory. It is asked only about answers that it can decide
soon, as far as one can see, and gets so many seconds of processor time: an answer that takes more is wrong by itself,
on an idle machine as on a busy one. A reference that math-verify cannot read equals its own text only.
Not covered: a single long call into C, which no signal interrupts; the worker is killed then.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from megatron_rl.rewards.mathematics.expressions import Tree, UnreadableError, read_expression, symbols
from megatron_rl.rewards.mathematics.notation import nesting
from megatron_rl.rewards.mathematics.numbers import plain_number
from megatron_rl.rewards.mathematics.structures import end_value
from megatron_rl.rewards.mathematics.values import (
    is_bounded,
    is_finished,
    is_multiple,
    is_same_progression,
    is_same_value,
    real_number,
    rounds_to,
)

MAX_NESTING = 8  # for math-verify, which takes seconds for 12 brackets in one another
MAX_CHARACTERS = 300  # for math-verify
MAX_PROCESSOR_SECONDS = 1.5  # of math-verify, for one answer

_TO_BE_WORKED_OUT = re.compile(r"\\(?:sum|int|iint|iiint|oint|prod|lim|limsup|liminf|frac ?\{ ?d)(?![A-Za-z])")
_PROSE = re.compile(r"(?:\\text|[^\\^_=])*")  # with a word, and maybe numbers, as March 5
_TOKEN = re.compile(r"\\[A-Za-z]+|[A-Za-z]+|[^ ]")
_NAME = re.compile(
    r"\\(?:alpha|beta|gamma|delta|theta|lambda|mu|sigma|phi|omega)(?![A-Za-z])|(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])"
)
_POINTS = re.compile(r"(?<![\\A-Za-z])[A-Z]{2,}(?![A-Za-z])")
_TOWER = re.compile(r"\^[^^]{0,12}\^|\^ ?\{? ?[0-9]{4}|[0-9]{4}[ )}]*!|\^[^!]*!")
_STEEP = re.compile(r"\\(?:Gamma|zeta|psi|beta|binom|sum|prod|int)(?![A-Za-z])|!")  # functions that may grow
_LARGE = re.compile(r"[0-9][0-9,]{4}|1 ?0+ ?\^|[eE][0-9]")


class _TooLong(BaseException):  # noqa: N818 - it passes what catches every Exception, as sympy does
    """The processor time is used up."""


def is_same_expression(reference: str, answer: str, relative_tolerance: float, parameter: str = "") -> bool:
    """Whether an answer has the reference's value, or values for any integer, and does not just state the problem."""
    functions = _unknown_functions(reference, answer)
    gold, tree = _read(reference, functions), _read(answer, functions)
    if gold is None:
        return reference != "\\emptyset" and not _is_prose(reference) and is_same_by_math_verify(reference, answer)
    if tree is None or (not symbols(gold) and (symbols(tree) or not is_finished(tree, gold))):
        return False
    if parameter and is_same_progression(gold, tree, parameter):
        return True
    return is_same_value(gold, tree, relative_tolerance)


def real_value(text: str) -> Any:
    """The value of an interval's end, as exact as points are compared; None where it is no real number."""
    end = end_value(text)
    if isinstance(end, float):
        return end
    tree = _read(text)
    return None if tree is None else real_number(tree)


def is_same_relation(reference: tuple[str, str, str], answer: tuple[str, str, str]) -> bool:
    """Whether two relations, (left, sign, right), are multiples of each other."""
    (left, sign, right), (other_left, other_sign, other_right) = _turned(*reference), _turned(*answer)
    functions = _unknown_functions(left, right, other_left, other_right)
    gold, tree = (_read(f"({one})-({other})", functions) for one, other in ((left, right), (other_left, other_right)))
    if gold is None:
        return is_same_by_math_verify("".join(reference), "".join(answer))
    return tree is not None and sign == other_sign and is_multiple(gold, tree, sign != "=")


def is_rounded(exact: str, decimal: Fraction, num_decimals: int) -> bool:
    """Whether a decimal is an exact value, rounded or cut off after so many decimals."""
    tree = _read(exact)
    return tree is not None and rounds_to(tree, decimal, Fraction(1, 10**num_decimals))


def is_same_by_math_verify(reference: str, answer: str) -> bool:
    """math-verify's verdict; False where it cannot read a text, compare the two or be done in time."""
    from math_verify import LatexExtractionConfig, parse, verify

    tree = _read(answer)
    if tree is not None and not is_bounded(tree):
        return False
    if _TOWER.search(answer) or (_STEEP.search(answer) and _LARGE.search(answer)):
        return False
    if len(answer) > MAX_CHARACTERS or nesting(answer) > MAX_NESTING or not _names_alike(reference, answer):
        return False
    if _TO_BE_WORKED_OUT.search(answer) and not _TO_BE_WORKED_OUT.search(reference):
        return False
    # LaTeX only: the plain-expression target of math-verify evaluates text with sympy's parse_expr.
    # Its own time limits are alarms, which a long C call ignores and a thread cannot set; the worker's limit is used.
    try:
        with _processor_limit(MAX_PROCESSOR_SECONDS):
            gold, value = (
                parse(f"\\boxed{{{text}}}", [LatexExtractionConfig()], parsing_timeout=None)
                for text in (reference, answer)
            )
            return bool(gold and value and verify(gold, value, timeout_seconds=None))
    except _TooLong:
        return False


@contextmanager
def _processor_limit(seconds: float) -> Iterator[None]:
    """Raises _TooLong in the main thread once the process has computed for so long; no limit in other threads."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _is_prose(text: str) -> bool:
    return bool(_PROSE.fullmatch(text) and re.search("[A-Za-z]{2}", text))


def _unknown_functions(*texts: str) -> frozenset[str]:
    """The letters f, g and h that are applied to one symbol or to another, and stand nowhere but before a bracket.

    f(g(x)) is not g(f(x)), but h(a+b) is h a + h b.
    """
    applied, others = set(), set()
    for text in texts:
        tokens = [*_TOKEN.findall(text), "", "", ""]
        for token, following, argument, end in zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False):
            if token in ("f", "g", "h") and following == "(":
                if (len(argument) == 1 and argument.isalpha() and end == ")") or (argument in "fgh" and end == "("):
                    applied.add(token)
            elif token[:1] != "\\":
                others.update(token)
    return frozenset(applied - others)


def _names_alike(reference: str, answer: str) -> bool:
    """Whether an answer names nothing that the reference does not, and points as it does: angle ABC is not FED."""
    names, others = (set(_NAME.findall(text)) for text in (reference, answer))
    points, their_points = (
        sorted(min(run, run[::-1]) for run in _POINTS.findall(text)) for text in (reference, answer)
    )
    return others - names <= {"e", "i", "d"} and points == their_points


def _read(text: str, functions: frozenset[str] = frozenset()) -> Tree | None:
    number = plain_number(text)  # notations that are numbers only, as 1e5 and 2 1/2
    try:
        return read_expression(text, functions) if number is None else ("number", number)
    except UnreadableError:
        return None


def _turned(left: str, sign: str, right: str) -> tuple[str, str, str]:
    """The relation with the smaller side on the left."""
    return (right, {">": "<", "\\ge": "\\le"}[sign], left) if sign in (">", "\\ge") else (left, sign, right)
