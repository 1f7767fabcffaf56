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
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from megatron_rl.config.checks import UserError
from megatron_rl.config.words import lack
from megatron_rl.runtime.files import own_aside, replace_folder

SIZES = range(5, 13)
BUCKET_BITS = 8  # a corpus larger than memory is cut into buckets by the first bits of its hashes, and each is sorted
FLUSH_HASHES = 1 << 20
CHUNK_CHARACTERS = 1 << 20  # of a text file without line ends

_WORD = re.compile(r"\w+|[^\w\s]")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
Hashes = Any


def index_of(corpus: Sequence[Path], folder: Path) -> Path:
    """The folder of the corpus's index, under `folder`, built where it is not there yet. Raises UserError."""
    files = [file for path in corpus for file in files_of(path)]
    facts = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    final = folder / f"corpus_{name}"
    if final.is_dir():
        return final
    aside = own_aside(final)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for size in SIZES:
        _build(files, size, aside)
    (aside / "corpus.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    replace_folder(aside, final)
    return final


def opened(index: Path) -> Mapping[int, Hashes]:
    """Words of a run -> the sorted hashes of an index, read from the disk where they are looked at."""
    return {size: np.load(index / f"{size}.npy", mmap_mode="r").view(np.ndarray) for size in SIZES}


def creativity_index(text: str, known: Mapping[int, Hashes]) -> float | None:
    """The Creativity Index of a text against an opened index, 0 to 8; None for one of fewer than five words."""
    words = words_of(text)
    if len(words) < SIZES[0]:
        return None
    single = hashes_of_words(words)
    return sum(uniqueness(hashes_of(single, size), len(words), known[size], size) for size in SIZES)


def uniqueness(hashes: Hashes, num_words: int, known: Hashes, size: int) -> float:
    """The share of a text's words that no run of `size` words covers which the corpus has."""
    if not len(hashes) or not len(known):
        return 1.0
    places = np.searchsorted(known, hashes)
    is_found = known[np.minimum(places, len(known) - 1)] == hashes
    if not is_found.any():
        return 1.0
    starts = np.flatnonzero(is_found)
    covered = np.zeros(num_words + 1, dtype=np.int64)
    np.add.at(covered, starts, 1)
    np.add.at(covered, starts + size, -1)
    return float((covered.cumsum()[:-1] == 0).mean())


def words_of(text: str) -> list[str]:
    """The words and marks of a text, without their case.

    >>> words_of("So, 2 + 2 is Four.")
    ['so', ',', '2', '+', '2', 'is', 'four', '.']
    """
    return _WORD.findall(text.casefold())


def hashes_of_words(words: Sequence[str]) -> Hashes:
    """A 64-bit hash of each word."""
    return np.fromiter(map(_hash, words), dtype=np.uint64, count=len(words))


def hashes_of(single: Hashes, size: int) -> Hashes:
    """A 64-bit hash of each run of `size` words, from those of the words; it depends on nothing else."""
    count = len(single) - size + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    total = np.zeros(count, dtype=np.uint64)
    for place in range(size):
        total = (total * _MULTIPLIER) ^ (single[place : place + count] + np.uint64(place))
        total ^= total >> np.uint64(29)
    return total


@lru_cache(maxsize=1 << 16)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(errors="replace"), digest_size=8).digest(), "little")


def files_of(path: Path) -> list[Path]:
    """The files of a part of a corpus. Raises UserError where it has none, or only empty ones."""
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file())
    else:
        found = [path] if path.is_file() else []
    if not any(file.stat().st_size for file in found):
        why = "holds only empty files" if found else "holds no file" if path.is_dir() else lack(path, "file")
        raise UserError(f"--corpus {path}: {why}; give text files, .jsonl with a text in each line, or a folder")
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
    """The sorted hashes of the runs of `size` words: in memory where they fit, else bucket after bucket."""
    buckets, held, num_held = folder / f"buckets_{size}", [], 0
    for path in files:
        for text in _texts(path):
            held.append(hashes_of(hashes_of_words(words_of(text)), size))
            num_held += len(held[-1])
            if num_held >= FLUSH_HASHES:
                _flush(held, buckets)
                held, num_held = [], 0
    if not buckets.is_dir():
        np.save(folder / f"{size}.npy", np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *held])))
        return
    _flush(held, buckets)
    parts = []
    for path in sorted(buckets.iterdir()):
        part = np.unique(np.fromfile(path, dtype=np.uint64))
        part.tofile(path)
        parts.append((path, len(part)))
    total = sum(count for _, count in parts)
    whole = np.lib.format.open_memmap(folder / f"{size}.npy", mode="w+", dtype=np.uint64, shape=(total,))
    place = 0
    for path, count in parts:
        whole[place : place + count] = np.fromfile(path, dtype=np.uint64)
        place += count
    whole.flush()
    shutil.rmtree(buckets)


def _flush(held: Sequence[Hashes], buckets: Path) -> None:
    """Adds hashes to the files of their buckets, whose names sort as the hashes do."""
    buckets.mkdir(exist_ok=True)
    every = np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *held]))
    edges = np.searchsorted(every >> np.uint64(64 - BUCKET_BITS), np.arange((1 << BUCKET_BITS) + 1, dtype=np.uint64))
    for bucket in range(1 << BUCKET_BITS):
        part = every[edges[bucket] : edges[bucket + 1]]
        if len(part):
            with (buckets / f"{bucket:05d}").open("ab") as file:
                part.tofile(file)
