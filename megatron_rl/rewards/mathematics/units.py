"""Units of measurement: how they are written, and what a unit expression is worth in the SI base units.

The table has the SI units with their prefixes and what physics, chemistry, kitchens and shops use beside them.
Not covered: decibels, pH and other logarithmic scales; radians count as the number 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import NamedTuple

BASE = ("m", "kg", "s", "A", "K", "mol", "cd", "$", "€", "£", "¥", "₹")
NO_DIMENSION = (0,) * len(BASE)
MAX_POWER = 12


@dataclass(frozen=True)
class Unit:
    """A multiple of a product of powers of `BASE`; the zero of a temperature scale may be shifted, in kelvins."""

    factor: Fraction
    dimension: tuple[int, ...] = NO_DIMENSION
    zero: Fraction = Fraction(0)

    def times(self, other: Unit, power: int) -> Unit:
        """The product with a power of another unit; in a product a degree is a difference."""
        pairs = zip(self.dimension, other.dimension, strict=True)
        return Unit(self.factor * other.factor**power, tuple(mine + power * its for mine, its in pairs))


# symbol and names, "~" where SI prefixes may stand before it, worth
_UNITS = """
    ~ m meter metre                  = 1 m
    ~ g gm gram gramme               = 1/1000 kg
    ~ s sec second                   = 1 s
    ~ A amp ampere                   = 1 A
    ~ K kelvin                       = 1 K
    ~ mol mole                       = 1 mol
    ~ cd candela                     = 1 cd
    ~ Hz hertz                       = 1 s^-1
    ~ N newton                       = 1 kg m s^-2
    ~ Pa pascal                      = 1 kg m^-1 s^-2
    ~ J joule                        = 1 kg m^2 s^-2
    ~ W watt                         = 1 kg m^2 s^-3
    ~ C coulomb                      = 1 A s
    ~ V volt                         = 1 kg m^2 s^-3 A^-1
    ~ F farad                        = 1 kg^-1 m^-2 s^4 A^2
    ~ Ω Omega ohm                    = 1 kg m^2 s^-3 A^-2
    ~ S siemens mho                  = 1 kg^-1 m^-2 s^3 A^2
    ~ Wb weber                       = 1 kg m^2 s^-2 A^-1
    ~ T tesla                        = 1 kg s^-2 A^-1
    ~ H henry                        = 1 kg m^2 s^-2 A^-2
    ~ lm lumen                       = 1 cd
    ~ lx lux                         = 1 cd m^-2
    ~ Bq becquerel                   = 1 s^-1
    ~ Gy gray                        = 1 m^2 s^-2
    ~ Sv sievert                     = 1 m^2 s^-2
    ~ kat katal                      = 1 mol s^-1
    ~ L l liter litre                = 1/1000 m^3
    ~ M molar                        = 1000 mol m^-3
    ~ eV electronvolt                = 1602176634/10000000000000000000000000000 kg m^2 s^-2
    ~ cal calorie                    = 4184/1000 kg m^2 s^-2
    ~ bar                            = 100000 kg m^-1 s^-2
    ~ Ci curie                       = 37000000000 s^-1
    ~ t tonne                        = 1000 kg
    ~ u Da amu dalton                = 166053906892/100000000000000000000000000000000000000 kg
    ~ pc parsec                      = 30856775814913673 m
    ~ P poise                        = 1/10 kg m^-1 s^-1
    ~ G gauss                        = 1/10000 kg s^-2 A^-1
    Å AA angstrom ångström           = 1/10000000000 m
    micron                           = 1/1000000 m
    atm atmosphere                   = 101325 kg m^-1 s^-2
    torr Torr mmHg                   = 101325/760 kg m^-1 s^-2
    psi                              = 6894757293168/1000000000 kg m^-1 s^-2
    erg                              = 1/10000000 kg m^2 s^-2
    dyn dyne                         = 1/100000 kg m s^-2
    min minute                       = 60 s
    h hr hour                        = 3600 s
    d day                            = 86400 s
    wk week                          = 604800 s
    month                            = 2629800 s
    yr y year annum                  = 31557600 s
    D debye                          = 333564/100000000000000000000000000000000000 A s m
    in inch inches                   = 254/10000 m
    ft foot feet                     = 3048/10000 m
    yd yard                          = 9144/10000 m
    mi mile                          = 1609344/1000 m
    ly lightyear                     = 9460730472580800 m
    au AU                            = 149597870700 m
    lb pound lbs lbm                 = 45359237/100000000 kg
    lbf                              = 44482216152605/10000000000000 kg m s^-2
    oz ounce                         = 28349523125/1000000000000 kg
    ton                              = 1000 kg
    gal gallon                       = 3785411784/1000000000000 m^3
    cc                               = 1/1000000 m^3
    ha hectare                       = 10000 m^2
    acre                             = 40468564224/10000000 m^2
    knot kn                          = 1852/3600 m s^-1
    hp horsepower                    = 745699872/1000000 kg m^2 s^-3
    kWh                              = 3600000 kg m^2 s^-2
    rpm                              = 6283185307179586/60000000000000000 s^-1
    rad radian                       = 1
    rev revolution turn              = 6283185307179586/1000000000000000
    cycle                            = 1
    sr steradian                     = 1
    atom                             = 1
    molecule                         = 1
    ion                              = 1
    particle                         = 1
    photon                           = 1
    electron                         = 1
    deg degree ° circ                = 3141592653589793/180000000000000000
    arcmin arcminute                 = 3141592653589793/10800000000000000000
    arcsec arcsecond                 = 3141592653589793/648000000000000000000
    % percent percentage pct         = 1/100
    ppm                              = 1/1000000
    ppb                              = 1/1000000000
    dozen                            = 12
    lakh lac                         = 100000
    crore                            = 10000000
    hundred                          = 100
    thousand                         = 1000
    million                          = 1000000
    billion                          = 1000000000
    trillion                         = 1000000000000
    $ usd dollar USD                 = 1 $
    cent ¢                           = 1/100 $
    € euro EUR                       = 1 €
    £ GBP                            = 1 £
    ¥ yen JPY                        = 1 ¥
    ₹ rupee Rs INR                   = 1 ₹
    celsius                          = 1 K
    fahrenheit                       = 5/9 K
