"""Numbers with units: reading them from an answer, and whether two of them agree.

The reference decides how near is near enough: a relative tolerance where the item gives one; else the same number, or,
where the reference is a decimal of three or more significant digits, one that rounds to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from math import isqrt, prod

from megatron_rl.rewards.mathematics.notation import plain
from megatron_rl.rewards.mathematics.numbers import plain_number
from megatron_rl.rewards.mathematics.units import NO_DIMENSION, Unit, factors, is_no_unit, split_currency, unit
from megatron_rl.rewards.science.macros import without_macros
from megatron_rl.rewards.science.numerals import in_digits

MAX_QUANTITY_CHARACTERS = 120
MIN_ROUNDED_DIGITS = 3  # of a decimal reference: 0.5 may well mean one half, 9.81 is a rounded value
CONVERSION_TOLERANCE = Fraction(1, 1000)  # between units that are no power of ten apart

_NUMBER_IN_WORDS = re.compile(r"\\text ?\{([^{}]*[0-9][^{}]*)\}")
_ABOUT = re.compile(
    r"(?:\\approx|\\sim|=|(?:\\text ?\{ ?)?(?:about|approximately|approx\.?|roughly|around|nearly)(?![A-Za-z]) ?\}?) ?"
)
# The left side of `v_f = 3 m/s`: letters with marks, and no arithmetic.
_NAMED = re.compile(
    r"(?=[A-Za-z\\\[|])(?:\\?[A-Za-z]++|\{(?:[^{}]|\{[^{}]*\})*\}|_ ?[0-9]|\^ ?\\circ|'|\[[^\[\]]*\]|\([^()]*\)|[_| ])+"
    r"(?:=|\\approx|:) ?|2n ?= ?"  # chromosomes
)
_UNIT_START = re.compile(r"[A-Za-z%/\\^$¢€£¥₹°ÅμΩ(]")
_WORD = re.compile(r"[A-Za-z]{2,}(?:[ -][A-Za-z]+){0,3}")
_DECIMAL = re.compile(
    r"[+-]? ?([0-9, ]*)\.([0-9]+)(?: ?(?:[eE]|(?:\\times|\\cdot|\*|x) ?10 ?\^) ?\{? ?([+-]?[0-9]+) ?\}?)?"
)
_ONE = Unit(Fraction(1))
_CYCLES = re.compile(r"(?:[0-9/]+ )?Hz|cycle")  # by the names of units.py
_APART = (("Hz", "Bq"), ("Hz", "Ci"), ("Gy", "Sv"), ("cd", "lm"))  # of one dimension, and never one quantity
_ANGLES = re.compile(r"(?:[0-9/]+ )?rad|rev|rpm|deg|arc(?:min|sec)")
PI = Fraction(3141592653589793238462643383279502884197, 10**39)  # angles are converted within CONVERSION_TOLERANCE
_SAME_IRRATIONAL = Fraction(1, 10**36)  # between two ways to write one
_FACTOR = re.compile(
    r"10 ?\^ ?\{? ?(?P<ten>[+-]?[0-9]{1,3}) ?\}?|"
    r"\\sqrt ?(?:\{ ?(?P<root>[0-9]{1,9}) ?\}|(?P<digit>[0-9]))|"
    r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,9})?|\.[0-9]{1,9})|(?P<pi>\\?pi)"
)
_FACTORS = (
    r"(?: ?(?:\\(?:cdot|times) ?|\* ?)?"
    r"(?:10 ?\^ ?\{? ?[+-]?[0-9]{1,3} ?\}?|\\sqrt ?(?:\{ ?[0-9]{1,9} ?\}|[0-9])|[0-9.]{1,19}(?![0-9.])|\\?pi)){1,4}"
)
_IRRATIONAL = re.compile(
    rf"(?P<sign>[+-]? ?)(?:\\frac ?\{{(?P<over>{_FACTORS}) ?\}} ?\{{ ?(?P<under>{_FACTORS}) ?\}}"
    rf"(?P<behind>{_FACTORS})?"
    rf"|(?P<alone>{_FACTORS})(?: ?/ ?(?P<by>[0-9]{{1,9}}))?)"
)
_TIME = re.compile(r"(?<![A-Za-z])t(?![A-Za-z])")
_PRODUCT = re.compile(r"(?!dB|pH)[A-Za-z]{2}")  # 2.303 RT
_POWER = re.compile(r"(?<![0-9.])10 ?\^ ?\(([+-]?[0-9]{1,3})\)")
_INERTIA = re.compile(r"m ?L ?\^ ?\{? ?2")  # no square of millilitres
_TIMES = re.compile(r" ?(?:\\text ?\{ ?)?(?:(?<![A-Za-z])times|-?fold) ?\}?$")  # 16 times, threefold
_PART = re.compile(
    r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(\\text ?\{ ?[A-Za-z]{1,12} ?\}|[A-Za-z]{1,12})(?:,? ?(?:and )?(?=[0-9])|$)"
)
_PARTS = re.compile(rf"(?:{_PART.pattern})+")


@dataclass(frozen=True)
class Quantity:
    """A number and what stands behind it."""

    number: Fraction
    number_text: str
    unit_text: str  # "" where there is none
    unit: Unit | None  # None where there is none, or where it is a word that units.py does not know
    is_difference: bool = False  # it stands behind "\Delta T =", where degrees have no zero


def quantity(text: str) -> Quantity | None:
    """The quantity that a text is, None where it is anything else; a symbol may stand before it (`v = 3 m/s`).

    >>> quantity("v = 9.81 m/s^2").number, quantity("3 or 4")
    (Fraction(981, 100), None)
    """
    if len(text) > MAX_QUANTITY_CHARACTERS:
        return None
    text = _POWER.sub(r"10^{\1}", _NUMBER_IN_WORDS.sub(r"\1", plain(without_macros(text))))
    named = _NAMED.match(text)
    text = text[named.end() :] if named else text
    found = _quantity(text if named else in_digits(text))
    return replace(found, is_difference=True) if found and named and "\\Delta" in named[0] else found


def _quantity(text: str) -> Quantity | None:
    """The quantity that a text in plain form without a symbol before it is."""
    about = _ABOUT.match(text)
    text = text[about.end() :] if about else text
    text, currency = split_currency(in_digits(_TIMES.sub("", text), has_roman=False))
    number = plain_number(text)
    if number is not None and not currency:
        return Quantity(number, text, "", None)
    text = f"{text} {currency}"
    for start in reversed([match.start() for match in _UNIT_START.finditer(text)]):
        number = plain_number(text[:start].strip())
        number = irrational(text[:start].strip()) if number is None else number
        if number is not None:
            found = _with_unit(number, text[:start].strip(), text[start:].strip())
            return found or _sum_of_units(text.strip())
    return None


def with_unit(number: Quantity, text: str) -> Quantity:
    """The number with the unit that the text names, in place of its own."""
    return replace(number, unit_text=plain(text), unit=unit(plain(text)))


def agree(answer: Quantity, reference: Quantity, tolerance: Fraction) -> bool:
    """Whether the answer is the reference: by value where both have a unit, else by number.

    `tolerance` is relative to the reference; 0 asks for the same number, or for one that rounds to it.
    """
    tolerance = max(tolerance, _rounds(answer, reference))
    if answer.unit and reference.unit:
        return _agree_in_value(answer, reference, tolerance)
    known = answer.unit or reference.unit
    if known and known.dimension == NO_DIMENSION and not (answer.unit_text and reference.unit_text):
        # Per cent and millions are numbers themselves: 50 % is 0.5, and 5 million is not 5.
        value = answer.number * (answer.unit or _ONE).factor / (reference.unit or _ONE).factor
        # Beside a reference from 0 to 1, a share, 0.25 % is 0.0025; beside 25 the sign may be forgotten.
        is_share = answer.unit and abs(reference.number) <= 1
        if _near(value, reference, tolerance) or known.factor > 1 or is_share:
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
    if mine.dimension != its.dimension or _are_apart(answer, reference):
        return False
    if answer.is_difference or reference.is_difference:
        mine, its = replace(mine, zero=Fraction(0)), replace(its, zero=Fraction(0))
    value = (answer.number * mine.factor + mine.zero - its.zero) / its.factor
    turns = _cycles(answer, reference) - _cycles(reference, answer) if any(mine.dimension) else 0
    value *= (2 * PI) ** turns  # 1 Hz is a turn in a second, and no radian
    if turns or not _is_power_of_ten(mine.factor / its.factor):
        tolerance = max(tolerance, CONVERSION_TOLERANCE)
    return _near(value, reference, tolerance)


def _are_apart(one: Quantity, other: Quantity) -> bool:
    mine, its = ({name.split()[-1] for name in factors(side.unit_text) or {}} for side in (one, other))
    return any((a in mine and b in its) or (b in mine and a in its) for a, b in _APART)


def _cycles(one: Quantity, other: Quantity) -> int:
    """The power of cycles in the unit of the one, where the other's says an angle; else 0."""
    mine, its = (factors(side.unit_text) or {} for side in (one, other))
    says_angle = any(_ANGLES.fullmatch(name) for name in its)
    return sum(power for name, power in mine.items() if says_angle and _CYCLES.fullmatch(name))


