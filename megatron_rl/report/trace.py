"""The trace: when each rank was in which span; spans/rank_N.jsonl, and a file of them for Perfetto or Chrome.

A rank's file is bounded: of two parts the older one goes, so that of a long run the newest steps stay. Times are those
of each machine's clock.

Source: the Trace Event Format of Chrome, "JSON Object Format", complete and metadata events.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from megatron_rl.config.checks import UserError
from megatron_rl.report import provenance
from megatron_rl.runtime import spans
from megatron_rl.runtime.files import write_named

FOLDER = "spans"
MAX_PART_BYTES = 4_000_000  # of a rank's file, before a new part begins
RANKS, STEPS = 1, 0  # the two processes of the trace
# A line: `step`, `at` (when it ended), and `spans` as [name, when it began, seconds], all by time.time().
Line = Mapping[str, Any]


class SpanFile:
    """Owns the spans of one rank."""

    def __init__(self, directory: Path, rank: int) -> None:
        self.path = path_of(directory, rank)

    def add(self, step: int) -> None:
        """Writes the spans since the last call as those of the step that ended now; a full disk is no matter."""
        found = [(span.name, round(span.began, 6), round(span.seconds, 6)) for span in spans.take_ended()]
        line = json.dumps({"step": step, "at": round(time.time(), 6), "spans": found}) + "\n"
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and self.path.stat().st_size > MAX_PART_BYTES:
                self.path.replace(older(self.path))
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)


def path_of(directory: Path, rank: int) -> Path:
    """Where a rank's spans are."""
    return directory / FOLDER / f"rank_{rank:05d}.jsonl"


def older(path: Path) -> Path:
    """The part before a rank's newest."""
    return path.with_suffix(".older.jsonl")


def read_spans(directory: Path) -> dict[int, dict[int, Line]]:
    """Rank -> step -> the line of the newest time that it was done. A line that a kill cut short is left out."""
    found: dict[int, dict[int, Line]] = {}
    for path in sorted((directory / FOLDER).glob("rank_?????.jsonl")):
        lines = [line for part in (older(path), path) for line in _whole(part)]
        found[int(path.stem.removeprefix("rank_"))] = {line["step"]: line for line in lines}
    return found


def _whole(path: Path) -> Iterator[Line]:
    """The lines of a part; one that a kill cut short, and the next attempt went on in, is left out."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        with suppress(ValueError, RecursionError):
            found = json.loads(line)
            if isinstance(found, dict) and found.keys() >= {"step", "at", "spans"}:
                yield found


def write_trace(directory: Path, to: Path, steps: tuple[int, int] | None) -> tuple[int, int]:
    """Writes the trace of some steps, the first and the last included; returns how many ranks and steps it has.

    Raises UserError where there are none, or the file cannot be written.
    """
    by_rank = read_spans(directory)
    if not any(by_rank.values()):
        provenance.read_run_file(directory)  # where it is no run, that is what is wrong
        raise UserError(f"{directory}: has no spans yet; wait for the first step")
    recorded = sorted({step for lines in by_rank.values() for step in lines})
    first, last = steps or (recorded[0], recorded[-1])
    chosen = [step for step in recorded if first <= step <= last]
    if not chosen:
        raise UserError(f"--steps {first}:{last}: spans are there of steps {recorded[0]} to {recorded[-1]}")
    kept = {rank: [lines[step] for step in chosen if step in lines] for rank, lines in by_rank.items()}
    found = {"displayTimeUnit": "ms", "traceEvents": list(events(kept))}
    write_named(to, json.dumps(found).encode(), "--to")
    return len(kept), len(chosen)


def events(by_rank: Mapping[int, list[Line]]) -> Iterator[dict[str, Any]]:
    """The events of a trace: a track for the steps of the first rank, then one for each rank. Times in microseconds.

    >>> line = {"step": 3, "at": 12.0, "spans": [["generate", 10.0, 1.5]]}
    >>> [event for event in events({0: [line]}) if event["ph"] == "X"][-1]
    {'name': 'generate', 'cat': 'span', 'ph': 'X', 'ts': 0, 'dur': 1500000, 'pid': 1, 'tid': 0, 'args': {'step': 3}}
    """
    lines = [line for some in by_rank.values() for line in some]
    zero = min(min([line["at"], *(began for _, began, _ in line["spans"])]) for line in lines)

    def complete(name: str, kind: str, began: float, seconds: float, process: int, track: int, step: int) -> Any:
        at, long = round(1e6 * (began - zero)), round(1e6 * seconds)
        found = {"name": name, "cat": kind, "ph": "X", "ts": at, "dur": long, "pid": process, "tid": track}
        return found | {"args": {"step": step}}

    yield _named("process_name", "steps", STEPS, 0)
    yield _named("process_name", "ranks", RANKS, 0)
    for line in by_rank[min(by_rank)]:
        began = min([line["at"], *(began for _, began, _ in line["spans"])])
        yield complete(f"step {line['step']}", "step", began, line["at"] - began, STEPS, 0, line["step"])
    for rank, some in by_rank.items():
        yield _named("thread_name", f"rank {rank}", RANKS, rank)
        for line in some:
            for name, began, seconds in line["spans"]:
                yield complete(name, "span", began, seconds, RANKS, rank, line["step"])


def _named(what: str, name: str, process: int, track: int) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": process, "tid": track, "args": {"name": name}}
