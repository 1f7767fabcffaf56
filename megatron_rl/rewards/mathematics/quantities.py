r"""A value and its unit: what of a text is the number, and what `\text{cm}`, `\$`, `^\circ` or a counted noun."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from megatron_rl.rewards.mathematics.numbers import plain_number
from megatron_rl.rewards.mathematics.units import factors, is_no_unit, split_currency

# Words of fewer than four letters that are units where no \text says so; longer ones are words anyway.
_SHORT = """
    mm cm km in ft yd mi mg gm kg oz lb sec min hr day yr yen ml mL gal usd USD EUR Rs rs INR pct deg rad kj kJ kw kW
    amp ohm mol mph sq cu Hz Pa
"""
_LETTERS = "mgshlLNJWVAKCF"
_FILLERS = re.compile(
    r"[,;:'\"]|(?<![A-Za-z\\])(?:of|the|an?|each|about|approximately|exactly|total|only)(?![A-Za-z])", re.IGNORECASE
)
_SCALES = {
    "tens": 10, "dozen": 12, "score": 20, "gross": 144, "myriad": 10**4, "lakh": 10**5, "lac": 10**5, "crore": 10**7,
    "hundred": 10**2, "hundert": 10**2, "thousand": 10**3, "thou": 10**3, "tausend": 10**3, "million": 10**6,
    "millionen": 10**6, "mn": 10**6, "mln": 10**6, "mio": 10**6, "billion": 10**9, "bn": 10**9, "bln": 10**9,
    "bil": 10**9, "milliard": 10**9, "milliarde": 10**9, "milliarden": 10**9, "mrd": 10**9, "trillion": 10**12,
    "tn": 10**12, "quadrillion": 10**15, "quintillion": 10**18,
}  # fmt: skip
_TEMPERATURES = {"C": "celsius", "F": "fahrenheit"}  # no coulombs and farads in mathematics
PERCENT = {"%": 1}

_TEXT = r"\\text ?\{[^{}0-9=<>+]*\}"
_BARE = rf"(?<![A-Za-z\\])(?:(?:{'|'.join(_SHORT.split())}|per)s?|[a-z]{{4,}})(?![A-Za-z])|(?<=circ )[CF](?![A-Za-z])"
_LETTER = rf"(?<=[0-9}} /])[{_LETTERS}](?![A-Za-z])"
_EXPONENT = r"(?: ?\^ ?(?:\{ ?-?[0-9] ?\}|-?[0-9]))?"
_JOINT = r" ?(?:(?:[/*]|\\cdot|\\times|-(?=\\text)) ?)?"
_UNIT = re.compile(rf"{_JOINT}(?:{_TEXT}|%|\^\\circ|{_BARE}){_EXPONENT}")
_UNIT_OR_LETTER = re.compile(rf"{_JOINT}(?:{_TEXT}|%|\^\\circ|{_BARE}|{_LETTER}){_EXPONENT}")
_UNIT_FRACTION = re.compile(rf"\\frac ?\{{ ?({_TEXT}) ?\}} ?\{{ ?({_TEXT}{_EXPONENT}) ?\}}")
_ANGLE_OF = re.compile(r"(?:sin|cos|tan|cot|sec|csc|cis)(?![a-z])")  # its degrees are no unit of the value


def split_unit(text: str, single_letters: bool) -> tuple[str, Mapping[str, int]]:
    r"""The value that a text in plain form states, and the powers of its units by name, none where it has no unit.

    A bare letter after a number is a unit where `single_letters` are allowed.

    >>> split_unit("12 \\text{ cm}^2", False)
    ('12', {'1/100 m': 2})
    """
    value, names = split_currency(_UNIT_FRACTION.sub(r"\1/\2", text))
    start = _start_of_units(value, _UNIT_OR_LETTER if single_letters else _UNIT)
    trailing = value[start:]
    if trailing and start > 0 and not ("\\circ" in trailing and _ANGLE_OF.search(value)):
        words = re.findall(r"[A-Za-z]+", trailing.replace(r"\text", ""))
        are_units = all(len(word) > 1 or word in _LETTERS for word in words)
        scale, num_words = _scale(words)
        if "\\circ" in trailing and "\\circ" in value[:start]:  # a sum of angles
            are_units = False
        if are_units and len(words) <= 6 and not is_no_unit(words[num_words:]):
            value, names = value[:start].strip(), f"{names} {trailing}"
            for word in words[:num_words]:
                names = names.replace(word, "", 1)
            if num_words:
                number = plain_number(value)
                value = f"{value} \\cdot {scale}" if number is None else str(number * scale)
    powers = _powers(_FILLERS.sub(" ", names))
    return (text, {}) if powers is None else (value, powers)


def _scale(words: Sequence[str]) -> tuple[int, int]:
    """What the words behind a number multiply it by, and how many they are; scores may be points.

    >>> _scale(["hundred", "thousands", "people"]), _scale(["scores"])
    ((100000, 2), (1, 0))
    """
    scale = 1
    for index, word in enumerate(map(str.lower, words)):
        factor = _SCALES.get(word) or (word != "scores" and _SCALES.get(word.removesuffix("s")))
        if not factor:
            return scale, index
        scale *= factor
    return scale, len(words)


def _start_of_units(text: str, unit: re.Pattern[str]) -> int:
    """Where the units at the end of a text start, its length if it ends with none; one pass."""
    start = end = 0
    for match in unit.finditer(text):
        if match.start() != end:
            start = match.start()
        end = match.end()
    return start if end == len(text) else len(text)


def _powers(names: str) -> dict[str, int] | None:
    """The powers of units by name, of "unit" itself only where it is squared; None where they are none."""
    if not names.replace("\\text", "").strip("{}() .-"):
        return {}
    found = factors(names)
    if found is None:
        return None
    powers = {_TEMPERATURES.get(name, name): power for name, power in found.items()}
    return {name: power for name, power in powers.items() if (name, power) != ("unit", 1)}
