r"""Answers of two quantities: a value with its uncertainty (9.1 \pm 0.3 cm), and a range (400 nm to 700 nm)."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from megatron_rl.rewards.mathematics.notation import plain
from megatron_rl.rewards.mathematics.units import NO_DIMENSION
from megatron_rl.rewards.science.macros import without_macros
from megatron_rl.rewards.science.measures import MAX_QUANTITY_CHARACTERS, Quantity, agree, quantity

_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
_NAMED = re.compile(r"[A-Za-z\\_{} ]{1,20}(?:=|\\approx) ?")
_BETWEEN = re.compile(r"(?:between|from) ", re.IGNORECASE)
_TO = re.compile(r" ?(?:-{1,3}|\bto\b|\\approx|\band\b) ?")
_IN_BRACKETS = re.compile(r"\(([^()]*)\)(.*)")
_EXPONENT = re.compile(r"(?:\\times|\\cdot|\*) ?10 ?\^")
# Ways to write an uncertainty: +/-, (\pm 0.1) behind the unit, in words; 3.2(1) and 3.2^{+0.1}_{-0.2} are two of value.
_PLUS_MINUS = re.compile(
    r"\+ ?/ ?-|\+-|\bplus(?: or | ?/ ?|-| )minus\b|,? ?(?:with )?(?:an? )?(?:absolute )?\b(?:uncertainty|error) of\b"
)
_BEHIND = re.compile(r"\( ?(\\pm [^()]*)\)$")
_LAST_DIGITS = re.compile(r"([0-9]*\.([0-9]+)) ?\( ?([0-9]{1,3}) ?\)")
_DIGITS = r"[0-9]+(?:\.[0-9]+)?"
_UP_AND_DOWN = re.compile(rf"({_DIGITS}) ?([_^]) ?\{{ ?([+-]) ?({_DIGITS}) ?\}} ?([_^]) ?\{{ ?([+-]) ?({_DIGITS}) ?\}}")
MAX_SHARE = Fraction(1, 10)  # chosen: of a value, its uncertainty; who says 5 \pm 1 has not said 5


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
    text = _with_sign(" ".join(_TEXT.sub(r" \1 ", plain(without_macros(text))).split()))
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


def without_uncertainty(text: str, reference: Quantity) -> Quantity | None:
    """The quantity that a text states with a small uncertainty; None for anything else.

    Two bare numbers beside a bare reference are two values and not one that was measured.

    >>> reference = quantity("3.2 cm")
    >>> [found and found.number_text for found in (without_uncertainty(text, reference) for text in ("3.2(1) cm", "3"))]
    ['3.2', None]
    """
    found = span(text)
    if found is None or found.is_range or not (reference.unit_text or found.first.unit_text):
        return None
    value, uncertainty = found.first, found.second
    share = abs(uncertainty.number / value.number) if value.number else Fraction(1)
    if uncertainty.unit_text != value.unit_text and uncertainty.unit_text:
        if not (value.unit and uncertainty.unit):
            return None
        share *= uncertainty.unit.factor / value.unit.factor
        if uncertainty.unit.dimension == NO_DIMENSION and value.unit.dimension != NO_DIMENSION:  # per cent of it
            share = abs(uncertainty.number * uncertainty.unit.factor)
        elif uncertainty.unit.dimension != value.unit.dimension:
            return None
    return value if share <= MAX_SHARE else None


def _with_sign(text: str) -> str:
    r"""A text in plain form whose uncertainty stands behind `\pm`, however it was written."""
    text = _BEHIND.sub(r"\1", _PLUS_MINUS.sub(r" \\pm ", text))
    text = _LAST_DIGITS.sub(_in_full, text)
    return " ".join(_UP_AND_DOWN.sub(_larger, text).split())


def _in_full(match: re.Match[str]) -> str:
    uncertainty = Fraction(int(match[3]), 10 ** len(match[2]))
    return f"({match[1]} \\pm {float(uncertainty):.{len(match[2])}f})"


def _larger(match: re.Match[str]) -> str:
    signs = {match[2] + match[3], match[5] + match[6]}
    if signs != {"^+", "_-"}:
        return match[0]
    return f"({match[1]} \\pm {max(match[4], match[7], key=lambda text: Fraction(text))})"


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
