"""Scorers of tasks with one right answer: it is compared with the reference by value, and nothing near it counts.

reasoning-gym compares most of these as texts and pays for an answer that merely contains the reference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import isfinite
from typing import Any

from megatron_rl.rewards.puzzles.reading import grid, integer_grid, integers, listed, number, sequence, texts

Entry = Mapping[str, Any]

_CLOSE = Fraction(1, 10**6)  # relative; where a reference is a float printed in full
_NO_NOUNS = "hundred thousand million billion dozen percent times plus minus and not the"
_GEOMETRY = {
    "angle_measure": ("angle_ABC_degrees", 2),
    "orthocenter": ("orthocenter_approx", 3),
    "incircle_radius": ("incircle_radius_approx", 3),
}


def same_text(answer: str, entry: Entry) -> float:
    """1 for the reference, whatever the white space between its words."""
    return float(answer.split() == _reference(entry).split())


def same_words(answer: str, entry: Entry) -> float:
    """1 for the reference, whatever the case and the white space between its words."""
    return float(answer.casefold().split() == _reference(entry).casefold().split())


def same_letters(answer: str, entry: Entry) -> float:
    """1 for the reference, whatever the case and the spaces, which some write between the letters."""
    return float("".join(answer.casefold().split()) == "".join(_reference(entry).casefold().split()))


def same_value(answer: str, entry: Entry) -> float:
    """1 for the number or the word that the reference is; a number may have its noun of the question: `6 steps`."""
    value, reference = number(_without_noun(answer, entry)), number(_reference(entry))
    return same_words(answer, entry) if reference is None else float(value == reference)


def same_solution(answer: str, entry: Entry) -> float:
    """1 for the value of the unknown, also as an equation `x = 3`."""
    return same_value(_without_unknown(answer, entry), entry)


def same_angle(answer: str, entry: Entry) -> float:
    """1 for the number that the reference is, also with a degree sign."""
    return same_value(_without_degrees(answer), entry)


def same_hexadecimal(answer: str, entry: Entry) -> float:
    """1 for the hexadecimal number, in either case, with or without 0x."""
    if not re.fullmatch(r"[+-]?\s*(0[xX])?[0-9a-fA-F]{1,200}", answer):
        return 0.0
    return float(int(re.sub(r"\s", "", answer), 16) == int(_reference(entry), 16))


def same_digits(answer: str, entry: Entry) -> float:
    """1 for the same digits in the target base, in either case; leading zeros do not count."""
    match = re.fullmatch(r"0*([0-9a-z]+)", answer.strip().casefold())
    return float(match is not None and match[1] == _reference(entry).casefold())


def same_fraction(answer: str, entry: Entry) -> float:
    """1 for the reference's own numerator and denominator: a fraction not reduced is not simplified."""
    found = _fraction(answer)
    return float(found is not None and found == _fraction(_reference(entry)))


def same_factors(answer: str, entry: Entry) -> float:
    """1 for the prime factors in any order, between multiplication signs."""
    found = integers(re.split(r"[×*·x]|\\times|\\cdot", answer))
    return float(found is not None and sorted(found) == sorted(entry["metadata"]["factors"]))


def same_complex(answer: str, entry: Entry) -> float:
    """1 for the complex number, as `a + bi`, `bi` or `a`."""
    found, (real, imaginary) = _complex(answer), entry["metadata"]["result"]
    return float(found is not None and _is_close(found[0], real) and _is_close(found[1], imaginary))


def same_to_12_digits(answer: str, entry: Entry) -> float:
    """1 for a decimal that differs from the reference by at most one unit of the 12th significant digit."""
    value, reference = number(answer), _number(entry)
    return float(value is not None and abs(value - reference) <= _unit(reference, 12))


def same_to_3_digits(answer: str, entry: Entry) -> float:
    """1 for a number that rounds the reference to 3 significant digits, or gives more of them."""
    value, reference = number(answer), _number(entry)
    return float(value is not None and abs(value - reference) <= _unit(reference, 3) * Fraction(501, 1000))


def same_probability(answer: str, entry: Entry) -> float:
    """1 for the fraction, or a decimal that rounds it to 4 significant digits, or gives more of them."""
    value, reference = _ratio(answer), _number(entry)
    return float(value is not None and abs(value - reference) <= _unit(reference, 4) * Fraction(501, 1000))


def same_pick(answer: str, entry: Entry) -> float:
    """1 for the number picked: nearer to it than to any other candidate, and than a hundredth."""
    value, metadata = number(answer), entry["metadata"]
    if value is None:
        return 0.0
    right = abs(value - Fraction(metadata["solution"]))
    others = [abs(value - Fraction(other)) for other in metadata["candidates"] if other != metadata["solution"]]
    return float(right < Fraction(1, 100) and all(right < other for other in others))


