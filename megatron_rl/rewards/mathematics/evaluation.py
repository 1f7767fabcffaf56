"""The value of an expression tree at a point: exact where it is rational, else by mpmath; bounded in time.

Not covered: infinity, and results beyond the limits below; both raise UndefinedError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from mpmath import mp  # type: ignore[import-untyped]

from megatron_rl.rewards.mathematics.expressions import Tree

MAX_EXACT_BITS = 100_000
MAX_LOG10 = 5_000  # of a power that is not exact
MAX_FACTORIAL = 5_000
MAX_GAMMA_DIGITS = 200  # gamma takes seconds for thousands

Value = Any  # Fraction, mpf or mpc

_FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {
    **{name: getattr(mp, name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth")},
    **{f"arc{name}": getattr(mp, f"a{name}") for name in ("sin", "cos", "tan", "cot")},
    **{f"ar{name}": getattr(mp, f"a{name}") for name in ("sinh", "cosh", "tanh")},
    "ln": mp.log,
    "lg": mp.log10,
}


class UndefinedError(ArithmeticError):
    """The tree has no value at this point, or none that is cheap to compute."""


class Evaluated(NamedTuple):
    """A value, and the powers of two that all values on the way to it lie between, 1 among them.

    They say how many digits it takes to see the smallest one beside the largest.
    """

    value: Value
    low: int
    high: int


def evaluate(tree: Tree, point: Mapping[str, Fraction], log_base: int | None) -> Evaluated:
    """The value and its range; `log_base` is what a bare log means, None for e.

    The digits are those of mpmath's context.
    """
    evaluation = _Evaluation(point, log_base)
    try:
        value = evaluation.value(tree)
        if not isinstance(value, Fraction) and not mp.isfinite(value):
            raise UndefinedError("infinite")
    except (ValueError, ZeroDivisionError, OverflowError, TypeError, NotImplementedError, mp.NoConvergence) as error:
        raise UndefinedError(str(error)) from error
    return Evaluated(value, evaluation.low, evaluation.high)


class _Evaluation:
    """Owns the range of the values so far."""

    def __init__(self, point: Mapping[str, Fraction], log_base: int | None) -> None:
        self.point, self.log_base = point, log_base
        self.low = self.high = 0

    def value(self, tree: Tree) -> Value:
        value = self.value_within(tree)
        if isinstance(value, Fraction):
            over, under = value.numerator.bit_length(), value.denominator.bit_length()
            self.high = max(self.high, over - under)
            if over:  # of a decimal, the last digit counts
                self.low = min(self.low, -under if tree[0] == "number" else over - under)
        elif value != 0 and mp.isfinite(value):
            magnitude = mp.mag(value)
            self.low, self.high = min(self.low, magnitude), max(self.high, magnitude)
        return value

    def value_within(self, tree: Tree) -> Value:
        head, *parts = tree
        if head == "number":
            return parts[0]
        if head == "symbol":
            return self.point[parts[0]]
        if head == "constant":
            return self.constant(parts[0])
        if head == "call":
            return self.call(parts[0], [self.value(part) for part in parts[1:]])
        values = [self.value(part) for part in parts]
        if head == "+":
            return _fold(lambda a, b: a + b, values)
        if head == "*":
            return _fold(lambda a, b: a * b, values)
        if head == "-":
            return -values[0]
        if head in ("/", "divided"):
            return _fold(lambda a, b: a / b, values)
        return power(*values) if head == "^" else root(*values)

    def constant(self, name: str) -> Value:
        if name == "infinity":
            raise UndefinedError("infinite")
        return mp.mpc(0, 1) if name == "i" else +mp.pi if name == "pi" else +mp.e

    def call(self, name: str, values: list[Value]) -> Value:
        first = values[0]
        if name == "absolute":
            return abs(first)
        if name in ("floor", "ceiling"):
            return rounded(first, name == "floor")
        if name == "factorial":
            return factorial(first)
        if name == "double factorial":
            return double_factorial(first)
        if name == "binomial":
            return binomial(*values)
        if name == "log":
            values, name = ([first], "ln") if self.log_base is None else ([first, Fraction(self.log_base)], "logarithm")
        if name == "logarithm":
            return mp.log(inexact(values[0])) / mp.log(inexact(values[1]))
        if abs(first) > 10**MAX_LOG10 or (name.endswith("h") and abs(first) > MAX_LOG10):
            raise UndefinedError("too large")
        if name.startswith("unknown "):  # some function, another for each letter
            return mp.sin(inexact(first) + ord(name[-1])) + ord(name[-1])
        if name in ("tanh", "coth"):  # how close to 1 they are
            self.low = min(self.low, -int(3 * abs(first)))
        return _FUNCTIONS[name](inexact(first))


def rounded(value: Value, is_down: bool) -> Fraction:
    """The floor or the ceiling; what is an integer but for the last digits is one, as log_2 8 is 3."""
    if isinstance(value, Fraction):
        return Fraction(math.floor(value) if is_down else math.ceil(value))
    nearest = mp.nint(value)
    if abs(value - nearest) <= mp.mpf(10) ** (10 - mp.dps) * max(1, abs(value)):
        return Fraction(int(nearest))
    return Fraction(int(mp.floor(value) if is_down else mp.ceil(value)))


def power(base: Value, exponent: Value) -> Value:
    """base^exponent; exact for a rational base and an integer exponent."""
    if base == 0:
        if not isinstance(exponent, Fraction) or exponent <= 0:
            raise UndefinedError("0 to the power of 0 or less")
        return Fraction(0)
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        if isinstance(base, Fraction):
            num_bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if abs(base) != 1 and num_bits * abs(exponent.numerator) > MAX_EXACT_BITS:
                raise UndefinedError("too large")
            return base ** (exponent.numerator if abs(base) != 1 else exponent.numerator % 2)
        exponent = exponent.numerator
    if abs(exponent) > 10**MAX_LOG10 or abs(exponent * mp.log10(abs(inexact(base)))) > MAX_LOG10:
        raise UndefinedError("too large")
    return mp.power(inexact(base), inexact(exponent))


def root(radicand: Value, degree: Value) -> Value:
    """The real root where there is one, else the principal one."""
    if isinstance(radicand, Fraction) and degree == 2 and radicand >= 0:
        over, under = math.isqrt(radicand.numerator), math.isqrt(radicand.denominator)
        if over * over == radicand.numerator and under * under == radicand.denominator:
            return Fraction(over, under)
    if not isinstance(degree, Fraction) or degree == 0:
        return power(radicand, 1 / degree)
    if degree.denominator == 1 and degree.numerator % 2 and not isinstance(radicand, mp.mpc) and radicand < 0:
        return -power(-radicand, 1 / degree)
    return power(radicand, 1 / degree)


def factorial(value: Value) -> Value:
    """n!, by gamma where n is no integer."""
    if isinstance(value, Fraction) and value.denominator == 1:
        if not 0 <= value <= MAX_FACTORIAL:
            raise UndefinedError("no factorial, or too large")
        return Fraction(_whole_factorial(value.numerator))
    if abs(value) > MAX_FACTORIAL or mp.dps > MAX_GAMMA_DIGITS:
        raise UndefinedError("too large")
    return mp.factorial(inexact(value))


def double_factorial(value: Value) -> Value:
    """n!! = n (n - 2) (n - 4) ... for whole n."""
    if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= MAX_FACTORIAL:
        raise UndefinedError("no double factorial, or too large")
    return Fraction(math.prod(range(value.numerator, 0, -2)))


@lru_cache(maxsize=256)
def _whole_factorial(value: int) -> int:
    return math.factorial(value)


def binomial(total: Value, chosen: Value) -> Value:
    """total over chosen, by gamma where they are no integers."""
    if isinstance(total, Fraction) and isinstance(chosen, Fraction) and total.denominator == chosen.denominator == 1:
        if not 0 <= chosen <= total <= MAX_FACTORIAL:
            raise UndefinedError("no binomial, or too large")
        return Fraction(math.comb(total.numerator, chosen.numerator))
    if abs(total) > MAX_FACTORIAL or abs(chosen) > MAX_FACTORIAL or mp.dps > MAX_GAMMA_DIGITS:
        raise UndefinedError("too large")
    return mp.binomial(inexact(total), inexact(chosen))


def _fold(operation: Callable[[Value, Value], Value], values: list[Value]) -> Value:
    """The values joined from the left, exactly while they are rational."""
    result, *rest = values
    for value in rest:
        if isinstance(result, Fraction) and isinstance(value, Fraction):
            if result.numerator.bit_length() + value.numerator.bit_length() > 4 * MAX_EXACT_BITS:
                raise UndefinedError("too large")
            result = operation(result, value)
        else:
            result = operation(inexact(result), inexact(value))
    return result


def inexact(value: Value) -> Value:
    """The value in mpmath's numbers."""
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value
