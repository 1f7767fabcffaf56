r"""Answers of two quantities: a value with its uncertainty (9.1 \pm 0.3 cm), and a range (400 nm to 700 nm)."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from megatron_rl.rewards.mathematics.notation import plain
from megatron_rl.rewards.science.macros import without_macros
from megatron_rl.rewards.science.measures import MAX_QUANTITY_CHARACTERS, Quantity, agree, quantity

_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
_NAMED = re.compile(r"[A-Za-z\\_{} ]{1,20}(?:=|\\approx) ?")
_BETWEEN = re.compile(r"(?:between|from) ", re.IGNORECASE)
_TO = re.compile(r" ?(?:-{1,3}|\bto\b|\\approx|\band\b) ?")
_IN_BRACKETS = re.compile(r"\(([^()]*)\)(.*)")
_EXPONENT = re.compile(r"(?:\\times|\\cdot|\*) ?10 ?\^")


class Span(NamedTuple):
    """A value and its uncertainty, or the ends of a range."""

    is_range: bool
    first: Quantity
    second: Quantity


def span(text: str) -> Span | None:
    r"""The two quantities that a text states; a unit behind both belongs to both.

    >>> span("(9.1 \\pm 0.3) cm").second.unit_text, span("400-700 nm").is_range, span("400 nm")
    ('cm', True, None)
    """
    if len(text) > MAX_QUANTITY_CHARACTERS:
        return None
    text = " ".join(_TEXT.sub(r" \1 ", plain(without_macros(text))).split())
    if named := _NAMED.match(text):
        text = text[named.end() :]
    bracket = _IN_BRACKETS.fullmatch(text)
    inside, behind = (bracket[1], bracket[2]) if bracket else (text, "")
    if "\\pm" in inside:
        first, _, second = inside.partition("\\pm")
        return _span(False, first + behind, second + behind)
    opening = _BETWEEN.match(inside)
    inside = inside[opening.end() :] if opening else inside
    for sign in _TO.finditer(inside):
        joins = sign[0].strip() != "and" or opening and opening[0].lower().startswith("between")
        found = _span(True, inside[: sign.start()], inside[sign.end() :] + behind) if joins and sign.start() else None
        if found:
            return found
    return None


def _span(is_range: bool, first: str, second: str) -> Span | None:
    end = quantity(second)
    if end is None:
        return None
    start = quantity(first)
    if start and not start.unit_text and end.unit_text:
        start = quantity(f"{first} {end.unit_text}")
    if start and not is_range and _EXPONENT.search(end.number_text) and not _EXPONENT.search(start.number_text):
        return None  # 2 \pm 0.1 \times 10^3, without brackets, leaves open what the power belongs to
    return Span(is_range, start, end) if start else None


def same_span(answer: Span, reference: Span, tolerance: Fraction) -> bool:
    """Whether both are of one kind, and agree in both quantities."""
    return answer.is_range == reference.is_range and all(
        agree(mine, its, tolerance) for mine, its in zip(answer[1:], reference[1:], strict=True)
    )
