"""The problems of broaden.py: medians that the demo's model can learn, and sums that it hardly ever gets right."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from megatron_rl.config.suites import Answering, Benchmark, Rows, Suite

MEDIAN_ROWS = (29, 31)  # digits; the demo teaches rows of 5, 7 and 9 without a digit twice
SUM_ROWS = (4, 5, 6)  # digits; the demo teaches no sums
NUM_TRAIN, NUM_HELD_OUT = 4096, 200
NUM_KINDS = 3  # of median rows: the middle digit that occurs is the median, or is one place off, or more
MAX_PROMPT_TOKENS = 64  # a token for each digit, each space and each end
MAX_RESPONSE_TOKENS = 8  # room for an answer, none to work it out
NAME = "hard_rows"
SEED = 11


def write_problems(folder: Path, num_held_out: int) -> None:
    """Writes train.jsonl and validation.jsonl: medians and sums in turn.

    They are chosen by rule, not by outcome. Medians: the demo's model takes the middle of the digits that occur; for a
    third of the rows that is the median, for a third it is one place off, for a third two or more, so that no habit is
    right for all and each row has to be counted. Sums: of their last digit nothing less than all digits says anything,
    so that a guess is right once in ten.
    """
    generator, found = random.Random(SEED), dict[str, str]()
    kinds = (medians(generator), sums(generator))
    while len(found) < num_held_out + NUM_TRAIN:
        prompt, answer = next(kinds[len(found) % len(kinds)])
        found.setdefault(prompt, answer)
    lines = [
        json.dumps({"id": f"hard-{number:05d}", "domain": "math", "prompt": prompt, "item": {"answer": answer}}) + "\n"
        for number, (prompt, answer) in enumerate(found.items())
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "validation.jsonl").write_text("".join(lines[:num_held_out]))
    (folder / "train.jsonl").write_text("".join(lines[num_held_out:]))


def medians(generator: random.Random) -> Iterator[tuple[str, str]]:
    """Problems and answers, each kind of row as often as the others."""
    counts = [0] * NUM_KINDS
    while True:
        row = row_of(generator, MEDIAN_ROWS)
        kind = min(places_off(row), NUM_KINDS - 1)
        if counts[kind] == min(counts):
            counts[kind] += 1
            yield f"What is the median of {' '.join(map(str, row))}?", str(median(row))


def sums(generator: random.Random) -> Iterator[tuple[str, str]]:
    """Problems and answers."""
    while True:
        row = row_of(generator, SUM_ROWS)
        yield f"What is the last digit of {' + '.join(map(str, row))}?", str(sum(row) % 10)


def row_of(generator: random.Random, sizes: tuple[int, ...]) -> list[int]:
    """Digits, as many as one of the sizes."""
    return [generator.randrange(10) for _ in range(generator.choice(sizes))]


def median(row: list[int]) -> int:
    """The middle one of an odd number of digits."""
    return sorted(row)[len(row) // 2]


def places_off(row: list[int]) -> int:
    """How far the median stands from the middle of the digits that occur, or from the nearer of the two in the middle.

    >>> places_off([5, 1, 5, 5, 9]), places_off([1, 1, 2, 3, 4]), places_off([1, 1, 1, 2, 3])
    (0, 0, 1)
    """
    digits = sorted(set(row))
    place = digits.index(median(row))
    return min(abs(place - (len(digits) - 1) // 2), abs(place - len(digits) // 2))


def suite_of(folder: Path, samples_per_problem: int) -> Suite:
    """The held-out problems of a folder as a suite, at temperature 1: as the policy is."""
    num_rows = len((folder / "validation.jsonl").read_text().splitlines())
    benchmark = Benchmark(
        name=NAME,
        title="Medians and sums of rows of digits",
        column="",
        group="math",
        source=Rows(
            repository=str(folder), revision="", files=("validation.jsonl",), layout="items", num_rows=num_rows
        ),
        counts="right",
    )
    answering = Answering(
        samples_per_problem=samples_per_problem,
        temperature=1.0,
        top_p=1.0,
        max_prompt_tokens=MAX_PROMPT_TOKENS,
        max_response_tokens=MAX_RESPONSE_TOKENS,
    )
    return Suite(name=NAME, title=benchmark.title, benchmarks=(benchmark,), answering=answering)


def write_suite(directory: Path, samples_per_problem: int) -> Path:
    """Writes a file for `evaluate --suite`, which says the same as `suite_of`."""
    path = directory / f"{NAME}.py"
    source = Path(__file__).resolve()
    path.write_text(
        f"import sys\nfrom pathlib import Path\n\nsys.path.insert(0, {str(source.parent)!r})\n"
        f"from {source.stem} import suite_of\n\n"
        f"SUITE = suite_of(Path({str(directory / 'data')!r}), {samples_per_problem})\n"
    )
    return path
