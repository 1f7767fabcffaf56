"""Where a benchmark's rows lie, and the rows themselves, read as those of training sources are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from megatron_rl.config.checks import UserError
from megatron_rl.config.suites import Rows
from megatron_rl.data.origins import chunks, locate

REPOSITORY = Path(__file__).resolve().parents[3]


def rows_of(rows: Rows, mirror: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(`file:number`, row) of every row of a data set, from this repository, a mirror folder or the hub.

    Raises UserError where a file is missing or cannot be read, RuntimeError where the hub cannot be reached.
    """
    place = mirror if rows.revision else REPOSITORY
    otherwise = "ask a suite without its benchmarks"
    files = locate(rows, place, (), otherwise)
    paths = dict(files)
    for chunk in chunks(rows.name, files, ()):
        found = chunk.lines if chunk.lines is not None else chunk.table.to_pylist()
        for number, row in enumerate(found, start=chunk.first):
            where = f"{paths[chunk.file]}:{number}"
            yield where, row if isinstance(row, dict) else _object(row, where)


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is no JSON ({error}); fetch the file again") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: is a JSON {type(row).__name__}, not an object; fetch the file again")
    return row
