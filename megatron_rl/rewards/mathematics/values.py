"""Whether two expression trees have the same value, and whether a tree is an answer or restates the problem.

Trees with symbols are compared at fixed points: equal ones agree at all of them, others hardly ever do.
Not covered: an equality that holds for integer or positive symbols only, where real ones show a difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from typing import Any

from mpmath import mp  # type: ignore[import-untyped]

from megatron_rl.rewards.mathematics.evaluation import UndefinedError, Value, evaluate, inexact
from megatron_rl.rewards.mathematics.expressions import INVERSE, LOGARITHMIC, TRIGONOMETRIC, Tree, symbols

DIGITS, EQUAL_DIGITS = 60, 40
MAX_DIGITS = 3_000
MIN_POINTS = 3

# Ranges of positive and negative reals, which tell sqrt(x^2) from x.
_RANGES = ((0.2, 0.9), (1.1, 2.0), (2.0, 7.0), (-0.9, -0.2), (-7.0, -2.0), (0.3, 0.6))
_KINDS = {
    **dict.fromkeys(TRIGONOMETRIC, "trigonometric"),
    **dict.fromkeys(INVERSE, "inverse"),
    **dict.fromkeys((*LOGARITHMIC, "logarithm"), "logarithmic"),
    **dict.fromkeys(("factorial", "binomial"), "combinatorial"),
}


def is_same_value(reference: Tree, tree: Tree, relative_tolerance: float = 0.0) -> bool:
    """Whether the two agree; the tolerance is for trees without symbols."""
    has_log = "log" in {*_functions(reference), *_functions(tree)}
    log_bases = (None, 10) if has_log else (None,)  # it means either, but the same on both sides
    return any(_agree(reference, tree, log_base, relative_tolerance) for log_base in log_bases)


def _agree(reference: Tree, tree: Tree, log_base: int | None, relative_tolerance: float) -> bool:
    is_closed = not symbols(reference) and not symbols(tree)
    verdicts: list[bool] = []
    for a, b, size in _values(reference, tree, log_base):
        verdicts.append(_is_close(a, b, size) or (is_closed and _is_near(a, b, relative_tolerance)))
        if not verdicts[-1]:
            break
    return all(verdicts) and len(verdicts) >= (1 if is_closed else MIN_POINTS)


def is_within(tree: Tree, value: Fraction, distance: Fraction) -> bool:
    """Whether a tree without symbols has a real value that is no further from `value` than that."""
    try:
        exact, _ = evaluate(tree, {}, None)
    except (UndefinedError, KeyError):
        return False
    return _is_real(exact) and bool(abs(inexact(exact) - inexact(value)) <= inexact(distance))


def real_number(tree: Tree) -> Value | None:
    """The real value of a tree without symbols to `EQUAL_DIGITS` digits, so that equal ones are the same; else None."""
    try:
        value, _ = evaluate(tree, {}, None)
    except (UndefinedError, KeyError):
        return None
    if not _is_real(value):
        return None
    with mp.workdps(EQUAL_DIGITS):
        return +_real(inexact(value))


def is_bounded(tree: Tree) -> bool:
    """Whether a tree has a value of a size that can be computed, or symbols."""
    try:
        return bool(symbols(tree)) or evaluate(tree, {}, None) is not None
    except UndefinedError:
        return False


def is_multiple(reference: Tree, tree: Tree, positive: bool) -> bool:
    """Whether `tree` is a constant but 0 times `reference`, so that they are 0 together; or a positive constant."""
    pairs = [(a, b) for a, b, _ in _values(reference, tree, None) if abs(a) > 1e-9 and abs(b) > 1e-9]
    if len(pairs) < MIN_POINTS or (positive and any(_real(a) * _real(b) < 0 for a, b in pairs)):
        return False
    return all(_is_close(a * d, b * c, abs(a * d)) for (a, b), (c, d) in pairwise(pairs))


def is_finished(tree: Tree, reference: Tree) -> bool:
    """Whether a tree without symbols is an answer, given the reference, and does not state the problem again.

    Unfinished are sums of two rational terms (3+4), products of two plain numbers or two sums, a division sign, powers
    and quotients of complex numbers, and functions of a kind that the reference does without: an arctangent for pi/4,
    a root or a binomial for 10. A power of real numbers is finished.
    """
    if not _is_carried_out(reference) or "combinatorial" in {_KINDS.get(name) for name in _functions(reference)}:
        return True
    if _is_rational(reference) and not _is_rational(tree):
        return False
    allowed = {_KINDS.get(name, name) for name in _functions(reference)}
    return _is_carried_out(tree) and {_KINDS.get(name, name) for name in _functions(tree)} <= allowed


def _is_carried_out(tree: Tree) -> bool:
    head = tree[0]
    if head == "divided" or (head == "+" and sum(_is_rational(part) for part in tree[1:]) > 1):
        return False
    if head == "*" and max(sum(_is_plain(part) for part in tree[1:]), sum(part[0] == "+" for part in tree[1:])) > 1:
        return False
    if (head == "^" and _is_complex(tree[1])) or (head == "/" and _is_complex(tree[2])):
        return False
    return all(_is_carried_out(part) for part in _parts(tree))


def _is_plain(tree: Tree) -> bool:
    """A number, a fraction of numbers, or the negative of one."""
    return tree[0] == "number" or (tree[0] in ("-", "/") and all(_is_plain(part) for part in tree[1:]))


def _is_rational(tree: Tree) -> bool:
    if tree[0] == "^":
        exponent = tree[2][1] if tree[2][0] == "-" else tree[2]
        return _is_rational(tree[1]) and exponent[0] == "number" and exponent[1].denominator == 1
    return tree[0] in ("number", "+", "-", "*", "/", "divided") and all(_is_rational(part) for part in _parts(tree))


def _parts(tree: Tree) -> list[Tree]:
    return [part for part in tree[1:] if isinstance(part, tuple)]


def _functions(tree: Tree) -> Iterator[str]:
    if tree[0] == "call":
        yield tree[1]
    for part in _parts(tree):
        yield from _functions(part)


def _is_complex(tree: Tree) -> bool:
    return tree == ("constant", "i") or any(_is_complex(part) for part in _parts(tree))


def _values(reference: Tree, tree: Tree, log_base: int | None) -> Iterator[tuple[Value, Value, Value]]:
    """The values of both and what size they are exact to, at points where both are defined, and real if possible."""
    names = sorted(symbols(reference) | symbols(tree))
    may_be_complex = not names or _is_complex(reference) or _is_complex(tree)
    num_found, not_real = 0, []
    for points in (_real_points(names), _integer_points(names)):
        if num_found >= MIN_POINTS:  # integers are for what is real nowhere else, as (-1)^n
            return
        for point in points:
            with suppress(UndefinedError):
                values = _evaluate_both(reference, tree, point, log_base)
                if may_be_complex or (_is_real(values[0]) and _is_real(values[1])):
                    num_found += 1
                    yield values
                else:
                    not_real.append(values)
    if num_found < MIN_POINTS:
        yield from not_real


def _real_points(names: list[str]) -> Iterator[dict[str, Fraction]]:
    """A few, or the one there is without names."""
    for index, (low, high) in enumerate(_RANGES if names else _RANGES[:1]):
        spread = [
            Fraction((index * 3571 + number * 6101 + number * number * 131 + 17) % 9973, 9973)
            for number in range(len(names))
        ]
        yield {name: Fraction(low) + Fraction(high - low) * part for name, part in zip(names, spread, strict=True)}


def _integer_points(names: list[str]) -> Iterator[dict[str, Fraction]]:
    for index in range(5 if names else 0):
        yield {name: Fraction(2 + (index * (number + 1) + number) % 7) for number, name in enumerate(names)}


def _evaluate_both(
    reference: Tree, tree: Tree, point: dict[str, Fraction], log_base: int | None
) -> tuple[Value, Value, Value]:
    digits = DIGITS
    while True:
        with mp.workdps(digits):
            a, a_size = evaluate(reference, point, log_base)
            b, b_size = evaluate(tree, point, log_base)
            size = max(a_size, b_size)
            if isinstance(a, Fraction) and isinstance(b, Fraction):
                return a, b, size
            needed = _digits(size)
            if needed > MAX_DIGITS:
                raise UndefinedError("too large")
            if needed <= digits:
                return inexact(a), inexact(b), size
        digits = needed  # a sum of huge numbers, where small ones count as well


def _is_close(a: Value, b: Value, size: Value) -> bool:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    with mp.workdps(_digits(size)):
        return bool(abs(a - b) * mp.mpf(10) ** (mp.dps - DIGITS + EQUAL_DIGITS) <= size)


def _digits(size: Value) -> int:
    """How many digits show a difference of 1e-60 between numbers of that size."""
    return DIGITS + max(0, int(mp.mag(size) * 0.30103) if size else 0)


def _is_near(a: Any, b: Any, relative_tolerance: float) -> bool:
    return bool(relative_tolerance > 0 and abs(inexact(a) - inexact(b)) <= relative_tolerance * abs(inexact(a)))


def _is_real(value: Value) -> bool:
    return not isinstance(value, mp.mpc) or abs(value.imag) * mp.mpf(10) ** EQUAL_DIGITS <= abs(value)


def _real(value: Value) -> Value:
    return value.real if isinstance(value, mp.mpc) else value