def leeway(reference: Quantity, tolerance: Fraction) -> Fraction:
    """How far an answer may be from the reference: by the tolerance, or else by rounding; 0 where it must be exact."""
    return tolerance * abs(reference.number) if tolerance else resolution(reference.number_text) / 2


def resolution(text: str) -> Fraction:
    """The worth of the last digit of a decimal that looks rounded, 0 of any other number."""
    match = _DECIMAL.fullmatch(text)
    if match is None or len((match[1] + match[2]).lstrip("0, ")) < MIN_ROUNDED_DIGITS:
        return Fraction(0)
    return Fraction(10) ** (int(match[3] or 0) - len(match[2]))


def _near(number: Fraction, reference: Quantity, tolerance: Fraction) -> bool:
    distance, allowed = abs(number - reference.number), leeway(reference, tolerance)
    return distance == 0 or distance < allowed or distance == allowed and tolerance > 0


def _rounds(answer: Quantity, reference: Quantity) -> Fraction:
    """How far, relatively, an answer may be that rounds what no decimal says: 0.333 for 1/3, 1.414 for a root of 2."""
    is_exact = irrational(reference.number_text) is not None or not _is_decimal(reference.number)
    if not is_exact or not answer.number:
        return Fraction(0)
    return max(resolution(answer.number_text) / 2 / abs(answer.number), _SAME_IRRATIONAL)


