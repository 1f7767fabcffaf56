"""Plain numbers in text, exactly: integers of any length, decimals, fractions, mixed numbers, powers of ten."""

from __future__ import annotations

import re
from fractions import Fraction

from megatron_rl.rewards.mathematics.notation import plain

MAX_NUMBER_CHARACTERS = 20_000
MAX_PERIOD = 6  # of a repeating decimal that ends in dots
MAX_EXPONENT = 5_000  # of ten: 1e999999999 would fill the memory
_MAX_DIGITS_AT_ONCE = 4_000  # Python refuses to convert more than 4,300

# 1234, 1,234 and 1 234, but not 12,34.
_INTEGER = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])|[1-9][0-9]{0,2}(?: [0-9]{3})+(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]*)?|\.[0-9]+)"
_SIGNED = rf"[+-]? ?{_DECIMAL}"
_EXPONENT = r"[+-]?[0-9]+"
_PART = rf"(?:\{{ ?{_SIGNED} ?\}}|[0-9])"
_POWER = rf"10 ?\^ ?(?P<{{}}>\{{{{ ?{_EXPONENT} ?\}}}}|{_EXPONENT})"
_NUMBER = re.compile(
    rf"(?:(?P<decimal>{_DECIMAL})"
    rf"(?:[eE](?P<e>{_EXPONENT})|(?: ?(?:\\times|\\cdot|\*|x) ?{_POWER.format('ten')}))?"
    rf"|{_POWER.format('ten_alone')}"
    r"|(?P<fixed>[0-9]*\.[0-9]*) ?\\(?:overline|bar|dot) ?(?:\{ ?(?P<period>[0-9]+) ?\})"
    rf"|(?:(?P<mixed>{_INTEGER}) ?)?\\frac ?(?P<over>{_PART}) ?(?P<under>{_PART})"
    rf"|(?:(?P<mixed_slash>[1-9][0-9]{{0,2}}(?:,[0-9]{{3}})+|[0-9]+) (?=[0-9]+ ?/))?"
    rf"(?P<over_slash>{_DECIMAL}) ?/ ?(?P<under_slash>{_DECIMAL}))"
)
_PERIOD = re.compile(r"^([+-]? ?[0-9]*\.[0-9]*)\(([0-9]+)\)$")  # 0.1(6)
_DOTS = re.compile(r"\\dot ?\{ ?([0-9]) ?\}([0-9]*) ?\\dot ?\{ ?([0-9]) ?\}$")  # a dot over each end of the period
_PLAIN_DECIMAL = re.compile(r"(-?[0-9]*)\.([0-9]+)")
_SIGN = re.compile(r"[+-]? ?")


def exact_number(text: str) -> Fraction | None:
    """The value of an integer, decimal, fraction, mixed number or number times a power of ten; None for anything else.

    >>> exact_number("-0.50") == exact_number("-\\\\frac{1}{2}") == Fraction(-1, 2)
    True
    >>> exact_number("1,234.5"), exact_number("2½"), exact_number("1.5 × 10³")
    (Fraction(2469, 2), Fraction(5, 2), Fraction(1500, 1))
    """
    if len(text) > MAX_NUMBER_CHARACTERS:
        return None
    return plain_number(plain(text))


def plain_number(text: str) -> Fraction | None:
    """As `exact_number`, for a text in plain form."""
    if text.isdigit() and text.isascii():
        return Fraction(_integer(text))
    if text.endswith("\\ldots"):
        return _repeating(text.removesuffix("\\ldots").strip())
    while len(text) > 2 and text[0] + text[-1] in ("()", "{}") and not set(text[1:-1]) & set("(){}"):
        text = text[1:-1].strip()
    if "." in text and text[-1:] in (")", "}"):
        text = _PERIOD.sub(r"\1\\overline{\2}", _DOTS.sub(r"\\overline{\1\2\3}", text))
    sign = _SIGN.match(text)[0]  # type: ignore[index]  # it matches an empty text
    match = _NUMBER.fullmatch(text, len(sign))
    value = None if match is None else _value(match)
    return value if value is None or "-" not in sign else -value


def _repeating(text: str) -> Fraction | None:
    """A decimal whose dots go on with what it repeats three times or more, as 0.333 and 0.121212."""
    match = _PLAIN_DECIMAL.fullmatch(text)
    digits = match[2] if match else ""
    for length in range(1, MAX_PERIOD + 1):
        period = digits[-length:]
        if len(digits) >= 3 * length and digits.endswith(3 * period):
            sign = -1 if text.startswith("-") else 1
            return _decimal(text) + sign * Fraction(int(period), (10**length - 1) * 10 ** len(digits))
    return None


def _value(match: re.Match[str]) -> Fraction | None:
    if match["decimal"] is not None or match["ten_alone"] is not None:
        exponent = (match["e"] or match["ten"] or match["ten_alone"] or "0").strip("{} ")
        if len(exponent) > 6 or abs(int(exponent)) > MAX_EXPONENT:
            return None
        return _decimal(match["decimal"] or "1") * Fraction(10) ** int(exponent)
    if match["fixed"] is not None:
        fixed, period = match["fixed"], match["period"]
        num_digits = len(fixed.partition(".")[2])
        return _decimal(f"0{fixed}") + Fraction(_integer(period), (10 ** len(period) - 1) * 10**num_digits)
    whole = _decimal(match["mixed"] or match["mixed_slash"] or "0")
    over = _decimal((match["over"] or match["over_slash"]).strip("{} "))
    under = _decimal((match["under"] or match["under_slash"]).strip("{} "))
    if under == 0 or (whole and (over < 0 or under < 0)):
        return None
    return whole + over / under


def _decimal(text: str) -> Fraction:
    negative = text.startswith("-")
    whole, _, fraction = text.lstrip("+-").replace(",", "").replace(" ", "").partition(".")
    value = Fraction(_integer(whole + fraction or "0"), 10 ** len(fraction))
    return -value if negative else value


def _integer(digits: str) -> int:
    if len(digits) <= _MAX_DIGITS_AT_ONCE:
        return int(digits or "0")
    half = len(digits) // 2
    shift: int = 10 ** (len(digits) - half)
    return _integer(digits[:half]) * shift + _integer(digits[half:])