"""
_PREFIXES = {
    name: Fraction(10) ** exponent
    for names, exponent in (
        ("quecto", -30), ("ronto", -27), ("yocto", -24), ("zepto", -21), ("atto a", -18), ("femto f", -15),
        ("pico p", -12), ("nano n", -9), ("micro μ mu u", -6), ("milli m", -3), ("centi c", -2), ("deci d", -1),
        ("deca deka da", 1), ("hecto h", 2), ("kilo k", 3), ("mega M", 6), ("giga G", 9), ("tera T", 12),
        ("peta P", 15), ("exa E", 18), ("zetta Z", 21), ("yotta Y", 24),
    )
    for name in names.split()
}  # fmt: skip
# Where they stand alone they are no differences.
_ZEROS = {"celsius": Fraction(27315, 100), "fahrenheit": Fraction(45967, 180)}
# Products that are written as one word, whose letters would else be those of another unit in the wrong case: no nm.
_ONE_WORD = re.compile(
    r"(?:(?:da|[kMGTmμunpcdh])?(?:N(?=m$)|A(?=h$)|W(?=h$)|V(?=A$)|Pa(?=s$))|N(?=s$)|[AWVJ](?=s$)|C(?=m$))[mshA]"
)
_PLURALS = {"people": "person", "children": "child"}

# Words behind a number that leave it open, and those that make it another number, unless a noun follows.
_HEDGES = """
    or and not no nor none if when where for mod modulo base to from with but is are was plus minus times over between
    through maybe perhaps possibly however unless except instead rather alternatively any all either less more than
    least most even odd one two three four five six seven eight nine ten eleven twelve half undefined infinity infinite
    answer false true wrong below above under off sin cos tan log exp sqrt pi thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety twice thrice doubled tripled
    quadrupled halved mil
"""
_NUMERALS = """
    negative imaginary root zero factorial inverse reciprocal binary octal hex hexadecimal repeating recurring
    remainder quarter halves fold dozen dozens score gross
