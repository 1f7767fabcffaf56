"""Scorers of tasks about words, letters and names in which more than one answer can be right, or one in many forms."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

MAX_LADDER_LETTERS = 5  # of reasoning-gym's word ladders; at least 3


def climbs_ladder(answer: str, entry: Mapping[str, Any]) -> float:
    """1 for English words from the first to the last, each one letter away from the one before."""
    metadata = entry["metadata"]
    words = [word.strip() for word in re.split(r",|→|->|\n", answer.upper())]
    if len(words) < 2 or (words[0], words[-1]) != (metadata["start_word"], metadata["end_word"]):
        return 0.0
    if any(len(word) != len(words[0]) or word not in vocabulary() for word in words):
        return 0.0
    return float(all(sum(a != b for a, b in zip(*pair, strict=True)) == 1 for pair in pairwise(words)))


@cache
def vocabulary() -> frozenset[str]:
    """The English words of 3 to 5 letters in the two lists that come with reasoning-gym, in capitals.

    Read from its folder: importing reasoning-gym takes a second and a hundred megabytes. Raises ImportError without it.
    """
    found = importlib.util.find_spec("reasoning_gym")
    folder = Path(found.origin).parent / "data" if found is not None and found.origin else None
    if folder is None or not (folder / "words.csv").is_file():
        raise ImportError("reasoning-gym's word lists are missing")
    with (folder / "words.csv").open(encoding="utf-8", newline="") as file:
        words = {word for row in csv.reader(file) for word in row}
    words |= set((folder / "words3to10.txt").read_text(encoding="utf-8").split())
    return frozenset(word.upper() for word in words if 3 <= len(word) <= MAX_LADDER_LETTERS and word.isalpha())


def is_palindrome(answer: str, entry: Mapping[str, Any]) -> float:
    """1 for all the letters given, in an order that reads the same both ways."""
    text = answer.strip().casefold()
    return float(text == text[::-1] and sorted(text) == sorted("".join(entry["metadata"]["letters"]).casefold()))


def solves_cryptarithm(answer: str, entry: Mapping[str, Any]) -> float:
    """1 for a digit per letter, no two the same, no number with a leading zero, and a sum that adds up."""
    metadata = entry["metadata"]
    pairs = [re.fullmatch(r"\s*([A-Z])\s*=\s*([0-9])\s*", part) for part in answer.split(",")]
    digit_of = {match[1]: match[2] for match in pairs if match}
    words = [*metadata["words_letters"], metadata["result_letters"]]
    if None in pairs or len(pairs) != len(digit_of) or digit_of.keys() != set("".join(words)):
        return 0.0
    numbers = ["".join(digit_of[letter] for letter in word) for word in words]
    leads = any(len(text) > 1 and text[0] == "0" for text in numbers) and not metadata["allow_leading_zero"]
    *summands, total = map(int, numbers)
    return float(len(set(digit_of.values())) == len(digit_of) and not leads and sum(summands) == total)


def names_roles(answer: str, entry: Mapping[str, Any]) -> float:
    """1 for every inhabitant's role, in any order, and nothing else."""
    found = _roles(answer)
    return float(found is not None and found == _roles(entry["answer"]))


def colors_graph(answer: str, entry: Mapping[str, Any]) -> float:
    """1 for a colour per vertex, no two neighbours the same."""
    puzzle = entry["metadata"]["puzzle"]
    try:
        colors = json.loads(answer)
    except (ValueError, RecursionError):  # no JSON, or hostile
        return 0.0
    if not isinstance(colors, dict) or colors.keys() != set(map(str, puzzle["vertices"])):
        return 0.0
    if any(type(color) is not int or color not in puzzle["color_options"] for color in colors.values()):
        return 0.0
    return float(all(colors[str(u)] != colors[str(v)] for u, v in puzzle["edges"]))


def _roles(text: str) -> dict[str, str] | None:
    clauses = [clause for clause in re.split(r"[,.;\n]|\band\b", text.casefold()) if clause.strip()]
    matches = [re.fullmatch(r"\s*(\w+)\s+is\s+(?:an?\s+)?(\w+)\s*", clause) for clause in clauses]
    roles = {match[1]: match[2] for match in matches if match}
    return roles if len(roles) == len(matches) else None
