"""How an answer is read: the wrapping taken off, numbers, lists and grids; in time linear in its length.

Every reader gives None for what it cannot read. None of them evaluates anything.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TypeAlias

Nested: TypeAlias = "str | list[Nested]"

MAX_DEPTH = 3  # lists in lists
MAX_NUMBER_CHARACTERS = 60
MAX_EXPONENT = 400  # of ten; a float's is below it
_MAX_LAYERS = 4

_LAYERS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"```[a-z]*\n(.*?)\n?```",
        r"```(.*?)```",
        r"`([^`]*)`",
        r"\*\*(?!\*)(.*)(?<!\*)\*\*",
        r'"(.*)"',
        r"'([^']*)'",
        r"\$\$([^$]*)\$\$",
        r"\$([^$]*)\$",
        r"\\\((.*?)\\\)",
        r"\\\[(.*?)\\\]",
        r"\\(?:boxed|text|mathrm)\{(.*)\}",
        r"(.*)\.",
    )
)
_NUMBER = re.compile(
    r"(?P<sign>[+-]?)\$?(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?P<part>\.[0-9]*)?(?:[eE](?P<power>[+-]?[0-9]+))?"
)
_TIMES_POWER = re.compile(r"\s*(?:×|\*|x|\\times)\s*10\s*(?:\^|\*\*)\s*\{?([+-]?[0-9]+)\}?")
_LIST_TOKEN = re.compile(r"\s*(?:([\[\],])|\"([^\"\\]*)\"|'([^'\\]*)'|([^\s\[\],\"']+))\s*")


def readings(answer: str) -> list[str]:
    """The answer as it is, then with one layer after the other taken off that stands around the whole of it.

    Layers are code fences, quotes, emphasis, LaTeX's dollars and boxes, and a full stop at the end.

    >>> readings("**$42$**.")
    ['**$42$**.', '**$42$**', '$42$', '42']
    """
    texts = [answer.strip()]
    for _ in range(_MAX_LAYERS):
        match = next((match for pattern in _LAYERS if (match := pattern.fullmatch(texts[-1]))), None)
        if match is None:
            break
        texts.append(match[1].strip())
    return texts


def number(text: str) -> Fraction | None:
    """The value of an integer or a decimal, also with an exponent, a currency sign or commas between thousands.

    >>> number("-1,234.50"), number("2e-3"), number("2 × 10^-3"), number("1,23"), number("nan")
    (Fraction(-2469, 2), Fraction(1, 500), Fraction(1, 500), None, None)
    """
    text = text.strip().replace("\u2212", "-")
    if len(text) > MAX_NUMBER_CHARACTERS:
        return None
    if text.isascii() and text.isdecimal():  # most are, and this is ten times as fast
        return Fraction(int(text))
    match = _NUMBER.fullmatch(_TIMES_POWER.sub(r"e\1", text))
    if match is None or not re.search("[0-9]", match["whole"] + (match["part"] or "")):
        return None
    power = int(match["power"] or 0)
    if abs(power) > MAX_EXPONENT:
        return None
    digits = match["whole"].replace(",", "") + "." + (match["part"] or ".")[1:]
    value = Fraction(digits if digits[-1] != "." else digits + "0") * Fraction(10) ** power
    return -value if match["sign"] == "-" else value


def integer(text: str) -> int | None:
    """The value of a whole number, None for others."""
    value = number(text)
    return int(value) if value is not None and value.denominator == 1 else None


def listed(text: str) -> list[Nested] | None:
    """A list as JSON or Python write it, of bare or quoted texts, at most `MAX_DEPTH` deep.

    >>> listed("[['a', \\"b c\\"], [1, -2.5], []]"), listed("[1 2]"), listed("[1,,2]")
    ([['a', 'b c'], ['1', '-2.5'], []], None, None)
    """
    open_lists: list[list[Nested]] = []
    may_end, position = False, 0  # whether a comma or a bracket may come next
    text = text.strip()
    while match := _LIST_TOKEN.match(text, position):
        position = match.end()
        mark = match[1]
        if mark == "[":
            if may_end or len(open_lists) == MAX_DEPTH:
                return None
            open_lists.append([])
        elif not open_lists:
            return None
        elif mark == "]":
            closed = open_lists.pop()
            if closed and not may_end:
                return None
            if not open_lists:
                return closed if position == len(text) else None
            open_lists[-1].append(closed)
            may_end = True
        elif mark == ",":
            if not may_end:
                return None
            may_end = False
        else:
            if may_end:
                return None
            open_lists[-1].append(next(group for group in match.groups()[1:] if group is not None))
            may_end = True
    return None


def texts(value: Nested | None) -> list[str] | None:
    """The value if it is a list of texts."""
    if not isinstance(value, list):
        return None
    parts = [part for part in value if isinstance(part, str)]
    return parts if len(parts) == len(value) else None


def sequence(text: str) -> list[str] | None:
    """Words between spaces or commas, with or without list brackets around them.

    >>> sequence("1 2") == sequence("1, 2") == sequence("[1, 2]") == sequence("[1 2]") == ["1", "2"]
    True
    """
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    return [word.strip("'\"") for word in text.replace(",", " ").split()] or None


def grid(text: str) -> list[list[str]] | None:
    """The words of each line, or of each list in a list of lists; lines without a word do not count.

    >>> grid("1 2\\n3 4") == grid("[[1, 2], [3, 4]]") == grid("[[1 2]\\n [3 4]]") == [["1", "2"], ["3", "4"]]
    True
    """
    rows = listed(text) if text.lstrip().startswith("[") else None
    if rows is not None:
        flat = [texts(row) for row in rows]
        return None if not flat or None in flat else [row for row in flat if row is not None]
    lines = re.sub(r"[\[\],|]", " ", text).splitlines()
    return [line.split() for line in lines if line.strip()] or None


def integers(row: list[str] | None) -> list[int] | None:
    """The values of a row of whole numbers."""
    values = [integer(word) for word in row or []]
    return None if row is None or None in values else [value for value in values if value is not None]


def integer_grid(text: str) -> list[list[int]] | None:
    """A grid of whole numbers."""
    rows = [integers(row) for row in grid(text) or []]
    return None if not rows or None in rows else [row for row in rows if row is not None]