"""
_ANYWHERE, _AT_THE_END = frozenset(_HEDGES.split()), frozenset(_NUMERALS.split())
_AT_THE_START = frozenset(("squared", "cubed", "dozen", "dozens"))  # a dozen eggs are twelve, too
_PART = re.compile(
    r"third|(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|[a-z]{3,6}teen|[a-z]{3,5}tie|"
    r"hundred|thousand|million|billion)th"
)

_FACTOR = re.compile(r" *(?:(/)|([A-Za-zÀ-ÿμΩ°%$¢€£¥₹]+)(?: *\^ *([+-]?[0-9]+)|([+-]?[0-9]+))?)")


def _spread(match: re.Match[str]) -> str:
    """A power of a bracket as powers of its factors: (mol K)^-1 is mol^-1 K^-1."""
    found, power = [], int(match[2])
    for factor in _FACTOR.finditer(match[1]):
        if factor[1]:  # all that follows a slash divides
            power = -int(match[2])
        else:
            found.append(f"{factor[2]}^{power * int(factor[3] or factor[4] or 1)}")
    return " ".join(found) if _FACTOR.sub("", match[1]).strip() == "" else match[0]


_SPELLINGS: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\^ ?\{ ?([+-]?[0-9]+) ?\}", r"^\1"),
        (r"\\(?:cdot|times)(?![A-Za-z])|[*·]", " "),
        (r"\\text ?\{([^{}]*)\}", r"\1"),
        (r"\\Omega(?![A-Za-z])", "Ω"),
        (r"\\AA(?![A-Za-z])", "Å"),
        (r"\\frac ?\{([^{}]*)\} ?\{([^{}]*)\}", r"\1/\2"),
        (r"\^ ?\\circ ?", "°"),
        (r"(?:°|\b[Dd]eg(?:ree)?s?\b\.?) ?(?:C|[Cc]elsius|[Cc]entigrade)\b|\b[Cc]elsius\b", "celsius"),
        (r"(?:°|\b[Dd]eg(?:ree)?s?\b\.?) ?(?:F|[Ff]ahrenheit)\b|\b[Ff]ahrenheit\b", "fahrenheit"),
        (r"° ?K\b", "K"),
        (r"([A-Za-z])[ -](years?|volts?)\b", r"\1\2"),
        (r"\bper ?cents?\b", "%"),
        (r"\b[Dd]ecibels?\b", "dB"),
        (r"\b(?i:mph)\b", "mi h^-1"),
        (r"\b(?i:km?ph)\b", "km h^-1"),
        (r"\b(?:square|sq\.?) ([A-Za-z]+)", r"\1^2"),
        (r"\bcubic ([A-Za-z]+)", r"\1^3"),
        (r" squared\b", "^2"),
        (r" cubed\b", "^3"),
        (r"\.|(?<=[A-Za-z])-(?=[A-Za-z])", " "),
        (r"\bper\b", "/"),
        (r"\\mu ?", "μ"),
        (r"\(([^()]*)\) ?\^ ?([+-]?[0-9]{1,2})(?![0-9])", _spread),
        (r"\\(?![A-Za-z])|[{}()]", " "),
        (r"\b1(?= ?/)", " "),
    )
]
_CURRENCY = re.compile(r"(-? ?)(?:\\(\$)|([€£¥₹]|(?:Rs|USD)\b)\.?) ?")


def unit(text: str) -> Unit | None:
    """What a unit expression in plain form is worth, None where it is none; what it is a unit of may follow.

    >>> unit("kJ/mol") == unit(r"\\text{J} \\text{mmol}^{-1}"), unit("Nm") == unit("N m"), unit("apples")
    (True, True, None)
    """
    found = _factors(_in_one_spelling(text).partition(" of ")[0])
    if found is None or not found.keys() <= _table().worth.keys():
        return None
    product = Unit(Fraction(1))
    for name, power in found.items():
        product = product.times(_table().worth[name], power)
    alone = next(iter(found)) if list(found.values()) == [1] else ""
    return replace(product, zero=_ZEROS.get(alone, Fraction(0)))


def factors(text: str) -> dict[str, int] | None:
    """The units of an expression in plain form by their first name in the table, and their powers.

    Words that are no unit stand there in the singular; all that follows a slash divides. None where there is anything
    but words, or none.

    >>> factors("square meters per apple"), factors("m = 5")
    ({'m': 2, 'apple': -1}, None)
    """
    return _factors(_in_one_spelling(text))


def is_no_unit(words: Sequence[str]) -> bool:
    """Whether words behind a number leave it open, or make it another number.

    >>> [is_no_unit(words.split()) for words in ("negative", "negative numbers", "cm or so", "squared", "cm squared")]
    [True, False, True, True, False]
    >>> [is_no_unit(words.split()) for words in ("dozen eggs", "eighths of a mile", "eighth graders")]
    [True, True, False]
    """
    words = [word.lower() for word in words]
    if words == ["times"]:
        return False
    if not words or not _ANYWHERE.isdisjoint(words) or words[-1] in _AT_THE_END or words[0] in _AT_THE_START:
        return bool(words)
    # Three eighths of a mile and 3 eighth are parts, three fifth graders and three quarters, of coins, are things.
    is_part = len(words) == 1 or words[0].endswith("s")
    return is_part and bool(_PART.fullmatch(words[0].removesuffix("s"))) or words[:2] == ["quarters", "of"]


def split_currency(text: str) -> tuple[str, str]:
    """A text in plain form without the currency that it begins with, and that currency, or an empty text.

    >>> split_currency("-\\\\$5")
    ('-5', '$')
    """
    match = _CURRENCY.match(text)
    return (match[1].strip() + text[match.end() :], match[2] or match[3]) if match else (text, "")


def _in_one_spelling(text: str) -> str:
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return text


def _factors(text: str) -> dict[str, int] | None:
    found: dict[str, int] = {}
    text, sign, position = text.strip(), 1, 0
    while position < len(text):
        match = _FACTOR.match(text, position)
        if match is None:
            return None
        position = match.end()
        if match[1]:
            sign = -1
            continue
        names, power = _names(match[2]), int(match[3] or match[4] or 1)
        if abs(power) > MAX_POWER:
            return None
        for name in names[:-1]:
            found[name] = found.get(name, 0) + sign
        found[names[-1]] = found.get(names[-1], 0) + sign * power
    return None if not found or text.endswith("/") else found


def _names(word: str) -> list[str]:
    """The first names of the units that a word is made of, mostly one; a power behind it is the last one's."""
    return [_name(word[:-1]), _name(word[-1])] if _ONE_WORD.fullmatch(word) else [_name(word)]


