"""Texts as words: which problems are the same, nearly the same, or stand in an evaluation set.

Words are compared without case, spaces and punctuation, but with the signs of formulas. Near duplicates are found by
MinHash and then compared exactly; problems of other numbers are other problems, save programs'.

Not covered: translations, paraphrases, an evaluation problem shorter than a run of words inside a longer text.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from megatron_rl.config.checks import UserError
from megatron_rl.config.mixture import Rules
from megatron_rl.config.words import lack
from megatron_rl.data.files import PACKED, open_lines, unpacking_errors

PROBLEM_KEYS = ("problem", "question", "prompt", "question_content", "description", "Problem", "Question")

_WORD = re.compile(r"\w+|[-+*/=<>^|%!&~]")
_MINUS = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2014": "-", "\u00d7": "*", "\u00b7": "*"})
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no power of it is 0


def words_of(text: str) -> list[str]:
    """The words, numbers and signs of a text.

    >>> words_of("Is  2+2 = FOUR?")
    ['is', '2', '+', '2', '=', 'four']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).translate(_MINUS).casefold())


def key_of(words: Sequence[str]) -> bytes:
    """Sixteen bytes that are equal for the same words."""
    return hashlib.blake2b(" ".join(words).encode(errors="replace"), digest_size=16).digest()


class NearDuplicates:
    """The texts met so far, by MinHash; a new one is compared with those that agree with it in a band."""

    def __init__(self, rules: Rules) -> None:
        from rensa import RMinHashLSH

        self._rules = rules
        self._index = RMinHashLSH(
            threshold=rules.min_similarity, num_perm=rules.num_permutations, num_bands=rules.num_bands
        )
        self._texts: list[tuple[str, str, bool]] = []  # id, words, whether numbers matter

    def find_or_add(self, identifier: str, words: Sequence[str], *, numbers_matter: bool) -> str | None:
        """The id of an earlier text that is nearly the same; where there is none, this one is added."""
        from rensa import RMinHash

        shingles = _shingles(words, self._rules.shingle_words)
        sketch = RMinHash(num_perm=self._rules.num_permutations, seed=1)
        sketch.update(sorted(shingles))
        for place in sorted(map(int, self._index.query(sketch))):
            other, text, others_matter = self._texts[place]
            other_words = text.split(" ")
            if numbers_matter and others_matter and _numbers(words) != _numbers(other_words):
                continue
            others = _shingles(other_words, self._rules.shingle_words)
            if len(shingles & others) >= self._rules.min_similarity * len(shingles | others):
                return other
        self._index.insert(len(self._texts), sketch)
        self._texts.append((identifier, " ".join(words), numbers_matter))
        return None


def _shingles(words: Sequence[str], length: int) -> set[str]:
    return {" ".join(words[start : start + length]) for start in range(max(1, len(words) - length + 1))}


def _numbers(words: Sequence[str]) -> list[str]:
    return sorted(word for word in words if any(letter.isdigit() for letter in word))


class Overlaps:
    """The runs of words of evaluation problems, and which problem each belongs to: two sorted arrays."""

    def __init__(self, runs: np.ndarray[Any, Any], owners: np.ndarray[Any, Any], names: Sequence[str]) -> None:
        self._runs, self._owners, self._names = runs, owners, list(names)
        self._sizes = np.bincount(owners, minlength=len(names))

    @classmethod
    def of(cls, problems: Iterable[tuple[str, str]], rules: Rules) -> Overlaps:
        """The index of (name, text) pairs."""
        names: list[str] = []
        found: list[np.ndarray[Any, Any]] = []
        for name, text in problems:
            found.append(np.unique(_runs(words_of(text), rules.overlap_words)))
            names.append(name)
        runs = np.concatenate(found) if found else np.zeros(0, np.uint64)
        owners = np.repeat(np.arange(len(found)), [len(part) for part in found]).astype(np.int64)
        order = np.argsort(runs, kind="stable")
        return cls(runs[order], owners[order], names)

    def find(self, words: Sequence[str], rules: Rules) -> str | None:
        """The name of the evaluation problem that a text shares enough runs with; None where there is none."""
        if not len(self._runs):
            return None
        mine = np.unique(_runs(words, rules.overlap_words))
        left, right = np.searchsorted(self._runs, mine, "left"), np.searchsorted(self._runs, mine, "right")
        shared: dict[int, int] = {}
        for start, end in zip(left[left < right], right[left < right], strict=True):
            for owner in self._owners[start:end]:
                shared[int(owner)] = shared.get(int(owner), 0) + 1
        for owner, count in sorted(shared.items(), key=lambda pair: (-pair[1], pair[0])):
            if count >= math.ceil(rules.min_overlap * self._sizes[owner]):
                return str(self._names[owner])
        return None

    def save(self, path: Path) -> None:
        """Writes the index; names go beside the arrays as JSON."""
        names = np.frombuffer(json.dumps(self._names).encode(), dtype=np.uint8)
        with path.open("wb") as file:
            np.savez(file, runs=self._runs, owners=self._owners, names=names)

    @classmethod
    def load(cls, path: Path) -> Overlaps:
        with np.load(path, allow_pickle=False) as stored:
            return cls(stored["runs"], stored["owners"], json.loads(stored["names"].tobytes()))


@lru_cache(maxsize=1 << 18)
def _word_hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(errors="replace"), digest_size=8).digest(), "little")


def _runs(words: Sequence[str], length: int) -> np.ndarray[Any, Any]:
    """A 64-bit hash of each run of `length` words; of a shorter text the one of all of it."""
    hashes = np.array([_word_hash(word) for word in words], dtype=np.uint64)
    length = max(1, min(length, len(words)))
    total = np.zeros(max(0, len(words) - length + 1), dtype=np.uint64)
    for place in range(length):
        total = total * _BASE + hashes[place : place + len(total)]
    return total


def evaluation_files(given: Sequence[Path]) -> list[Path]:
    """The files of JSON lines that evaluation sets are: those given, and all in given folders. Raises UserError."""
    found: list[Path] = []
    for path in given:
        inner = sorted(path.rglob("*")) if path.is_dir() else [path]
        kept = [file for file in inner if file.is_file() and file.name.removesuffix(PACKED).endswith(".jsonl")]
        if not kept:
            is_there = "has no .jsonl file" if path.is_dir() else "is no .jsonl file"
            why = is_there if path.exists() else lack(path, "file")
            raise UserError(f"--evaluation {path}: {why}; give a file or folder of JSON lines")
        found += kept
    return found


def _lines(path: Path, file: BinaryIO) -> Iterator[bytes]:
    try:
        yield from file
    except unpacking_errors() as error:
        raise UserError(f"{path}: cannot be unpacked ({error}); make it anew") from None


def evaluation_problems(files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """(name, text) of every problem of evaluation sets. Raises UserError for a line that has none."""
    for path in files:
        with open_lines(path) as file:
            for number, line in enumerate(_lines(path, file), start=1):
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    raise UserError(f"{path}:{number}: is no JSON; write one problem a line") from None
                texts = [row[key] for key in PROBLEM_KEYS if isinstance(row, dict) and isinstance(row.get(key), str)]
                if not texts:
                    raise UserError(f"{path}:{number}: has none of {', '.join(PROBLEM_KEYS)}; name the problem so")
                yield f"{path.name}:{number}", texts[0]
