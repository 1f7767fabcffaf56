"""The scorer of integrals: the derivative of the answer is compared with the integrand, at fixed points.

A jet holds, at each of the points, the value of an expression and its slope, as complex numbers: the logarithm of a
negative number differs from that of its absolute value by a constant, which the slope does not see. Floating-point
numbers show most wrong answers at most points; what they let pass is looked at again with more digits than the formula
has, at a few, so that no term is too small to be seen.

Not covered: a proof. Formulas that agree at all the points, and differ elsewhere, pass.
"""

from __future__ import annotations

import cmath
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isfinite
from typing import Any, TypeAlias

from megatron_rl.rewards.puzzles.formulas import Meaning, evaluate

Point: TypeAlias = tuple[Any, Any]  # value, slope: complex numbers of Python or mpmath
Jet: TypeAlias = tuple[Point, ...]

# Irregular, small enough for asin(10 x), large enough for sqrt(x - 10), of both signs.
_SIZES = (0.011, 0.037, 0.052, 0.071, 0.093, 0.17, 0.31, 0.53, 0.77, 1.13, 1.61, 2.3, 3.1, 5.7, 8.3, 11.9, 13.7, 18, 23)
POINTS = tuple(sign * size for size in _SIZES for sign in (1, -1))
MIN_POINTS = 4  # where both sides are defined and the integrand is real
_RELATIVE = 1e-7  # of the rounding of floating-point numbers; the formulas cancel
MAX_DIGITS, POWER_DIGITS = 1_000, 20  # 20 for each number, which may be a power of ten
_NOWHERE: Point = (complex("nan"), complex("nan"))


def is_antiderivative(answer: str, entry: Mapping[str, Any]) -> float:
    """1 for a formula whose derivative is the integrand wherever that is real; the constant may be left out."""
    variable, integrand = entry["metadata"]["variable"], entry["metadata"]["integrand"]
    try:
        meaning = _calculus(variable, [complex(point) for point in POINTS], cmath)
        right = evaluate(integrand, meaning)
        compared = _compared(evaluate(answer, meaning), right, _RELATIVE)
        return float(len(compared) >= MIN_POINTS and _is_exact(answer, variable, integrand, compared[:MIN_POINTS]))
    except (ArithmeticError, ValueError):
        return 0.0


def load() -> None:
    """Imports what `is_antiderivative` needs."""
    import mpmath  # noqa: F401


def _is_exact(answer: str, variable: str, integrand: str, points: Sequence[int]) -> bool:
    """Whether the two agree at these points to as many digits as the numbers of the answer could hide a term in."""
    from mpmath import mp

    numbers = re.findall(r"[0-9.]+", answer)
    digits = min(MAX_DIGITS, 60 + sum(map(len, numbers)) + POWER_DIGITS * len(numbers))
    with mp.workdps(digits + 20):
        meaning = _calculus(variable, [mp.mpc(str(POINTS[point])) for point in points], mp)
        relative = mp.mpf(10) ** -digits
        return len(_compared(evaluate(answer, meaning), evaluate(integrand, meaning), relative)) == len(points)


def _compared(found: Jet, integrand: Jet, relative: Any) -> list[int]:
    """Where both are defined and the integrand is real; none at all where the slope of the one is not the other."""
    compared = []
    for place, ((value, slope), (right, _)) in enumerate(zip(found, integrand, strict=True)):
        if not all(map(_is_finite, (value, slope, right))) or abs(right.imag) > relative * abs(right):
            continue
        if abs(slope - right) > relative * abs(right) + relative / 100:
            return []
        compared.append(place)
    return compared