def same_duration(answer: str, entry: Entry) -> float:
    """1 for the days and the time of day; a millisecond of difference is the reference's own rounding."""
    is_days = entry["metadata"]["task_type"] == "date"
    found = _milliseconds(f"{answer} days" if is_days and answer.isdecimal() else answer)
    reference = _milliseconds(_reference(entry))
    return float(found is not None and reference is not None and abs(found - reference) <= 1)


def same_roots(answer: str, entry: Entry) -> float:
    """1 for all real roots to 4 decimals, in any order, rounded either way."""
    found = [number(_without_unknown(part, entry)) for part in re.split(r"[,;]|\bor\b|\band\b", answer)]
    roots = sorted({Fraction(str(root)) for root in entry["metadata"]["real_solutions"]})
    values = sorted({value for value in found if value is not None})
    is_right = None not in found and len(values) == len(roots)
    return float(is_right and all(abs(a - b) <= Fraction(101, 10**6) for a, b in zip(values, roots, strict=True)))


def same_geometry(answer: str, entry: Entry) -> float:
    """1 for the angle to 2 decimals, or the radius or the point to 3, or to more."""
    metadata = entry["metadata"]
    key, decimals = _GEOMETRY[metadata["task_type"]]
    exact = metadata[key] if isinstance(metadata[key], list) else [metadata[key]]
    match = re.fullmatch(r"\(?([^()]*)\)?", answer.strip())
    found = [_ratio(_without_degrees(part)) for part in match[1].split(",")] if match else []
    if len(found) != len(exact):
        return 0.0
    tolerance = Fraction(501, 10 ** (decimals + 3))
    pairs = zip(found, map(Fraction, exact), strict=True)
    return float(all(value is not None and abs(value - right) <= tolerance for value, right in pairs))


def same_sequence(answer: str, entry: Entry) -> float:
    """1 for the same words or numbers in the same order, between spaces or commas, in brackets or not."""
    found, reference = sequence(answer), sequence(_reference(entry))
    return float(found is not None and list(map(_atom, found)) == list(map(_atom, reference or [])))


def same_list(answer: str, entry: Entry) -> float:
    """1 for the same list of numbers in the same order; numbers count by value."""
    found, reference = texts(listed(answer)), texts(listed(_reference(entry)))
    return float(found is not None and list(map(_atom, found)) == list(map(_atom, reference or [])))


def same_elements(answer: str, entry: Entry) -> float:
    """1 as `same_list`, for several elements between commas, too, without the brackets of a list."""
    return same_list(f"[{answer}]" if "," in answer and "[" not in answer else answer, entry)


def same_comma_list(answer: str, entry: Entry) -> float:
    """1 for the same words in the same order, between commas."""
    found = texts(listed(answer)) or [word.strip() for word in answer.split(",")]
    return float(found == [word.strip() for word in _reference(entry).split(",")])


def same_groups(answer: str, entry: Entry) -> float:
    """1 for the same groups of words, in any order of the groups and of the words."""
    return float(_groups(answer, sorted) == _groups(_reference(entry), sorted) is not None)


def same_partitions(answer: str, entry: Entry) -> float:
    """1 for the same lists of words, in any order of the lists."""
    return float(_groups(answer, list) == _groups(_reference(entry), list) is not None)


def same_grid(answer: str, entry: Entry) -> float:
    """1 for the same rows of numbers, as lines or as a list of lists."""
    found = integer_grid(answer)
    return float(found is not None and found == integer_grid(_reference(entry)))


def same_picture(answer: str, entry: Entry) -> float:
    """1 for the same lines of signs, whatever the spaces between them."""
    lines = ["".join(line.split()) for line in answer.splitlines() if line.strip()]
    return float(lines == ["".join(line.split()) for line in _reference(entry).splitlines()])


def same_pooling(answer: str, entry: Entry) -> float:
    """1 for the same rows of numbers to 2 decimals."""
    found, reference = _number_grid(answer), _number_grid(_reference(entry))
    if found is None or reference is None or [len(row) for row in found] != [len(row) for row in reference]:
        return 0.0
    pairs = [pair for rows in zip(found, reference, strict=True) for pair in zip(*rows, strict=True)]
    return float(all(abs(value - right) <= Fraction(501, 10**5) for value, right in pairs))


def same_json(answer: str, entry: Entry) -> float:
    """1 for the same JSON value; floats may differ by a millionth of themselves."""
    reference = _reference(entry).strip()
    try:
        return float(answer.strip() == reference or _is_same_json(json.loads(answer), json.loads(reference)))
    except (ValueError, ArithmeticError, RecursionError):  # no JSON, or hostile
        return 0.0


def _reference(entry: Entry) -> str:
    return str(entry["answer"])


def _number(entry: Entry) -> Fraction:
    value = number(_reference(entry))
    assert value is not None, f"the reference {entry['answer']!r} is no number"
    return value


