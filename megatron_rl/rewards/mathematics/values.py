"""Whether two expression trees have the same value, and whether a tree is an answer or restates the problem.

Trees with symbols are compared at fixed points: equal ones agree at all of them, others hardly ever do.
Not covered: an equality that holds for integer or positive symbols only, where real ones show a difference, but that of
floors and ceilings of n, m, k.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

from mpmath import mp  # type: ignore[import-untyped]

from megatron_rl.rewards.mathematics.evaluation import UndefinedError, Value, evaluate, inexact
from megatron_rl.rewards.mathematics.expressions import INVERSE, LOGARITHMIC, TRIGONOMETRIC, Tree, symbols

DIGITS, EQUAL_DIGITS = 100, 80  # of values near 1; as many more as it takes to see the smallest term, twice
MAX_DIGITS = 3_000
SPARE_DIGITS = 8
LOG10_OF_2 = 0.30103
MIN_POINTS = 3
NUM_FAR_POINTS = 48

# Ranges of positive and negative reals, which tell sqrt(x^2) from x.
_RANGES = ((0.2, 0.9), (1.1, 2.0), (2.0, 7.0), (-0.9, -0.2), (-7.0, -2.0), (0.3, 0.6))
# More of them, which tell |x-10| from 10-x.
_BENDS = (
    (3.0, 5.0),
    (7.0, 12.0),
    (12.0, 40.0),
    (40.0, 300.0),
    (-5.0, -3.0),
    (-12.0, -7.0),
    (-60.0, -12.0),
    (-900.0, -60.0),
)
_INTEGER_NAMES = frozenset("nmkjlNMK")
_KINDS = {
    **dict.fromkeys(TRIGONOMETRIC, "trigonometric"),
    **dict.fromkeys(INVERSE, "inverse"),
    **dict.fromkeys((*LOGARITHMIC, "logarithm"), "logarithmic"),
    **dict.fromkeys(("factorial", "double factorial", "binomial"), "combinatorial"),
}


def is_same_value(reference: Tree, tree: Tree, relative_tolerance: float = 0.0) -> bool:
    """Whether the two agree; the tolerance is for trees without symbols."""
    log_bases = _log_bases(reference, tree)  # it means either, but the same on both sides
    return any(_agree(reference, tree, log_base, relative_tolerance) for log_base in log_bases)


def _log_bases(*trees: Tree) -> tuple[int | None, ...]:
    """What a log without a base may mean in trees, None for e; one of them where it does not matter."""
    has_log = any("log" in _functions(tree) for tree in trees)
    return (None, 10) if has_log else (None,)


def _agree(reference: Tree, tree: Tree, log_base: int | None, relative_tolerance: float) -> bool:
    is_closed = not symbols(reference) and not symbols(tree)
    verdicts: list[bool] = []
    for pair in _values(reference, tree, log_base):
        verdicts.append(_is_close(pair) or (is_closed and _is_near(pair.first, pair.second, relative_tolerance)))
        if not verdicts[-1]:
            break
    return all(verdicts) and len(verdicts) >= (1 if is_closed else MIN_POINTS)


def is_same_progression(reference: Tree, tree: Tree, name: str) -> bool:
    """Whether two trees of one symbol have the same values, at equal steps, as it runs over all integers."""
    if symbols(reference) != {name} or symbols(tree) != {name}:
        return False
    with mp.workdps(DIGITS):
        try:
            first, second = (
                [inexact(evaluate(side, {name: Fraction(number)}, None).value) for number in range(4)]
                for side in (reference, tree)
            )
        except UndefinedError:
            return False
        step, error = first[1] - first[0], mp.mpf(10) ** -EQUAL_DIGITS
        if not all(map(_is_real, first + second)) or abs(step) < error:
            return False
        has_equal_steps = all(
            abs(abs(after - before) - abs(step)) < error and abs(after + first - 2 * before) < error
            for first, before, after in (*_threes(first), *_threes(second))
        )
        shift = (second[0] - first[0]) / step
        return has_equal_steps and bool(abs(shift - mp.nint(shift)) < error)


def _threes(values: list[Value]) -> Iterator[tuple[Value, Value, Value]]:
    return zip(values, values[1:], values[2:], strict=False)


def is_within(tree: Tree, value: Fraction, distance: Fraction) -> bool:
    """Whether a tree without symbols has a real value that is no further from `value` than that."""
    found = _real_readings(tree)
    return bool(found) and all(bool(abs(exact - inexact(value)) <= inexact(distance)) for exact in found)


def rounds_to(tree: Tree, decimal: Fraction, unit: Fraction) -> bool:
    """Whether a tree without symbols has a real value that rounds, or is cut off, to that multiple of `unit`."""
    found = _real_readings(tree)
    surplus = [(abs(exact) - abs(inexact(decimal))) / inexact(unit) for exact in found]
    return bool(found) and all(
        exact * inexact(decimal) >= 0 and -0.5 - 1e-9 < part < 1 - 1e-9
        for exact, part in zip(found, surplus, strict=True)
    )


def _real_readings(tree: Tree) -> list[Value]:
    """The real values of a tree without symbols, empty where it has none.

    A logarithm without a base is natural to one reader (sympy) and of base 10 to the next (math-verify): both count.
    """
    try:
        found = [evaluate(tree, {}, log_base).value for log_base in _log_bases(tree)]
    except (UndefinedError, KeyError):
        return []
    return [_real(inexact(exact)) for exact in found] if all(map(_is_real, found)) else []


def real_number(tree: Tree) -> Value | None:
    """The real value of a tree without symbols to `EQUAL_DIGITS` digits, so that equal ones are the same; else None."""
    try:
        value = evaluate(tree, {}, None).value
    except (UndefinedError, KeyError):
        return None
    if not _is_real(value):
        return None
    with mp.workdps(EQUAL_DIGITS):
        return +_real(inexact(value))


def is_bounded(tree: Tree) -> bool:
    """Whether a tree has a value of a size that can be computed, where it has symbols at some point."""
    for point in _real_points(sorted(symbols(tree))):
        with suppress(UndefinedError):
            return bool(evaluate(tree, point, None))
    return False


def is_multiple(reference: Tree, tree: Tree, positive: bool) -> bool:
    """Whether `tree` is a constant but 0 times `reference`, so that they are 0 together; or a positive constant."""
    pairs = [pair for pair in _values(reference, tree, None) if abs(pair.first) > 1e-9 and abs(pair.second) > 1e-9]
    if len(pairs) < MIN_POINTS or (positive and any(_real(pair.first) * _real(pair.second) < 0 for pair in pairs)):
        return False
    return all(_are_in_proportion(pair, other) for pair, other in pairwise(pairs))


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


class _Pair(NamedTuple):
    """The values of two trees at a point, the digits they have, and the largest power of two on the way."""

    first: Value
    second: Value
    digits: int
    high: int


def _values(reference: Tree, tree: Tree, log_base: int | None) -> Iterator[_Pair]:
    """The values of both at points where both are defined, and real if possible."""
    names = sorted(symbols(reference) | symbols(tree))
    may_be_complex = not names or _is_complex(reference) or _is_complex(tree)
    num_found, not_real = 0, []
    functions = {*_functions(reference), *_functions(tree)}
    ranges = (*_RANGES, *_BENDS) if "absolute" in functions or _has_root(reference) or _has_root(tree) else _RANGES
    has_steps = bool(names) and not functions.isdisjoint(("floor", "ceiling"))
    for points in (_far_points(names),) if has_steps else (_real_points(names, ranges), _integer_points(names)):
        if num_found >= MIN_POINTS:  # integers are for what is real nowhere else, as (-1)^n
            return
        for point in points:
            with suppress(UndefinedError):
                pair = _evaluate_both(reference, tree, point, log_base)
                if may_be_complex or (_is_real(pair.first) and _is_real(pair.second)):
                    num_found += 1
                    yield pair
                else:
                    not_real.append(pair)
    if num_found < MIN_POINTS:
        yield from not_real


def _has_root(tree: Tree) -> bool:
    return tree[0] == "root" or any(map(_has_root, _parts(tree)))


def _real_points(names: list[str], ranges: tuple[tuple[float, float], ...] = _RANGES) -> Iterator[dict[str, Fraction]]:
    """A few, or the one there is without names."""
    for index, (low, high) in enumerate(ranges if names else ranges[:1]):
        spread = [
            Fraction((index * 3571 + number * 6101 + number * number * 131 + 17) % 9973, 9973)
            for number in range(len(names))
        ]
        yield {name: Fraction(low) + Fraction(high - low) * part for name, part in zip(names, spread, strict=True)}


def _integer_points(names: list[str]) -> Iterator[dict[str, Fraction]]:
    for index in range(5 if names else 0):
        yield {name: Fraction(2 + (index * (number + 1) + number) % 7) for number, name in enumerate(names)}


def _far_points(names: list[str]) -> Iterator[dict[str, Fraction]]:
    """Many, near and far, as functions with steps differ at few: integers for names of integers, else reals as well."""
    are_integers = _INTEGER_NAMES.issuperset(names)
    for index in range(NUM_FAR_POINTS):
        far = index**3 if index % 6 == 5 else index
        sign = 1 if are_integers or index % 2 else -1
        yield {
            name: sign * Fraction(3 + far * (2 * number + 1) + number * (index % 5))
            + (0 if are_integers else Fraction((index * 3571 + number * 6101) % 9973, 9973))
            for number, name in enumerate(names)
        }


def _evaluate_both(reference: Tree, tree: Tree, point: dict[str, Fraction], log_base: int | None) -> _Pair:
    digits = DIGITS
    while True:
        with mp.workdps(digits):
            a, b = evaluate(reference, point, log_base), evaluate(tree, point, log_base)
            high = max(a.high, b.high)
            if isinstance(a.value, Fraction) and isinstance(b.value, Fraction):
                return _Pair(a.value, b.value, digits, high)
            needed = DIGITS + int(2 * (high - min(a.low, b.low)) * LOG10_OF_2)
            if needed > MAX_DIGITS:
                raise UndefinedError("too large")
            if needed <= digits + SPARE_DIGITS:
                return _Pair(inexact(a.value), inexact(b.value), digits, high)
        digits = needed  # huge numbers and tiny ones, which count as well


def _is_close(pair: _Pair) -> bool:
    """Whether both values are the same, as exactly as their digits show the difference."""
    if isinstance(pair.first, Fraction) and isinstance(pair.second, Fraction):
        return pair.first == pair.second
    with mp.workdps(pair.digits):
        distance = abs(pair.first - pair.second) * mp.mpf(10) ** (pair.digits - DIGITS + EQUAL_DIGITS)
        return bool(distance <= mp.ldexp(1, pair.high))


def _are_in_proportion(pair: _Pair, other: _Pair) -> bool:
    """Whether first to second is the same in both pairs."""
    products = pair.first * other.second, pair.second * other.first
    if isinstance(products[0], Fraction) and isinstance(products[1], Fraction):
        return products[0] == products[1]
    digits = min(side.digits - int(2 * side.high * LOG10_OF_2) for side in (pair, other))
    with mp.workdps(max(pair.digits, other.digits)):
        distance = abs(products[0] - products[1]) * mp.mpf(10) ** (digits - DIGITS + EQUAL_DIGITS)
        return bool(distance <= abs(products[0]))


def _is_near(a: Any, b: Any, relative_tolerance: float) -> bool:
    return bool(relative_tolerance > 0 and abs(inexact(a) - inexact(b)) <= relative_tolerance * abs(inexact(a)))


def _is_real(value: Value) -> bool:
    return not isinstance(value, mp.mpc) or abs(value.imag) * mp.mpf(10) ** EQUAL_DIGITS <= abs(value)


def _real(value: Value) -> Value:
    return value.real if isinstance(value, mp.mpc) else value
