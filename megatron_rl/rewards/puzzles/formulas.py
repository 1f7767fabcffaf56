"""The parser of formulas: recursive descent over numbers, names, calls, brackets and operators; executes nothing.

What the parts mean is the caller's: exact fractions, polynomials, or values and slopes at points.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_CHARACTERS = 8000
MAX_DEPTH = 40  # brackets, signs and powers in one another
MAX_DIGITS = 100

_TOKEN = re.compile(r"\s*(?:([0-9]+(?:\.[0-9]*)?|\.[0-9]+)|([A-Za-z]+)|(\*\*|[-+*/^()]))\s*")
_SPELLINGS = str.maketrans({"×": "*", "·": "*", "÷": "/", "\u2212": "-"})


@dataclass(frozen=True, kw_only=True)
class Meaning(Generic[T]):
    """What the parts of a formula stand for. Any of them may raise ArithmeticError or ValueError: no such formula."""

    number: Callable[[str], T]
    name: Callable[[str], T]
    call: Callable[[str, T], T]
    negate: Callable[[T], T]
    operators: Mapping[str, Callable[[T, T], T]]  # of + - * / **; those missing are not allowed


def evaluate(text: str, meaning: Meaning[T]) -> T:
    """The value of a formula: numbers, names, calls, brackets, and the operators of `meaning`.

    Raises ValueError for what is no formula, is longer than `MAX_CHARACTERS` or deeper than `MAX_DEPTH`, and
    whatever `meaning` raises.
    """
    tokens = _tokens(text)
    value = _sum(tokens, meaning, MAX_DEPTH)
    if tokens:
        raise ValueError(f"'{tokens[-1]}' is left over")
    return value


def _tokens(text: str) -> list[str]:
    """The tokens in reverse, so that the next one is the last."""
    text = text.strip().translate(_SPELLINGS)
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"a formula of {len(text)} characters, at most {MAX_CHARACTERS}")
    tokens, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"'{text[position]}' belongs to no formula")
        token = match[1] or match[2] or match[3]
        tokens.append("**" if token == "^" else token)
        position = match.end()
    return tokens[::-1]


def _sum(tokens: list[str], meaning: Meaning[T], depth: int) -> T:
    value = _product(tokens, meaning, depth)
    while tokens and tokens[-1] in ("+", "-"):
        value = _applied(tokens.pop(), value, _product(tokens, meaning, depth), meaning)
    return value


def _product(tokens: list[str], meaning: Meaning[T], depth: int) -> T:
    value = _signed(tokens, meaning, depth)
    while tokens and tokens[-1] in ("*", "/"):
        value = _applied(tokens.pop(), value, _signed(tokens, meaning, depth), meaning)
    return value


def _signed(tokens: list[str], meaning: Meaning[T], depth: int) -> T:
    if depth == 0:
        raise ValueError(f"a formula deeper than {MAX_DEPTH}")
    if tokens and tokens[-1] in ("+", "-"):
        sign = tokens.pop()
        value = _signed(tokens, meaning, depth - 1)
        return meaning.negate(value) if sign == "-" else value
    base = _atom(tokens, meaning, depth)
    if tokens and tokens[-1] == "**":  # binds tighter than a sign before it, and to the right
        return _applied(tokens.pop(), base, _signed(tokens, meaning, depth - 1), meaning)
    return base


def _atom(tokens: list[str], meaning: Meaning[T], depth: int) -> T:
    token = tokens.pop() if tokens else "the end"
    if token[0].isdigit() or token[0] == ".":
        if len(token) > MAX_DIGITS:
            raise ValueError(f"a number of {len(token)} digits, at most {MAX_DIGITS}")
        return meaning.number(token)
    if token == "(" or (token[0].isalpha() and tokens and tokens[-1] == "("):
        if token != "(":
            tokens.pop()
        value = _sum(tokens, meaning, depth - 1)
        if not tokens or tokens.pop() != ")":
            raise ValueError("a bracket is not closed")
        return value if token == "(" else meaning.call(token, value)
    if token[0].isalpha() and token != "the end":
        return meaning.name(token)
    raise ValueError(f"'{token}' where a number, a name or a bracket should be")


def _applied(operator: str, left: T, right: T, meaning: Meaning[T]) -> T:
    if operator not in meaning.operators:
        raise ValueError(f"the operator {operator} is not allowed")
    return meaning.operators[operator](left, right)
