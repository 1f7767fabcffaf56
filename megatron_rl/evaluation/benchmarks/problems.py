"""A benchmark's rows as problems of the project's own format, stored once: what was evaluated can be read later."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_rl.config.checks import UserError, require
from megatron_rl.config.records import differences
from megatron_rl.config.suites import Benchmark, Layout, Made, Rows
from megatron_rl.data import logic_tasks
from megatron_rl.data.items import Item, read_items
from megatron_rl.evaluation.benchmarks import code, instructions, math, science
from megatron_rl.evaluation.benchmarks.columns import LeftOut, Row
from megatron_rl.evaluation.benchmarks.files import rows_of
from megatron_rl.evaluation.benchmarks.livecodebench import livecodebench
from megatron_rl.rewards.rows import parse_row
from megatron_rl.runtime.files import replace_file

READERS: Mapping[Layout, Callable[[Row, int], dict[str, Any]]] = {
    "aime": math.aime,
    "amc": math.amc,
    "math_500": math.math_500,
    "math": math.math_full,
    "minerva": math.minerva,
    "olympiad": math.olympiad,
    "eurus_code": code.eurus_code,
    "humaneval_plus": code.humaneval_plus,
    "livecodebench": livecodebench,
    "gpqa": science.gpqa,
    "gpqa_r1": science.gpqa_r1,
    "ifeval": instructions.ifeval,
    "items": lambda row, number: dict(row),
}
SUBSET_COLUMN, DATE_COLUMN = "data_source", "contest_date"
SPARE = 1.25  # of reasoning-gym's seeds: some give no usable entry, or one that another seed gave
KEYS = ("id", "domain", "prompt", "item")


@dataclass(frozen=True, kw_only=True)
class Problems:
    """The problems of a benchmark, and how many rows were left out for which reason."""

    items: tuple[Item, ...]
    left_out: Mapping[str, int]


def stored(benchmark: Benchmark, folder: Path, mirror: Path | None) -> Problems:
    """The problems of a benchmark as `folder` holds them; read or made, and written there, where it does not yet.

    Raises UserError where the rows are not the published ones, and where `folder` holds those of another source.
    """
    path = folder / f"{benchmark.name}.jsonl"
    source = json.loads(json.dumps(dataclasses.asdict(benchmark.source)))
    if not path.is_file():
        left_out: Counter[str] = Counter()
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows_as_items(benchmark, mirror, left_out)]
        require(bool(lines), f"benchmark {benchmark.name}: no row is left of {dict(left_out)}; there is nothing to ask")
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"source": source, "left_out": dict(left_out)}
        replace_file(path.with_suffix(".json"), json.dumps(facts, indent=1).encode())
        replace_file(path, "".join(lines).encode())
    facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if differing := differences(facts["source"], source):
        raise UserError(
            f"benchmark {benchmark.name}: {path} is of another source ({'; '.join(differing)}); evaluate into "
            "another --to"
        )
    return Problems(items=read_items(path), left_out=facts["left_out"])


def rows_as_items(benchmark: Benchmark, mirror: Path | None, left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    """The problems as lines of a data file; what is left out is counted by reason."""
    source = benchmark.source
    yield from _made(source) if isinstance(source, Made) else _published(source, mirror, left_out)


def _published(source: Rows, mirror: Path | None, left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    read, num_rows, ids = READERS[source.layout], 0, set[str]()
    for place, row in rows_of(source, mirror):
        try:
            if source.subset and row.get(SUBSET_COLUMN) != source.subset:
                continue
            num_rows += 1
            if not _is_in_window(source, row):
                continue
            found = parse_row(json.dumps(read(row, num_rows)).encode(), KEYS)
        except LeftOut as reason:
            left_out[str(reason)] += 1
            continue
        except ValueError as error:
            raise UserError(f"{place}: {error}") from None
        if found["id"] in ids:
            raise UserError(f"{place}: id '{found['id']}' has been there before; the published rows have each once")
        ids.add(found["id"])
        yield found
    require(
        num_rows == source.num_rows,
        f"{source.repository}: holds {num_rows} rows{' of ' + source.subset if source.subset else ''}, the published "
        f"revision {source.revision} has {source.num_rows}; fetch that one",
    )


def _is_in_window(source: Rows, row: Row) -> bool:
    if not source.since and not source.until:
        return True
    date = row.get(DATE_COLUMN)
    if not isinstance(date, str) or len(date) < len("2024-08-01"):
        raise ValueError(f"column '{DATE_COLUMN}' is {date!r}; the published rows have an ISO date there")
    return source.since <= date and (not source.until or date < source.until)


def _made(source: Made) -> Iterator[dict[str, Any]]:
    """Held-out rows of reasoning-gym, made in a process whose hash seed is fixed, as they depend on it."""
    tasks = logic_tasks.TASKS.get(source.tasks, tuple(source.tasks.split()))
    words = ["--split", "held_out", "--per-task", str(round(SPARE * source.num_per_task)), "--tasks", *tasks]
    done = subprocess.run(
        [sys.executable, "-m", "megatron_rl.data.logic_tasks", *words, "--out", "/dev/stdout"],
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"reasoning-gym made no rows: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    counts: Counter[str] = Counter()
    for line in done.stdout.splitlines():
        row = json.loads(line)
        counts[row["item"]["task"]] += 1
        if counts[row["item"]["task"]] <= source.num_per_task:
            yield row
