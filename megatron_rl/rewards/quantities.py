r"""A value and its unit: what of a text is the number, and what `\text{cm}`, `\$`, `^\circ` or a counted noun."""

from __future__ import annotations

import re
from typing import NamedTuple

# A unit, then its spellings; a plural ending and capitals need none.
_SPELLINGS = r"""
    mm millimeter millimetre; cm centimeter centimetre; m meter metre; km kilometer kilometre kms
    inch in; foot ft feet; yard yd yds; mile mi; mg milligram; g gram gm; kg kilogram kgs; ounce oz; pound lb lbs
    s second sec secs; minute min mins; hour h hr hrs; day; week; month; year yr yrs
    ml milliliter millilitre mL; l liter litre L; gallon gal
    cent ¢; dollar $ usd USD; euro € EUR; pound_sterling £; yen ¥; rupee Rs rs INR; percent % percentage pct
    degree ^\circ deg; radian rad; celsius C; fahrenheit F; kelvin K; newton N; joule J; kj kilojoule kJ
    watt W; kw kilowatt kW; volt V; ampere A amp; ohm Ω; hertz Hz; pascal Pa; mole mol; mph
    square sq; cubic cu; people person; child children
"""
_CANONICAL = {word: line.split()[0] for line in re.split("[;\n]", _SPELLINGS) for word in line.split()}
_GENERIC = frozenset(
    ("unit", "of", "the", "a", "an", "in", "each", "about", "approximately", "exactly", "total", "only")
)
_HEDGES = """
    or and not no nor none if when where for mod modulo base to from with but is are was plus minus times over between
    through maybe perhaps possibly however unless except instead rather alternatively any all either less more than
    least most even odd one two three four five six seven eight nine ten eleven twelve half thirds quarter undefined
    infinity infinite answer false true wrong
"""
_NO_UNIT = frozenset(_HEDGES.split())
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
PERCENT = frozenset({("percent", 1)})

_LONG = "|".join(sorted((word for word in _CANONICAL if len(word) > 1 and word.isalpha()), key=len, reverse=True))
_TEXT = r"\\text ?\{[^{}0-9=<>+]*\}"
_BARE = rf"(?<![A-Za-z\\])(?:{_LONG}|per|[a-z]{{4,}})s?(?![A-Za-z])|(?<=circ )[CF](?![A-Za-z])"
_LETTER = r"(?<=[0-9} /])[mgshlLNJWVAKCF](?![A-Za-z])"
_EXPONENT = r"(?: ?\^ ?(?:\{ ?-?[0-9] ?\}|-?[0-9]))?"
_JOINT = r" ?(?:[/*]|\\cdot|\\times|-(?=\\text))? ?"
_TRAILING = re.compile(rf"(?:{_JOINT}(?:{_TEXT}|%|\^\\circ|{_BARE}){_EXPONENT})+$")
_TRAILING_LETTER = re.compile(rf"(?:{_JOINT}(?:{_TEXT}|%|\^\\circ|{_BARE}|{_LETTER}){_EXPONENT})+$")
_UNIT_FRACTION = re.compile(rf"\\frac ?\{{ ?({_TEXT}) ?\}} ?\{{ ?({_TEXT}{_EXPONENT}) ?\}}")
_ANGLE_OF = re.compile(r"(?:sin|cos|tan|cot|sec|csc|cis)(?![a-z])")  # its degrees are no unit of the value
_CURRENCY = re.compile(r"^(-? ?)(\\\$|[€£¥]|(?:Rs|USD)\b\.?) ?")
_NAME = re.compile(r"[A-Za-z_]+|\^\\circ|[%$€£¥¢Ω]|\^ ?\{? ?(-?[0-9]) ?\}?|/|\(")


class Quantity(NamedTuple):
    """A value as text in plain form, and its unit as (name, exponent) pairs; no pairs where there is none."""

    value: str
    unit: frozenset[tuple[str, int]]


def split_unit(text: str, single_letters: bool) -> Quantity:
    r"""The quantity that a text in plain form states; a bare letter after a number is a unit where that is allowed.

    >>> split_unit("12 \\text{ cm}^2", False)
    Quantity(value='12', unit=frozenset({('cm', 2)}))
    """
    names, text = "", _UNIT_FRACTION.sub(r"\1/\2", text)
    if currency := _CURRENCY.match(text):
        text, names = currency[1].strip() + text[currency.end() :], currency[2].strip("\\.")
    trailing = (_TRAILING_LETTER if single_letters else _TRAILING).search(text)
    if trailing and trailing.start() > 0 and not ("\\circ" in trailing[0] and _ANGLE_OF.search(text)):
        words = re.findall(r"[A-Za-z]+", trailing[0].replace(r"\text", ""))
        are_units = all(len(word) > 1 or word in _CANONICAL for word in words)
        if are_units and len(words) <= 6 and not {word.lower() for word in words} & _NO_UNIT:
            text, names = text[: trailing.start()].strip(), f"{names} {trailing[0]}"
            if words and words[0] in _SCALES:
                text, names = f"{text} \\cdot 10^{_SCALES[words[0]]}", names.replace(words[0], "", 1)
    return Quantity(text, _unit(names))


def _unit(text: str) -> frozenset[tuple[str, int]]:
    text = re.sub(r"\\(?:text|cdot|times)", " ", text.replace("mph", "mile/hour"))
    exponents: dict[str, int] = {}
    power, sign, last = 1, 1, ""
    for match in _NAME.finditer(text):
        token = match[0]
        if token == "/" or token == "per":
            sign = -1
        elif match[1] is not None and last:
            exponents[last] *= int(match[1])
        elif token in ("square", "sq", "cubic", "cu"):
            power = 2 if token[0] == "s" else 3
        elif token in ("squared", "cubed") and last:
            exponents[last] *= 2 if token[0] == "s" else 3
        elif token != "(":
            name = _name(token)
            if name not in _GENERIC:
                exponents[name] = exponents.get(name, 0) + sign * power
                last = name
            power = 1
    if power > 1:
        exponents["square" if power == 2 else "cubic"] = 1
    if {"degree", "celsius"} <= exponents.keys() or {"degree", "fahrenheit"} <= exponents.keys():
        del exponents["degree"]
    return frozenset(exponents.items())


def _name(word: str) -> str:
    for spelling in (word, word.lower(), word.lower().removesuffix("s"), word.lower().removesuffix("es")):
        if spelling in _CANONICAL:
            return _CANONICAL[spelling]
    return word.lower().removesuffix("s") if len(word) > 3 else word
