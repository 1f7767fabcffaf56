"""The scorer of integrals: the derivative of the answer is compared with the integrand, at fixed points.

A jet holds, at each of the points, the value of an expression and its slope, as complex numbers: the logarithm of a
negative number differs from that of its absolute value by a constant, which the slope does not see.

Not covered: a proof. Formulas that agree at all the points to 7 digits, and differ elsewhere, pass.
"""

from __future__ import annotations

import cmath
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, TypeAlias

from megatron_rl.rewards.puzzles.formulas import Meaning, evaluate

Point: TypeAlias = tuple[complex, complex]  # value, slope
Jet: TypeAlias = tuple[Point, ...]

# Irregular, small enough for asin(10 x), large enough for sqrt(x - 10), of both signs.
_SIZES = (0.011, 0.037, 0.052, 0.071, 0.093, 0.17, 0.31, 0.53, 0.77, 1.13, 1.61, 2.3, 3.1, 5.7, 8.3, 11.9, 13.7, 18, 23)
POINTS = tuple(sign * size for size in _SIZES for sign in (1, -1))
MIN_POINTS = 4  # where both sides are defined and the integrand is real
_RELATIVE, _ABSOLUTE = 1e-7, 1e-9  # of the rounding; the formulas cancel
_NOWHERE: Point = (complex("nan"), complex("nan"))


def is_antiderivative(answer: str, entry: Mapping[str, Any]) -> float:
    """1 for a formula whose derivative is the integrand wherever that is real; the constant may be left out."""
    meaning = _calculus(entry["metadata"]["variable"])
    try:
        found = evaluate(answer, meaning)
    except (ArithmeticError, ValueError):
        return 0.0
    return float(_agree(found, evaluate(entry["metadata"]["integrand"], meaning)))


def _agree(found: Jet, integrand: Jet) -> bool:
    """Whether the slope of the one is the value of the other, wherever both are defined and that value is real."""
    num_compared = 0
    for (value, slope), (right, _) in zip(found, integrand, strict=True):
        if not all(map(_is_finite, (value, slope, right))) or abs(right.imag) > _RELATIVE * abs(right):
            continue
        if abs(slope - right) > _RELATIVE * abs(right) + _ABSOLUTE:
            return False
        num_compared += 1
    return num_compared >= MIN_POINTS


def _calculus(variable: str) -> Meaning[Jet]:
    def name(text: str) -> Jet:
        if text == variable:
            return tuple((complex(point), 1 + 0j) for point in POINTS)
        if text not in _CONSTANTS:
            raise ValueError(f"'{text}' is neither the variable nor a constant")
        return ((_CONSTANTS[text], 0j),) * len(POINTS)

    return Meaning(
        number=lambda text: ((complex(float(text)), 0j),) * len(POINTS),
        name=name,
        call=_called,
        negate=lambda inner: tuple((-value, -slope) for value, slope in inner),
        operators={sign: _pointwise(rule) for sign, rule in _RULES.items()},
    )


def _called(name: str, inner: Jet) -> Jet:
    function = _FUNCTIONS.get(_ALIASES.get(name, name))
    if function is None:
        raise ValueError(f"'{name}' is no function")
    return tuple(_guarded(function, point) for point in inner)


def _guarded(rule: Callable[..., Point], *points: Point) -> Point:
    try:
        return rule(*points)
    except (ArithmeticError, ValueError):  # no value here: a pole, or out of a float's range
        return _NOWHERE


def _pointwise(rule: Callable[[Point, Point], Point]) -> Callable[[Jet, Jet], Jet]:
    def applied(left: Jet, right: Jet) -> Jet:
        return tuple(_guarded(rule, *pair) for pair in zip(left, right, strict=True))

    return applied


def _power(left: Point, right: Point) -> Point:
    (base, base_slope), (exponent, exponent_slope) = left, right
    value = base**exponent
    if exponent_slope == 0:
        return value, exponent * base ** (exponent - 1) * base_slope if exponent else 0j
    return value, value * (exponent_slope * cmath.log(base) + exponent * base_slope / base)


def _is_finite(value: complex) -> bool:
    return isfinite(value.real) and isfinite(value.imag)


_RULES: Mapping[str, Callable[[Point, Point], Point]] = {
    "+": lambda x, y: (x[0] + y[0], x[1] + y[1]),
    "-": lambda x, y: (x[0] - y[0], x[1] - y[1]),
    "*": lambda x, y: (x[0] * y[0], x[1] * y[0] + x[0] * y[1]),
    "/": lambda x, y: (x[0] / y[0], (x[1] * y[0] - x[0] * y[1]) / y[0] ** 2),
    "**": _power,
}


def _chained(function: Callable[[complex], complex], slope: Callable[[complex], complex]) -> Callable[[Point], Point]:
    return lambda point: (function(point[0]), slope(point[0]) * point[1])


_FUNCTIONS: Mapping[str, Callable[[Point], Point]] = {
    "exp": _chained(cmath.exp, cmath.exp),
    "log": _chained(cmath.log, lambda z: 1 / z),
    "sqrt": _chained(cmath.sqrt, lambda z: 0.5 / cmath.sqrt(z)),
    "sin": _chained(cmath.sin, cmath.cos),
    "cos": _chained(cmath.cos, lambda z: -cmath.sin(z)),
    "tan": _chained(cmath.tan, lambda z: 1 / cmath.cos(z) ** 2),
    "cot": _chained(lambda z: 1 / cmath.tan(z), lambda z: -1 / cmath.sin(z) ** 2),
    "sec": _chained(lambda z: 1 / cmath.cos(z), lambda z: cmath.tan(z) / cmath.cos(z)),
    "csc": _chained(lambda z: 1 / cmath.sin(z), lambda z: -1 / (cmath.tan(z) * cmath.sin(z))),
    "asin": _chained(cmath.asin, lambda z: 1 / cmath.sqrt(1 - z * z)),
    "acos": _chained(cmath.acos, lambda z: -1 / cmath.sqrt(1 - z * z)),
    "atan": _chained(cmath.atan, lambda z: 1 / (1 + z * z)),
    "sinh": _chained(cmath.sinh, cmath.cosh),
    "cosh": _chained(cmath.cosh, cmath.sinh),
    "tanh": _chained(cmath.tanh, lambda z: 1 / cmath.cosh(z) ** 2),
    # Not analytic: the slope of |z| along a path z(x).
    "abs": lambda point: (complex(abs(point[0])), complex((point[0].conjugate() * point[1]).real / abs(point[0]))),
}
_ALIASES = {"ln": "log", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "Abs": "abs"}
# A constant of integration may have any value; one that multiplies the variable must not pass for a number.
_CONSTANTS = {"C": 1.732 + 0j, "c": 1.732 + 0j, "E": cmath.e + 0j, "e": cmath.e + 0j, "pi": cmath.pi + 0j}
