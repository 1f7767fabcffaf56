"""The record of an answer's structure, and sets of real numbers as unions of intervals and points."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from megatron_rl.rewards.mathematics.notation import compact
from megatron_rl.rewards.mathematics.numbers import plain_number

Kind = Literal["value", "list", "set", "tuple", "union", "matrix", "relation", "approximation", "other"]


MAX_DOTTED = 200  # integers that dots stand for and that are written out
EMPTY, DOTS = "\\emptyset", "\\ldots"


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
    """Intervals, then all single points as one set; what joins is joined, where its ends are plain numbers."""
    flat = [inner for piece in pieces for inner in (piece.parts if piece.kind == "union" else (piece,))]
    flat = [piece._replace(label="") for piece in flat if piece.text != EMPTY]
    joined = joined_pieces(flat, end_value)
    if joined is None:
        points = [point for piece in flat if piece.kind == "set" for point in piece.parts]
        joined = [piece for piece in flat if piece.kind != "set"] + ([make_set(points)] if points else [])
    if len(joined) <= 1:
        return (joined[0] if joined else make_value(EMPTY))._replace(label=label)
    return _union(joined, label)


def _union(parts: Sequence[Answer], label: str) -> Answer:
    text = f"{label}\\in" + "\\cup".join(piece.text for piece in parts)
    return Answer("union", text.removeprefix("\\in"), parts=tuple(parts), label=label)


def end_value(text: str) -> Fraction | float | None:
    """The value of an interval's end that is a plain number or infinite."""
    return {"-\\infty": -math.inf, "\\infty": math.inf}.get(text) or plain_number(text)


class _Span(NamedTuple):
    low: Any
    is_open_below: bool
    high: Any
    is_open_above: bool
    low_text: str
    high_text: str


def joined_pieces(pieces: Sequence[Answer], value: Callable[[str], Any]) -> list[Answer] | None:
    """Intervals and finite sets as the fewest intervals, ascending, then a set of single points.

    None where an end has no value to go by, or an interval no length.
    """
    spans = []
    for piece in pieces:
        if piece.kind == "set":
            ends = [(part.value if part.kind == "value" else "", part.value, "[]") for part in piece.parts]
        elif piece.kind == "tuple" and len(piece.parts) == 2 and piece.brackets[:1] in ("(", "["):
            ends = [(piece.parts[0].value, piece.parts[1].value, piece.brackets)]
        else:
            return None
        for low, high, brackets in ends:
            values = value(low), value(high)
            if values[0] is None or values[1] is None or values[0] > values[1]:
                return None
            if values[0] == values[1] and brackets != "[]":
                return None
            spans.append(_Span(values[0], brackets[0] == "(", values[1], brackets[1] == ")", low, high))
    joined: list[_Span] = []
    for span in sorted(spans):
        last = joined[-1] if joined else span
        if joined and (
            span.low < last.high or (span.low == last.high and not (span.is_open_below and last.is_open_above))
        ):
            if (last.high, not last.is_open_above) < (span.high, not span.is_open_above):
                last = last._replace(high=span.high, is_open_above=span.is_open_above, high_text=span.high_text)
            joined[-1] = last
        else:
            joined.append(span)
    points = [make_value(span.low_text) for span in joined if span.low == span.high]
    intervals = [
        make_interval(span.low_text, span.high_text, "[("[span.is_open_below] + "])"[span.is_open_above])
        for span in joined
        if span.low != span.high
    ]
    return intervals + ([make_set(points)] if points else [])


def without_dots(parts: list[Answer]) -> list[Answer]:
    """The parts of a list with the integers that its dots stand for, where those are few; else the fewest before them.

    Integers with equal distances are meant: 1, 2, ..., 10 and 2, 4, ..., 20; of 1, 2, 3, ... the first two are kept.
    """
    places = [index for index, part in enumerate(parts) if part.text == DOTS]
    if len(places) != 1:
        return parts
    before, after = parts[: places[0]], parts[places[0] + 1 :]
    starts, ends = ([plain_number(part.value) for part in some] for some in (before, after))
    if not starts or any(start is None or start.denominator != 1 for start in starts):
        return parts
    first, step = starts[0], (starts[1] - starts[0] if len(starts) > 1 else Fraction(1))  # type: ignore[operator]
    if step == 0 or starts != [first + index * step for index in range(len(starts))]:  # type: ignore[operator]
        return parts
    last = ends[-1] if ends else None
    if last is not None:
        count = (last - first) / step + 1  # type: ignore[operator]
        if len(starts) + len(ends) <= count <= MAX_DOTTED and count.denominator == 1:
            numbers = [first + index * step for index in range(int(count))]  # type: ignore[operator]
            if ends == numbers[-len(ends) :]:
                return [make_value(str(number)) for number in numbers]
    return before[:2] + parts[places[0] :]


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


def join_inequalities(parts: Sequence[Answer], is_choice: bool) -> Answer | None:
    """The set of real numbers that inequalities in one symbol describe together, None where they do not.

    Those of a choice ("or") are joined; others overlap, where two half lines do, and are joined where they do not.
    """
    label = parts[0].label if parts else ""
    if not label or label.startswith("("):
        return None
    if _missing_points(parts[0]):  # x \ne 0, x \ne 1 or x \ne 0, 1
        points = [_missing_points(part) if part.label == label else [part.value] for part in parts]
        return without_points(REALS, [point for some in points for point in some], label)
    if any(part.label != label for part in parts) or all(part.kind not in ("tuple", "union") for part in parts):
        return None
    if len(parts) == 2 and parts[0].kind == "tuple" and not is_choice:
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
