"""The journal: metrics.jsonl, one line per step and per validation, which outlives any kill and is cut on resume.

A line is written by one call and is on the disk when `append` returns. Not covered: two runs in one directory.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from megatron_rl.runtime.files import replace_file

FILE_NAME = "metrics.jsonl"
HELD_OUT = "held_out"  # in a line about one sample: it was said in a validation
# A line: `step`, floats by the names of report/metrics.py, and `decisions` as texts where there were any.
Row = Mapping[str, Any]
Kinds = Mapping[str, type | tuple[type, ...]]
# What every line of a journal of metrics, of samples, of events has, key by kind.
OF_A_METRIC: Kinds = {"step": int}
OF_A_SAMPLE: Kinds = {
    "step": int,
    "domain": str,
    "prompt_id": str,
    "prompt": str,
    "response": str,
    "reward": (int, float),
}
OF_AN_EVENT: Kinds = {"attempt": int, "event": str, "at": (int, float)}


class Journal:
    """Owns the metrics file of a run directory; one process may write it."""

    def __init__(self, directory: Path, name: str = FILE_NAME) -> None:
        self.path = directory / name

    def append(self, row: Row) -> None:
        """Adds a line and waits until the disk has it. Raises RuntimeError where the disk does not take it."""
        append_line(self.path, row, is_synced=True)

    def resume(self, step: int) -> None:
        """Forgets what a run that goes on from `step` does again: later lines, and the validation at `step` itself."""
        if not self.path.exists():
            return
        kept = [row for row in self.rows() if row["step"] < step or (row["step"] == step and not is_validation(row))]
        replace_file(self.path, b"".join(json.dumps(row).encode() + b"\n" for row in kept))

    def rows(self) -> list[Row]:
        """Every whole line, oldest first, each with `step`."""
        return list(read_rows(self.path))


def append_line(path: Path, row: Row, *, is_synced: bool) -> None:
    """Adds a line to a file, and waits until the disk itself has it where `is_synced`. Raises RuntimeError."""
    line = json.dumps(row, allow_nan=False).encode() + b"\n"
    try:
        with path.open("ab", buffering=0) as file:
            if file.write(line) != len(line):
                raise OSError("half a line was written")
            if is_synced:
                os.fsync(file.fileno())
    except OSError as error:
        raise RuntimeError(
            f"{path}: could not be written ({error.strerror or error}); mend that and start again, the run goes on "
            "from its newest checkpoint"
        ) from None


def read_rows(path: Path, needed: Kinds = OF_A_METRIC) -> Iterator[Row]:
    """The lines of a journal; a last line that a kill cut short is left out.

    Raises RuntimeError for any other line that is no JSON object with what is `needed`, key by kind, and with finite
    numbers by the names of metrics.
    """
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # after the last newline there is nothing, or half a line
        try:
            row = json.loads(line, parse_constant=_refuse)
            _check(row, needed)
            yield row
        except (ValueError, RecursionError) as error:
            raise RuntimeError(
                f"{path}, line {number}: {error}; something else changed the file: mend that line, or remove it"
            ) from error


def _check(row: Any, needed: Kinds) -> None:
    """Raises ValueError where a line is not of the kind that the file's readers take for granted."""
    if not isinstance(row, dict):
        raise ValueError(f"a JSON {type(row).__name__}, and no object")
    for name, kind in needed.items():
        if not isinstance(row.get(name), kind):
            raise ValueError(f"{name} is {str(row.get(name))[:40]!r}" if name in row else f"it has no {name}")
    for name, value in row.items():
        if "/" in name and not (isinstance(value, int | float) and math.isfinite(value)):
            raise ValueError(f"{name} is {str(value)[:40]!r}, and no number")


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def is_validation(row: Row) -> bool:
    """True for a line that holds a validation, not a step."""
    # One without verdicts has no accuracy.
    return HELD_OUT in row or any(name.startswith("validation/") for name in row)
