"""Novelty: how much of what a policy writes is not found, in runs of 5 to 12 words, in a corpus given as files.

The Creativity Index of a text is the sum over n = 5..12 of the share of its words that no run of n words covers which
the corpus has, too: 0 for a copy, 8 for a text that shares no run of five words.
Source: Lu et al. arXiv 2410.04265, which ProRL v1 arXiv 2505.24864v1, section 4 measures against DOLMA. How ProRL cuts
words and which n it sums are not stated: n = 5..12 is what the third-party implementations sum.

The corpus becomes an index on disk, one sorted file of 64-bit hashes for each n, built in bounded memory.
Not covered: near matches; two runs of words with one hash, one in about 10^19 / (runs of the corpus).
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from megatron_rl.config.checks import UserError

SIZES = range(5, 13)
NUM_BUCKETS = 256  # of hashes while an index is built: each is sorted in memory
FLUSH_HASHES = 1 << 20
CHUNK_CHARACTERS = 1 << 20  # of a text file without line ends

_WORD = re.compile(r"\w+|[^\w\s]")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
Hashes = Any


def index_of(corpus: Sequence[Path], folder: Path) -> Path:
    """The folder of the corpus's index, under `folder`, built where it is not there yet. Raises UserError."""
    files = [file for path in corpus for file in _files(path)]
    facts = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    final = folder / f"corpus_{name}"
    if final.is_dir():
        return final
    aside = folder / f".corpus_{name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for size in SIZES:
        _build(files, size, aside)
    (aside / "corpus.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    aside.rename(final)
    return final


def creativity_index(text: str, index: Path) -> float | None:
    """The Creativity Index of a text, 0 to 8; None for one of fewer than five words."""
    words = words_of(text)
    if len(words) < SIZES[0]:
        return None
    return sum(uniqueness(words, index, size) for size in SIZES)


def uniqueness(words: Sequence[str], index: Path, size: int) -> float:
    """The share of the words that no run of `size` words covers which the corpus has."""
    hashes = hashes_of(words, size)
    if not len(hashes):
        return 1.0
    known = np.load(index / f"{size}.npy", mmap_mode="r")
    places = np.searchsorted(known, hashes)
    is_found = (
        (places < len(known)) & (known[np.minimum(places, len(known) - 1)] == hashes) if len(known) else hashes < 0
    )
    starts = np.flatnonzero(is_found)
    covered = np.zeros(len(words) + 1, dtype=np.int64)
    np.add.at(covered, starts, 1)
    np.add.at(covered, starts + size, -1)
    return float((covered.cumsum()[:-1] == 0).mean())


def words_of(text: str) -> list[str]:
    """The words and marks of a text, without their case.

    >>> words_of("So, 2 + 2 is Four.")
    ['so', ',', '2', '+', '2', 'is', 'four', '.']
    """
    return _WORD.findall(text.casefold())


def hashes_of(words: Sequence[str], size: int) -> Hashes:
    """A 64-bit hash of each run of `size` words; it depends on nothing but the words."""
    count = len(words) - size + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    single = np.fromiter((_hash(word) for word in words), dtype=np.uint64, count=len(words))
    total = np.zeros(count, dtype=np.uint64)
    for place in range(size):
        total = (total * _MULTIPLIER) ^ (single[place : place + count] + np.uint64(place))
        total ^= total >> np.uint64(29)
    return total


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(errors="replace"), digest_size=8).digest(), "little")


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file())
    else:
        found = [path] if path.is_file() else []
    if not found:
        raise UserError(f"corpus {path}: holds no file; give text files, .jsonl with a text in each line, or a folder")
    return found


def _texts(path: Path) -> Iterator[str]:
    """The texts of a file: one of each line of .jsonl, else its lines, joined as they are cut from the file."""
    with path.open(encoding="utf-8", errors="replace") as file:
        if path.suffix != ".jsonl":
            while chunk := file.read(CHUNK_CHARACTERS):
                yield chunk + file.readline()
            return
        for number, line in enumerate(file, start=1):
            try:
                text = json.loads(line)["text"]
            except (ValueError, KeyError, TypeError):
                text = None
            if not isinstance(text, str):
                raise UserError(f"corpus {path}:{number}: is no JSON object with a text under 'text'; write one a line")
            yield text


def _build(files: Sequence[Path], size: int, folder: Path) -> None:
    """The sorted hashes of the runs of `size` words, by buckets of their first byte, which follow each other."""
    buckets = folder / f"buckets_{size}"
    buckets.mkdir()
    held: list[Hashes] = []
    for path in files:
        for text in _texts(path):
            held.append(hashes_of(words_of(text), size))
            if sum(map(len, held)) >= FLUSH_HASHES:
                _flush(held, buckets)
    _flush(held, buckets)
    parts = []
    for path in sorted(buckets.iterdir()):
        part = np.unique(np.fromfile(path, dtype=np.uint64))
        part.tofile(path)
        parts.append((path, len(part)))
    total = sum(count for _, count in parts)
    if total == 0:
        np.save(folder / f"{size}.npy", np.empty(0, dtype=np.uint64))
    else:
        whole = np.lib.format.open_memmap(folder / f"{size}.npy", mode="w+", dtype=np.uint64, shape=(total,))
        place = 0
        for path, count in parts:
            whole[place : place + count] = np.fromfile(path, dtype=np.uint64)
            place += count
        whole.flush()
    shutil.rmtree(buckets)


def _flush(held: list[Hashes], buckets: Path) -> None:
    every = np.unique(np.concatenate(held)) if held else np.empty(0, dtype=np.uint64)
    held.clear()
    edges = np.searchsorted(every >> np.uint64(56), np.arange(NUM_BUCKETS + 1, dtype=np.uint64))
    for bucket in range(NUM_BUCKETS):
        part = every[edges[bucket] : edges[bucket + 1]]
        if len(part):
            with (buckets / f"{bucket:03d}").open("ab") as file:
                part.tofile(file)
