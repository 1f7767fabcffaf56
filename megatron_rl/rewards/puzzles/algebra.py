"""Scorers of tasks whose answer is a formula of numbers, or a polynomial.

reasoning-gym hands such answers to sympy's parse_expr, which executes Python.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from megatron_rl.rewards.puzzles.formulas import MAX_CHARACTERS, Meaning, evaluate

Polynomial = dict[tuple[tuple[str, int], ...], int]  # ((variable, exponent), ...) by variable -> coefficient

PUZZLE_24 = 24
MAX_POWER = 200  # of a term
MAX_COEFFICIENT = 10**1000


def reaches_target(answer: str, entry: Mapping[str, Any]) -> float:
    """1 for a formula of + - * / and brackets with the target's value that uses each given number once."""
    metadata = entry["metadata"]
    used = Counter(re.findall(r"[0-9.]+", answer))
    if len(answer) > MAX_CHARACTERS or used != Counter(map(str, metadata["numbers"])):
        return 0.0
    try:
        return float(evaluate(answer, _ARITHMETIC) == metadata.get("target", PUZZLE_24))
    except (ArithmeticError, ValueError):
        return 0.0


def is_expanded_product(answer: str, entry: Mapping[str, Any]) -> float:
    """1 for the reference's polynomial, written as a sum of terms without brackets."""
    try:
        return float("(" not in answer and evaluate(answer, _POLYNOMIAL) == evaluate(entry["answer"], _POLYNOMIAL))
    except (ArithmeticError, ValueError):
        return 0.0


def _refused(*parts: Any) -> Any:
    raise ValueError(f"names and functions are not allowed: {parts[0]}")


def _added(left: Polynomial, right: Polynomial) -> Polynomial:
    terms = Counter(left)
    terms.update(right)
    return {term: coefficient for term, coefficient in terms.items() if coefficient}


def _negated(value: Polynomial) -> Polynomial:
    return {term: -coefficient for term, coefficient in value.items()}


def _multiplied(left: Polynomial, right: Polynomial) -> Polynomial:
    product: Polynomial = {}
    for term, coefficient in left.items():
        for other, factor in right.items():
            powers = Counter(dict(term))
            powers.update(dict(other))
            key = tuple(sorted(powers.items()))
            product[key] = product.get(key, 0) + coefficient * factor
    return _bounded(product)


def _raised(base: Polynomial, exponent: Polynomial) -> Polynomial:
    power = exponent.get((), 0)
    if exponent.keys() - {()} or not 0 <= power <= MAX_POWER or len(base) != 1:
        raise ValueError(f"a power is a term with a whole exponent of 0 to {MAX_POWER}")
    ((term, coefficient),) = base.items()
    return _bounded({tuple((name, count * power) for name, count in term if power): coefficient**power})


def _bounded(value: Polynomial) -> Polynomial:
    if any(abs(coefficient) > MAX_COEFFICIENT for coefficient in value.values()):
        raise ValueError("a coefficient of more than a thousand digits")
    return {term: coefficient for term, coefficient in value.items() if coefficient}


_ARITHMETIC: Meaning[Fraction] = Meaning(
    number=lambda text: Fraction(int(text)),
    name=_refused,
    call=_refused,
    negate=lambda value: -value,
    operators={
        "+": lambda left, right: left + right,
        "-": lambda left, right: left - right,
        "*": lambda left, right: left * right,
        "/": lambda left, right: left / right,
    },
)
_POLYNOMIAL: Meaning[Polynomial] = Meaning(
    number=lambda text: {(): int(text)} if int(text) else {},
    name=lambda name: {((name, 1),): 1},
    call=_refused,
    negate=_negated,
    operators={
        "+": _added,
        "-": lambda left, right: _added(left, _negated(right)),
        "*": _multiplied,
        "**": _raised,
    },
)