def _without_unknown(text: str, entry: Entry) -> str:
    return re.sub(rf"^\s*{re.escape(entry['metadata']['variable'])}\s*=\s*", "", text)


def _without_noun(text: str, entry: Entry) -> str:
    """The text without one word behind it that the question uses, too, and that counts nothing itself."""
    first, _, noun = text.strip().rpartition(" ")
    is_noun = noun.isalpha() and len(noun) > 2 and noun not in _NO_NOUNS.split()
    return first if is_noun and noun in re.findall("[a-z]+", str(entry["question"]).lower()) else text


def _without_degrees(text: str) -> str:
    text = text.strip()
    unit = next((unit for unit in ("°", "^\\circ", "degrees", "degree") if text.endswith(unit)), "")
    return text.removesuffix(unit).strip()


def _fraction(text: str) -> tuple[int, int] | None:
    text = re.sub(r" ?([/{}]) ?", r"\1", " ".join(text.strip("$ ").split()))
    match = re.fullmatch(r"(-?)\\[dt]?frac\{(-?[0-9]{1,100})\}\{([0-9]{1,100})\}", text) or re.fullmatch(
        r"()(-?[0-9]{1,100})(?:/([0-9]{1,100}))?", text
    )
    return None if match is None else (int(match[1] + match[2].lstrip("-" if match[1] else "")), int(match[3] or 1))


def _ratio(text: str) -> Fraction | None:
    over, _, under = text.partition("/")
    numerator, denominator = number(over), number(under or "1")
    return numerator / denominator if numerator is not None and denominator else None


def _complex(text: str) -> tuple[Fraction, Fraction] | None:
    text = re.sub(r"[\s*]", "", text.replace("\u2212", "-")).strip("()").replace("j", "i")
    decimal = r"(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})"
    if imaginary_first := re.fullmatch(rf"([+-]?{decimal}?i)([+-]{decimal})", text):
        first = imaginary_first[1]
        text = imaginary_first[2] + (first if first[0] in "+-" else f"+{first}")
    match = re.fullmatch(rf"([+-]?{decimal})?((?(1)[+-]|[+-]?){decimal}?i)?", text)
    if match is None or not text:
        return None
    imaginary = (match[2] or "0i")[:-1]
    return Fraction(match[1] or 0), Fraction(imaginary + "1" if imaginary in ("", "+", "-") else imaginary)


def _is_close(value: Fraction, right: float) -> bool:
    return abs(value - Fraction(right)) <= _CLOSE * max(Fraction(1), abs(Fraction(right)))


def _unit(value: Fraction, digits: int) -> Fraction:
    """One unit of the last of `digits` significant digits."""
    if value == 0:
        return Fraction(0)
    power = len(str(abs(value.numerator))) - len(str(value.denominator))
    if abs(value) < Fraction(10) ** power:
        power -= 1
    return Fraction(10) ** (power - digits + 1)


def _milliseconds(text: str) -> int | None:
    match = re.fullmatch(
        r"(?:(-?[0-9]{1,7}) days?)?(,?\s*)(?:([0-9]{1,4}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?)?",
        " ".join(text.casefold().split()),
    )
    if match is None or (match[1] is None and match[3] is None):
        return None
    days, hours, minutes, seconds = (int(match[index] or 0) for index in (1, 3, 4, 5))
    return ((days * 24 + hours) * 60 + minutes) * 60_000 + seconds * 1000 + int((match[6] or "0").ljust(3, "0")[:3])


def _atom(word: str) -> Fraction | str:
    value = number(word)
    return word if value is None else value


def _groups(text: str, order: Callable[[list[str]], list[str]]) -> list[list[str]] | None:
    groups = [texts(group) for group in listed(text) or []]
    return sorted(order(group) for group in groups if group) if groups and all(groups) else None


def _number_grid(text: str) -> list[list[Fraction]] | None:
    rows = [[number(word) for word in row] for row in grid(text) or []]
    if not rows or any(None in row for row in rows):
        return None
    return [[value for value in row if value is not None] for row in rows]


def _is_same_json(value: Any, right: Any) -> bool:
    if isinstance(right, dict):
        return (
            isinstance(value, dict)
            and value.keys() == right.keys()
            and all(_is_same_json(value[key], right[key]) for key in right)
        )
    if isinstance(right, list):
        return (
            isinstance(value, list)
            and len(value) == len(right)
            and all(_is_same_json(*pair) for pair in zip(value, right, strict=True))
        )
    if isinstance(value, float) or isinstance(right, float):
        is_number = isinstance(value, int | float) and isinstance(right, int | float)
        is_number = is_number and not isinstance(value, bool) and not isinstance(right, bool)
        return is_number and bool(value == right or isfinite(right) and abs(value - right) <= 1e-6 * abs(right))
    return type(value) is type(right) and bool(value == right)
