"""The record of an answer's structure, and sets of real numbers as unions of intervals and points."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from megatron_rl.rewards.mathematics.notation import compact
from megatron_rl.rewards.mathematics.numbers import plain_number

Kind = Literal["value", "list", "set", "tuple", "union", "matrix", "relation", "approximation", "other"]


class Answer(NamedTuple):
    """One part of an answer, or all of it."""

    kind: Kind
    text: str  # compact; two answers with the same text are the same
    value: str = ""  # of a value: plain, without the label
    parts: tuple[Answer, ...] = ()
    brackets: str = ""  # of a tuple or interval; the sign of a relation
    label: str = ""  # the name before `=`, or the symbol of an inequality


def make_value(text: str) -> Answer:
    """A single value without a label."""
    return Answer("value", compact(text), text)


def make_set(parts: Sequence[Answer]) -> Answer:
    """A finite set; parts with the same text are one."""
    distinct = tuple({part.text: part for part in parts}.values())
    return Answer("set", "\\{" + ",".join(part.text for part in distinct) + "\\}", parts=distinct)


def make_interval(low: str, high: str, brackets: str, label: str = "") -> Answer:
    """An interval, open where it is infinite."""
    low, high = compact(low), compact(high).removeprefix("+")
    brackets = ("(" if low == "-\\infty" else brackets[0]) + (")" if high == "\\infty" else brackets[1])
    text = f"{label}\\in{brackets[0]}{low},{high}{brackets[1]}"
    return Answer("tuple", text.removeprefix("\\in"), "", (make_value(low), make_value(high)), brackets, label)


def make_union(pieces: Sequence[Answer], label: str = "") -> Answer:
    """Intervals in their order, then all single points as one set; unions among the pieces are taken apart."""
    flat = [inner for piece in pieces for inner in (piece.parts if piece.kind == "union" else (piece,))]
    points = [point for piece in flat if piece.kind == "set" for point in piece.parts]
    parts = [piece._replace(label="") for piece in flat if piece.kind != "set"] + ([make_set(points)] if points else [])
    text = f"{label}\\in" + "\\cup".join(piece.text for piece in parts)
    return Answer("union", text.removeprefix("\\in"), parts=tuple(parts), label=label)


def without_points(interval: Answer, points: Sequence[str], label: str = "") -> Answer | None:
    """An interval without some points; None unless these are plain numbers."""
    values = {point: value for point in points if (value := plain_number(point)) is not None}
    if len(values) < len(set(points)) or len(interval.parts) != 2:
        return None
    low, high = (plain_number(part.value) for part in interval.parts)
    inside = sorted(
        (value, point)
        for point, value in values.items()
        if (low is None or low < value) and (high is None or value < high)
    )
    ends = [interval.parts[0].value, *(point for _, point in inside), interval.parts[1].value]
    opening, closing = interval.brackets[0] + "(" * len(inside), ")" * len(inside) + interval.brackets[1]
    gaps = zip(pairwise(ends), opening, closing, strict=True)
    return make_union([make_interval(start, end, left + right) for (start, end), left, right in gaps], label)


REALS = make_interval("-\\infty", "\\infty", "()")


def join_inequalities(parts: Sequence[Answer]) -> Answer | None:
    """The set of real numbers that inequalities in one symbol describe together, None where they do not."""
    label = parts[0].label if parts else ""
    if not label or label.startswith("("):
        return None
    if _missing_points(parts[0]):  # x \ne 0, x \ne 1 or x \ne 0, 1
        points = [_missing_points(part) if part.label == label else [part.value] for part in parts]
        return without_points(REALS, [point for some in points for point in some], label)
    if any(part.label != label for part in parts) or all(part.kind not in ("tuple", "union") for part in parts):
        return None
    if len(parts) == 2 and parts[0].kind == "tuple":
        if points_missing := _missing_points(parts[1]):  # x > 0, x \ne 1
            return without_points(parts[0], points_missing, label)
        if parts[1].kind == "tuple" and (both := _between(parts[0], parts[1], label)):
            return both
    return make_union([part if part.kind in ("tuple", "union") else make_set([part]) for part in parts], label)


def _missing_points(union: Answer) -> list[str]:
    """The points that a union of open intervals leaves out of the real line, none where it leaves out more."""
    ends = [end.value for piece in union.parts if piece.brackets == "()" for end in piece.parts]
    if union.kind != "union" or len(ends) != 2 * len(union.parts) or (ends[0], ends[-1]) != ("-\\infty", "\\infty"):
        return []
    return ends[1:-1:2] if ends[1:-1:2] == ends[2::2] else []


def _between(first: Answer, second: Answer, label: str) -> Answer | None:
    """Where two half lines in opposite directions overlap, None where they do not or one cannot see it."""
    low, high = sorted((first, second), key=lambda part: part.parts[0].value == "-\\infty")
    if low.parts[1].value != "\\infty" or high.parts[0].value != "-\\infty":
        return None
    start, end = low.parts[0].value, high.parts[1].value
    bounds = plain_number(start), plain_number(end)
    if bounds[0] is None or bounds[1] is None or bounds[0] >= bounds[1]:
        return None
    return make_interval(start, end, low.brackets[0] + high.brackets[1], label)