def _calculus(variable: str, points: Sequence[Any], field: Any) -> Meaning[Jet]:
    """What a formula means at `points`; `field` has the functions of such numbers, as `cmath` and mpmath have."""
    is_exact = field is not cmath
    # A constant of integration may have any value; one that multiplies the variable must not pass for a number.
    constants = {"C": 1.732, "c": 1.732, "E": field.e, "e": field.e, "pi": field.pi}
    functions = _functions(field)

    def name(text: str) -> Jet:
        if text == variable:
            return tuple((point, points[0] * 0 + 1) for point in points)
        if text not in constants:
            raise ValueError(f"'{text}' is neither the variable nor a constant")
        return ((points[0] * 0 + constants[text], points[0] * 0),) * len(points)

    def number(text: str) -> Jet:
        return ((field.mpc(text) if is_exact else complex(float(text)), points[0] * 0),) * len(points)

    def call(name: str, inner: Jet) -> Jet:
        function = functions.get(_ALIASES.get(name, name))
        if function is None:
            raise ValueError(f"'{name}' is no function")
        return tuple(_guarded(function, point) for point in inner)

    rules: Mapping[str, Callable[[Point, Point], Point]] = {**_RULES, "**": partial(_power, field)}
    return Meaning(
        number=number,
        name=name,
        call=call,
        negate=lambda inner: tuple((-value, -slope) for value, slope in inner),
        operators={sign: _pointwise(rule) for sign, rule in rules.items()},
    )


def _guarded(rule: Callable[..., Point], *points: Point) -> Point:
    try:
        return rule(*points)
    except (ArithmeticError, ValueError):  # no value here: a pole, or out of a float's range
        return _NOWHERE


def _pointwise(rule: Callable[[Point, Point], Point]) -> Callable[[Jet, Jet], Jet]:
    def applied(left: Jet, right: Jet) -> Jet:
        return tuple(_guarded(rule, *pair) for pair in zip(left, right, strict=True))

    return applied


def _power(field: Any, left: Point, right: Point) -> Point:
    (base, base_slope), (exponent, exponent_slope) = left, right
    value = base**exponent
    if exponent_slope == 0:
        return value, exponent * base ** (exponent - 1) * base_slope if exponent else 0 * base
    return value, value * (exponent_slope * field.log(base) + exponent * base_slope / base)


def _is_finite(value: Any) -> bool:
    return isfinite(value.real) and isfinite(value.imag)


_RULES: Mapping[str, Callable[[Point, Point], Point]] = {
    "+": lambda x, y: (x[0] + y[0], x[1] + y[1]),
    "-": lambda x, y: (x[0] - y[0], x[1] - y[1]),
    "*": lambda x, y: (x[0] * y[0], x[1] * y[0] + x[0] * y[1]),
    "/": lambda x, y: (x[0] / y[0], (x[1] * y[0] - x[0] * y[1]) / y[0] ** 2),
}


def _chained(function: Callable[[complex], complex], slope: Callable[[complex], complex]) -> Callable[[Point], Point]:
    return lambda point: (function(point[0]), slope(point[0]) * point[1])


def _functions(field: Any) -> Mapping[str, Callable[[Point], Point]]:
    return {
        "exp": _chained(field.exp, field.exp),
        "log": _chained(field.log, lambda z: 1 / z),
        "sqrt": _chained(field.sqrt, lambda z: 1 / (2 * field.sqrt(z))),
        "sin": _chained(field.sin, field.cos),
        "cos": _chained(field.cos, lambda z: -field.sin(z)),
        "tan": _chained(field.tan, lambda z: 1 / field.cos(z) ** 2),
        "cot": _chained(lambda z: 1 / field.tan(z), lambda z: -1 / field.sin(z) ** 2),
        "sec": _chained(lambda z: 1 / field.cos(z), lambda z: field.tan(z) / field.cos(z)),
        "csc": _chained(lambda z: 1 / field.sin(z), lambda z: -1 / (field.tan(z) * field.sin(z))),
        "asin": _chained(field.asin, lambda z: 1 / field.sqrt(1 - z * z)),
        "acos": _chained(field.acos, lambda z: -1 / field.sqrt(1 - z * z)),
        "atan": _chained(field.atan, lambda z: 1 / (1 + z * z)),
        "sinh": _chained(field.sinh, field.cosh),
        "cosh": _chained(field.cosh, field.sinh),
        "tanh": _chained(field.tanh, lambda z: 1 / field.cosh(z) ** 2),
        # Not analytic: the slope of |z| along a path z(x).
        "abs": lambda point: (
            abs(point[0]) + 0 * point[0],
            (point[0].conjugate() * point[1]).real / abs(point[0]) + 0 * point[0],
        ),
    }


_ALIASES = {"ln": "log", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "Abs": "abs"}