def _is_decimal(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def irrational(text: str) -> Fraction | None:
    r"""The value of `3\pi/4`, `\frac{\sqrt{3}}{2}` and their like, to 39 digits; None of anything else."""
    match = _IRRATIONAL.fullmatch(text) if len(text) <= MAX_QUANTITY_CHARACTERS else None
    if match is None:
        return None
    factors_over = [match["over"] or match["alone"] or "", match["behind"] or ""]
    below = match["under"] or match["by"] or ""
    if not any("pi" in part or "sqrt" in part for part in (*factors_over, below)):
        return None
    over, under = [_product(part) for part in factors_over], _product(below)
    if None in over or not under:
        return None
    value = prod((part for part in over if part is not None), start=Fraction(1)) / under
    return -value if "-" in match["sign"] else value


def _product(text: str) -> Fraction | None:
    """The product of a number, roots of integers and pi."""
    value = Fraction(1)
    for match in _FACTOR.finditer(text):
        if root := match["root"] or match["digit"]:
            value *= Fraction(isqrt(int(root) * 10**80), 10**40)
        elif match["ten"]:
            value *= Fraction(10) ** int(match["ten"])
        elif match["number"]:
            number = plain_number(match["number"])
            if number is None:
                return None
            value *= number
        else:
            value *= PI
    return value


def _sum_of_units(text: str) -> Quantity | None:
    """The sum of quantities of one kind, each of a smaller unit than the one before: 2 h 30 min, 5 ft 3 in."""
    parts = [(plain_number(match[1]), unit(match[2])) for match in _PART.finditer(text)]
    if len(parts) < 2 or not _PARTS.fullmatch(text):
        return None
    first, total, last = parts[0][1], Fraction(0), None
    for number, its in parts:
        if number is None or first is None or its is None or its.dimension != first.dimension or its.zero:
            return None
        if last is not None and its.factor >= last:
            return None
        total, last = total + number * its.factor / first.factor, its.factor
    return Quantity(total, str(total), _PART.match(text)[2], first)  # type: ignore[index]  # there are two


def _is_power_of_ten(value: Fraction) -> bool:
    return {str(part).rstrip("0") for part in (value.numerator, value.denominator)} == {"1"}


def _with_unit(number: Fraction, number_text: str, text: str) -> Quantity | None:
    found = unit(text)
    words = text.replace("\\text", "").strip("{} ")
    if _INERTIA.fullmatch(words):
        return None
    if found and len(words.split()) > 1 and _TIME.search(words):  # 0.5 g t^2: no tonne stands in a product
        return None
    if found is None and (_PRODUCT.fullmatch(words) or not _WORD.fullmatch(words) or is_no_unit(words.split())):
        return None
    return Quantity(number, number_text, text, found)