def _name(word: str) -> str:
    """The first name of a unit, also in the plural, or in the wrong case where that leaves no doubt; else the word."""
    table = _table()
    singular = word[:-1] if word.endswith("s") and len(word) > 2 else word
    for spelling in (word, singular):
        if spelling in table.exact:
            return table.exact[spelling]
    for spelling in (word.lower(), singular.lower()):
        if len(word) > 1 and spelling in table.any_case:  # 5n is no force
            return table.any_case[spelling]
    return _PLURALS.get(word.lower(), singular.lower() if len(word) > 3 else word)


class _Table(NamedTuple):
    worth: Mapping[str, Unit]  # by first name
    exact: Mapping[str, str]  # symbol or name -> first name
    any_case: Mapping[str, str]  # the same in small letters, where those do not mean several


@cache
def _table() -> _Table:
    worth: dict[str, Unit] = {}
    exact: dict[str, str] = {}
    prefixed: dict[str, str] = {}
    for line in _UNITS.strip().splitlines():
        names, _, value = line.partition("=")
        factor, *powers = value.split()
        dimension = list(NO_DIMENSION)
        for base in powers:
            symbol, _, power = base.partition("^")
            dimension[BASE.index(symbol)] = int(power or 1)
        first, *others = names.replace("~", "").split()
        worth[first] = Unit(Fraction(factor), tuple(dimension))
        exact |= dict.fromkeys((first, *others), first)
        if "~" in names:
            for prefix, ten in _PREFIXES.items():
                multiple = f"{ten} {first}"
                worth[multiple] = Unit(worth[first].factor * ten, worth[first].dimension)
                prefixed |= {prefix + name: multiple for name in (first, *others)}
                if "ohm" in others and prefix in ("kilo", "mega"):  # kilohm, megohm
                    prefixed[prefix[:-1] + "ohm"] = multiple
    # A first letter of either case may be a prefix: mW is not MW.
    ambiguous = {
        name.lower()
        for name, multiple in prefixed.items()
        if prefixed.get(name.swapcase()[:1] + name[1:], multiple) != multiple
    }
    any_case = {name.lower(): prefixed[name] for name in reversed(prefixed) if name.lower() not in ambiguous}
    any_case |= {name.lower(): exact[name] for name in reversed(exact)}
    return _Table(worth, prefixed | exact, any_case)
