"""Numbers that are written in words, Roman numerals, or with the sign behind them, in digits."""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_SMALL = {name: value for value, name in enumerate(f"{_UNITS} seventeen eighteen nineteen".split())}
_DECADES = "twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = {name: 10 * value for value, name in enumerate(_DECADES.split(), 2)}
_SCALES = {"hundred": 100, "thousand": 1_000}
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}
_NAME = "|".join([*_SMALL, *_TENS, *_SCALES])
_IN_WORDS = re.compile(
    rf"(?:\\text ?\{{ ?)?(?P<sign>(?:minus|negative|plus) )?"
    rf"(?:(?P<whole>(?:{_NAME})(?:(?: and |[ -])(?:{_NAME}))*)(?P<part>[ -](?:{'|'.join(_PARTS)})s?)?|(?P<half>half))"
    r"(?=$|[ }%])(?! and )",
    re.IGNORECASE,
)
_SIGN_IN_WORDS = re.compile(r"(?:\\text ?\{ ?)?(minus|negative|plus|positive) ?\}? ?(?=[0-9.])", re.IGNORECASE)
_SIGN_BEHIND = re.compile(r"([0-9]{1,2})([+-])")
_ROMAN = re.compile(r"([+-]?) ?(?=[IVX])(X{0,3}(?:IX|IV|V?I{0,3}))")
_WORTH = {"I": 1, "V": 5, "X": 10}


def in_digits(text: str, *, has_roman: bool = True) -> str:
    r"""A text in plain form whose number at the start is in digits; it is left as it is where it has none.

    >>> in_digits("twenty-five grams"), in_digits("minus 196 K"), in_digits("+VI"), in_digits("6+"), in_digits("no one")
    ('25 grams', '-196 K', '+6', '+6', 'no one')
    """
    if match := _SIGN_BEHIND.fullmatch(text):
        return match[2] + match[1]
    if has_roman and len(text) > 1 and (match := _ROMAN.fullmatch(text)):
        return f"{match[1]}{roman(match[2])}"
    if match := _SIGN_IN_WORDS.match(text):
        return _sign(match[1]) + text[match.end() :].removesuffix(
            "}" if "{" in match[0] and "}" not in match[0] else ""
        )
    match = _IN_WORDS.match(text)
    if match is None:
        return text
    value = Fraction(1) if match["half"] else Fraction(_whole(re.findall(r"[a-z]+", match["whole"].lower())))
    part = "half" if match["half"] else (match["part"] or "").strip(" -").lower()
    value /= _PARTS.get(part, _PARTS.get(part.removesuffix("s"), 2 if part == "halves" else 1))
    rest = text[match.end() :].removesuffix("}") if match[0].startswith("\\") else text[match.end() :]
    return f"{_sign(match['sign'] or '')}{value}{rest}"


def roman(text: str) -> int:
    """The value of a Roman numeral of I, V and X.

    >>> roman("XIV")
    14
    """
    values = [_WORTH[letter] for letter in text]
    following = [*values[1:], 0]
    return sum(-value if value < after else value for value, after in zip(values, following, strict=True))


def _sign(word: str) -> str:
    return {"minus": "-", "negative": "-"}.get(word.strip().lower(), "")


def _whole(words: list[str]) -> int:
    total = run = 0
    for word in words:
        if word in _SCALES:
            run = max(run, 1) * _SCALES[word]
            total, run = (total + run, 0) if word == "thousand" else (total, run)
        else:
            run += _SMALL.get(word, _TENS.get(word, 0))
    return total + run
