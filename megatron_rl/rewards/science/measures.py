"""Numbers with units: reading them from an answer, and whether two of them agree.

The reference decides how near is near enough: a relative tolerance where the item gives one; else the same number, or,
where the reference is a decimal of three or more significant digits, one that rounds to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from megatron_rl.rewards.mathematics.notation import plain
from megatron_rl.rewards.mathematics.numbers import plain_number
from megatron_rl.rewards.mathematics.units import NO_DIMENSION, Unit, factors, is_no_unit, split_currency, unit

MAX_QUANTITY_CHARACTERS = 120
MIN_ROUNDED_DIGITS = 3  # of a decimal reference: 0.5 may well mean one half, 9.81 is a rounded value
CONVERSION_TOLERANCE = Fraction(1, 1000)  # between units that are no power of ten apart
CUSTOMARY_ZERO = Fraction(3, 20)  # 0 °C is 273 K to many

_SI_MACRO = re.compile(r"\\(?:SI|qty) ?\{([^{}]*)\} ?\{([^{}]*)\}")
_NUMBER_IN_WORDS = re.compile(r"\\text ?\{([^{}]*[0-9][^{}]*)\}")
_ABOUT = re.compile(
    r"(?:\\approx|\\sim|=|(?:\\text ?\{ ?)?(?:about|approximately|approx\.?|roughly|around|nearly)(?![A-Za-z]) ?\}?) ?"
)
# The left side of `v_f = 3 m/s`: letters with marks, and no arithmetic.
_NAMED = re.compile(
    r"(?=[A-Za-z\\\[|])(?:\\?[A-Za-z]++|\{(?:[^{}]|\{[^{}]*\})*\}|_ ?[0-9]|\^ ?\\circ|'|\[[^\[\]]*\]|\([^()]*\)|[_| ])+"
    r"(?:=|\\approx|:) ?"
)
_UNIT_START = re.compile(r"[A-Za-z%/\\^$¢€£¥₹°ÅμΩ(]")
_WORD = re.compile(r"[A-Za-z]{2,}(?: [A-Za-z]+){0,3}")
_DECIMAL = re.compile(
    r"[+-]? ?([0-9, ]*)\.([0-9]+)(?: ?(?:[eE]|(?:\\times|\\cdot|\*|x) ?10 ?\^) ?\{? ?([+-]?[0-9]+) ?\}?)?"
)
_ONE = Unit(Fraction(1))
PI = Fraction(3141592653589793238462643383279502884197, 10**39)  # angles are converted within CONVERSION_TOLERANCE
_PI = re.compile(
    r"(?P<sign>[+-]? ?)(?:\\frac ?\{ ?(?P<over>[0-9.]{0,9}) ?\\?pi ?\} ?\{ ?(?P<under>[0-9]{1,9}) ?\}"
    r"|\\frac ?(?:\{ ?(?P<part>[0-9]{1,9}) ?\} ?\{ ?(?P<whole>[0-9]{1,9}) ?\}) ?(?:\\cdot|\*)? ?\\?pi"
    r"|(?P<times>[0-9.]{0,9}) ?(?:\\cdot|\*)? ?\\?pi(?: ?/ ?(?P<by>[0-9]{1,9}))?)"
)


@dataclass(frozen=True)
class Quantity:
    """A number and what stands behind it."""

    number: Fraction
    number_text: str
    unit_text: str  # "" where there is none
    unit: Unit | None  # None where there is none, or where it is a word that units.py does not know


def quantity(text: str) -> Quantity | None:
    """The quantity that a text is, None where it is anything else; a symbol may stand before it (`v = 3 m/s`).

    >>> quantity("v = 9.81 m/s^2").number, quantity("3 or 4")
    (Fraction(981, 100), None)
    """
    if len(text) > MAX_QUANTITY_CHARACTERS:
        return None
    text = _NUMBER_IN_WORDS.sub(r"\1", plain(_SI_MACRO.sub(r"\1 \2", text)))
    named = _NAMED.match(text)
    text = text[named.end() :] if named else text
    about = _ABOUT.match(text)
    text = text[about.end() :] if about else text
    text, currency = split_currency(text)
    number = plain_number(text)
    if number is not None and not currency:
        return Quantity(number, text, "", None)
    text = f"{text} {currency}"
    for start in reversed([match.start() for match in _UNIT_START.finditer(text)]):
        number = plain_number(text[:start].strip())
        number = _multiple_of_pi(text[:start].strip()) if number is None else number
        if number is not None:
            return _with_unit(number, text[:start].strip(), text[start:].strip())
    return None


def with_unit(number: Quantity, text: str) -> Quantity:
    """The number with the unit that the text names, in place of its own."""
    return replace(number, unit_text=plain(text), unit=unit(plain(text)))


def agree(answer: Quantity, reference: Quantity, tolerance: Fraction) -> bool:
    """Whether the answer is the reference: by value where both have a unit, else by number.

    `tolerance` is relative to the reference; 0 asks for the same number, or for one that rounds to it.
    """
    if answer.unit and reference.unit:
        return _agree_in_value(answer, reference, tolerance)
    known = answer.unit or reference.unit
    if known and known.dimension == NO_DIMENSION and not (answer.unit_text and reference.unit_text):
        # Per cent and millions are numbers themselves: 50 % is 0.5, and 5 million is not 5.
        value = answer.number * (answer.unit or _ONE).factor / (reference.unit or _ONE).factor
        if _near(value, reference, tolerance) or known.factor > 1:
            return _near(value, reference, tolerance)
    if not (reference.unit_text or answer.unit) and len(answer.unit_text.strip("{} ")) == 2:
        return False  # 5 ab is a product
    if answer.unit_text and reference.unit_text and factors(answer.unit_text) != factors(reference.unit_text):
        return False
    return _near(answer.number, reference, tolerance)


def _agree_in_value(answer: Quantity, reference: Quantity, tolerance: Fraction) -> bool:
    mine, its = answer.unit or _ONE, reference.unit or _ONE
    letter = answer.unit_text.replace("\\text", "").strip("{} ")
    if its.zero and letter in ("C", "F"):  # a degree sign forgotten, not coulombs or farads
        mine = unit(f"°{letter}") or mine
    if mine.dimension != its.dimension:
        return False
    value = (answer.number * mine.factor + mine.zero - its.zero) / its.factor
    if mine.zero != its.zero and abs(value - reference.number) <= CUSTOMARY_ZERO:
        return True
    if not _is_power_of_ten(mine.factor / its.factor):
        tolerance = max(tolerance, CONVERSION_TOLERANCE)
    return _near(value, reference, tolerance)


def leeway(reference: Quantity, tolerance: Fraction) -> Fraction:
    """How far an answer may be from the reference: by the tolerance, or else by rounding; 0 where it must be exact."""
    return tolerance * abs(reference.number) if tolerance else _resolution(reference.number_text) / 2


def _near(number: Fraction, reference: Quantity, tolerance: Fraction) -> bool:
    distance, allowed = abs(number - reference.number), leeway(reference, tolerance)
    return distance == 0 or distance < allowed or distance == allowed and tolerance > 0


def _resolution(text: str) -> Fraction:
    """The worth of the last digit of a decimal that looks rounded, 0 of any other number."""
    match = _DECIMAL.fullmatch(text)
    if match is None or len((match[1] + match[2]).lstrip("0, ")) < MIN_ROUNDED_DIGITS:
        return Fraction(0)
    return Fraction(10) ** (int(match[3] or 0) - len(match[2]))


def _multiple_of_pi(text: str) -> Fraction | None:
    """The value of `3\\pi/4` and its like, to 39 digits; None of anything else."""
    match = _PI.fullmatch(text)
    if match is None:
        return None
    over = plain_number(match["over"] or match["part"] or match["times"] or "1")
    under = plain_number(match["under"] or match["whole"] or match["by"] or "1")
    if over is None or not under:
        return None
    return over / under * (-PI if "-" in match["sign"] else PI)


def _is_power_of_ten(value: Fraction) -> bool:
    return {str(part).rstrip("0") for part in (value.numerator, value.denominator)} == {"1"}


def _with_unit(number: Fraction, number_text: str, text: str) -> Quantity | None:
    found = unit(text)
    words = text.replace("\\text", "").strip("{} ")
    if found is None and (not _WORD.fullmatch(words) or is_no_unit(words.split())):
        return None
    return Quantity(number, number_text, text, found)
