"""The scorer of conclusions in propositional logic, by truth tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_CHARACTERS = 300
MAX_DEPTH = 40
_SPELLINGS = (("<->", "↔"), ("->", "→"), ("&", "∧"), ("|", "∨"), ("~", "¬"), ("!", "¬"))
_BY_STRENGTH = ("↔", "→", "∨", "∧")  # the weakest first


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a formula says, and how."""

    table: int  # bit i: whether it holds in row i of the truth table
    form: str  # the formula, with the order of operands, double negations and repeated operands taken out
    parts: frozenset[str]  # the forms of its parts that have two operands


def is_conclusion(answer: str, entry: Mapping[str, Any]) -> float:
    """1 for a statement about the variables that follows from the premises, not always true, and not a premise copied.

    A premise counts as copied where it is the statement, or, joining two, a part of it: otherwise repeating the
    question would always be right. The entry's own example is right even where it is such a copy.
    """
    metadata = entry["metadata"]
    tables = truth_tables(metadata["variables"])
    try:
        found = parsed(answer, tables)
    except ValueError:
        return 0.0
    premises = [parsed(text, tables) for text in metadata["premises"]]
    every_row = (1 << (1 << len(tables))) - 1
    holds = every_row
    for premise in premises:
        holds &= premise.table
    is_copied = any(premise.form == found.form or premise.form in found.parts for premise in premises)
    is_copied = is_copied and found.form != parsed(metadata["example_answer"], tables).form
    return float(holds & ~found.table == 0 and found.table != every_row and not is_copied)


def truth_tables(variables: list[str]) -> dict[str, int]:
    """Per variable, the rows in which it is true."""
    rows = range(1 << len(variables))
    return {name: sum(1 << row for row in rows if row >> place & 1) for place, name in enumerate(variables)}


def parsed(text: str, tables: Mapping[str, int]) -> Statement:
    """The statement. Raises ValueError for what is none, or is too long or too deep."""
    for spelling, sign in _SPELLINGS:
        text = text.replace(spelling, sign)
    tokens = [sign for sign in text if not sign.isspace()][::-1]  # the next one is the last
    if len(tokens) > MAX_CHARACTERS:
        raise ValueError(f"a statement of {len(tokens)} signs, at most {MAX_CHARACTERS}")
    statement = _joined(tokens, tables, 0, MAX_DEPTH)
    if tokens:
        raise ValueError(f"'{tokens[-1]}' is left over")
    return statement


def _joined(tokens: list[str], tables: Mapping[str, int], strength: int, depth: int) -> Statement:
    if strength == len(_BY_STRENGTH):
        return _single(tokens, tables, depth)
    left = _joined(tokens, tables, strength + 1, depth)
    while tokens and tokens[-1] == _BY_STRENGTH[strength]:
        sign = tokens.pop()
        left = _combined(sign, left, _joined(tokens, tables, strength + 1, depth), tables)
    return left


def _single(tokens: list[str], tables: Mapping[str, int], depth: int) -> Statement:
    token = tokens.pop() if tokens else "the end"
    if depth == 0:
        raise ValueError(f"a statement deeper than {MAX_DEPTH}")
    if token == "¬":
        inner = _single(tokens, tables, depth - 1)
        form = inner.form[1:] if inner.form.startswith("¬") else f"¬{inner.form}"
        return Statement(table=_every_row(tables) & ~inner.table, form=form, parts=inner.parts)
    if token == "(":
        inner = _joined(tokens, tables, 0, depth - 1)
        if not tokens or tokens.pop() != ")":
            raise ValueError("a bracket is not closed")
        return inner
    if token not in tables:
        raise ValueError(f"'{token}' is no variable")
    return Statement(table=tables[token], form=token, parts=frozenset())


def _combined(sign: str, left: Statement, right: Statement, tables: Mapping[str, int]) -> Statement:
    table = {
        "∧": left.table & right.table,
        "∨": left.table | right.table,
        "→": ~left.table | right.table,
        "↔": ~(left.table ^ right.table),
    }[sign] & _every_row(tables)
    forms = [left.form, right.form] if sign == "→" else sorted((left.form, right.form))
    parts = left.parts | right.parts
    if sign in "∧∨" and left.form == right.form:
        return Statement(table=table, form=left.form, parts=parts)
    form = f"({forms[0]}{sign}{forms[1]})"
    return Statement(table=table, form=form, parts=parts | {form})


def _every_row(tables: Mapping[str, int]) -> int:
    return (1 << (1 << len(tables))) - 1
