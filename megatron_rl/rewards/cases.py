"""Verdicts on stored responses: a file of cases in, a line of JSON for each out, in order and in bounded memory.

A case is a line `{"id": .., "domain": .., "response": .., "item": ..}`, its item as in a data file, with
`"opens_thought": true` where the prompt ended within a thought; see docs/data.md. Several cases may have the same id,
as the responses to one problem do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from megatron_rl.config.checks import UserError, require
from megatron_rl.config.words import lack
from megatron_rl.rewards.own import read_sources
from megatron_rl.rewards.rows import parse_row
from megatron_rl.rewards.score import Case, Scorer

CASES_AT_ONCE = 512  # they are held in memory

_KEYS, _FLAGS = ("id", "domain", "response", "item"), ("opens_thought",)


def check_cases(path: Path, output: Path | None) -> dict[str, str]:
    """Reads the whole file, so that a job does not end at its last line; `output` is where the verdicts shall go.

    Raises UserError `path:line: what is wrong; remedy` at the first line that cannot be meant.
    """
    if output is not None:
        require(output.resolve() != path.resolve(), f"--output {output}: is the file of the cases; name another")
        require(not output.is_dir(), f"--output {output}: {lack(output, 'file')}; name another")
        folder = output.parent
        require(folder.is_dir(), f"--output {output}: {folder}: {lack(folder, 'folder')}; make it, or name another")
    require(path.is_file(), f"{path}: {lack(path, 'file')}; give a file with one case a line")
    domains = {row["domain"] for row in _cases(path)}
    if not domains:
        raise UserError(f"{path}:1: the file is empty; write one case a line")
    try:
        return read_sources(path.parent, domains)
    except ValueError as error:
        raise UserError(str(error)) from None


def score_cases(path: Path, scorer: Scorer) -> Iterator[str]:
    """The lines `{"id": .., "score": .., "outcome": .., "detail": ..}`, in the order of the cases.

    Raises UserError as `check_cases`, and RuntimeError where a verifier cannot be started.
    """
    rows = _cases(path)
    while batch := list(islice(rows, CASES_AT_ONCE)):
        verdicts = scorer.score(
            [Case(row["domain"], row["response"], row["item"], row["opens_thought"]) for row in batch]
        )
        for row, verdict in zip(batch, verdicts, strict=True):
            found = {"score": verdict.score, "outcome": verdict.outcome, "detail": verdict.detail}
            yield json.dumps({"id": row["id"], **found})


def _cases(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield parse_row(line, _KEYS, _FLAGS)
            except ValueError as error:
                raise UserError(f"{path}:{number}: {error}") from None
