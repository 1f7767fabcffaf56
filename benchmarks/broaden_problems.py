"""The hard problems of broaden.py: medians on which the habit of the demo's model is wrong."""

from __future__ import annotations

import json
import random
from pathlib import Path

from megatron_rl.config.suites import Answering, Benchmark, Rows, Suite

ROW_SIZES = (13, 15)  # digits; the demo teaches rows of 5, 7 and 9 without a digit twice
NUM_TRAIN, NUM_HELD_OUT = 4096, 200
NAME = "hard_medians"
SEED = 11


def write_problems(folder: Path, num_held_out: int) -> None:
    """Writes train.jsonl and validation.jsonl: rows with digits that occur more than once.

    The demo's model sorts the digits that occur, each once, and takes the middle one. It is chosen by rule, not by
    outcome: a row counts where that digit, or either of the two in the middle, is not the median.
    """
    generator, found = random.Random(SEED), dict[str, str]()
    while len(found) < num_held_out + NUM_TRAIN:
        row = [generator.randrange(10) for _ in range(generator.choice(ROW_SIZES))]
        median = sorted(row)[len(row) // 2]
        if median not in middles(row):
            found.setdefault(f"What is the median of {' '.join(map(str, row))}?", str(median))
    lines = [
        json.dumps({"id": f"hard-{number:05d}", "domain": "math", "prompt": prompt, "item": {"answer": answer}}) + "\n"
        for number, (prompt, answer) in enumerate(found.items())
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "validation.jsonl").write_text("".join(lines[:num_held_out]))
    (folder / "train.jsonl").write_text("".join(lines[num_held_out:]))


def middles(row: list[int]) -> set[int]:
    """The middle of the digits that occur, or both where there are two.

    >>> middles([5, 1, 5, 5, 9]), middles([1, 1, 2, 3, 4])
    ({5}, {2, 3})
    """
    digits = sorted(set(row))
    return {digits[(len(digits) - 1) // 2], digits[len(digits) // 2]}


def suite_of(folder: Path, samples_per_problem: int) -> Suite:
    """The held-out problems of a folder as a suite, at temperature 1: as the policy is."""
    num_rows = len((folder / "validation.jsonl").read_text().splitlines())
    benchmark = Benchmark(
        name=NAME,
        title="Medians of rows with digits that repeat",
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
        max_prompt_tokens=32,
        max_response_tokens=24,
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
