"""Samples: samples.jsonl, a few of what the model said in each step and validation, for a person to read.

A file's size is bounded before the run begins: the longer the run, the shorter its texts, though never shorter than
MIN_CHARACTERS.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from megatron_rl.config.run import Run
from megatron_rl.report.journal import HELD_OUT, Journal, append_line
from megatron_rl.types import Batch, Collected, Example

FILE_NAME = "samples.jsonl"
MAX_FILE_BYTES = 256_000_000  # of a whole run, where a character is a byte
MIN_CHARACTERS, MAX_CHARACTERS = 400, 4000  # of a prompt or a response; the middle of a longer one is left out
SHORT_CHARACTERS = 500  # of a reference answer and of a verdict's detail
PAGE_BYTES, PAGE_CHARACTERS = 700_000, 2500  # on the page: of all samples, and of one text


class Samples:
    """Owns the file of a run directory, and what the page shows of it."""

    def __init__(self, run: Run) -> None:
        self.journal = Journal(run.directory, FILE_NAME)
        num_times = run.recipe.num_steps + run.recipe.num_steps // run.validate_every_steps + 2
        rows = num_times * len(run.recipe.domains) * max(run.samples_per_domain, 1)
        self.characters = max(MIN_CHARACTERS, min(MAX_CHARACTERS, MAX_FILE_BYTES // (3 * rows)))
        self._shown = _Shown()

    def resume(self, step: int) -> None:
        """Forgets the samples of steps that are done again."""
        self.journal.resume(step)
        self._shown = _Shown()
        for row in self.journal.rows():
            self._shown.add(row)

    def add(self, step: int, collected: Collected, batch: Batch) -> None:
        """Writes the examples of the step that led to `step`; the disk has them when this returns."""
        self._write(
            [
                self._row(step, example) | {"advantage": advantage_of(example, collected, batch)}
                for example in collected.examples
            ]
        )

    def add_validation(self, step: int, examples: Sequence[Example]) -> None:
        """Writes the examples of the validation after `step` steps; they train nothing."""
        self._write([self._row(step, example) | {"advantage": None, HELD_OUT: True} for example in examples])

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            append_line(self.journal.path, row, is_synced=row is rows[-1])
            self._shown.add(row)

    def _row(self, step: int, example: Example) -> dict[str, Any]:
        return {
            "step": step,
            "domain": example.prompt.domain,
            "prompt_id": example.prompt.id,
            "prompt": clipped(example.prompt_text, self.characters),
            "response": clipped(example.response, self.characters),
            "answer": clipped(reference_answer(example.prompt.item), SHORT_CHARACTERS),
            "reward": example.reward,
            "outcome": example.outcome,
            "detail": clipped(example.detail, SHORT_CHARACTERS),
            "length": example.num_tokens,
            "truncated": example.is_truncated,
            "policy_version": example.policy_version,
        }

    @property
    def shown(self) -> list[dict[str, Any]]:
        """What the page shows, oldest first."""
        return self._shown.rows


class _Shown:
    """The newest samples that fit on a page; of a prompt met before, how an earlier policy did."""

    def __init__(self) -> None:
        self._rows: deque[tuple[int, dict[str, Any]]] = deque()
        self._bytes = 0
        self._verdicts: dict[str, tuple[int, float]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        earlier = self._verdicts.get(row["prompt_id"])
        has_changed = earlier is not None and earlier[0] < row["step"] and earlier[1] != row["reward"]
        self._verdicts[row["prompt_id"]] = row["step"], row["reward"]
        texts = {name: clipped(row[name], PAGE_CHARACTERS) for name in ("prompt", "response")}
        shown = {**row, **texts, "earlier": list(earlier) if earlier and has_changed else None}
        size = len(json.dumps(shown))
        self._rows.append((size, shown))
        self._bytes += size
        while self._bytes > PAGE_BYTES:
            self._bytes -= self._rows.popleft()[0]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for _, row in self._rows]


def shown_of(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a page shows of a file of samples, oldest first."""
    shown = _Shown()
    for row in rows:
        shown.add(row)
    return shown.rows


def advantage_of(example: Example, collected: Collected, batch: Batch) -> float | None:
    """What the sample was trained with; None where its group was dropped."""
    places = [i for i, prompt in enumerate(collected.groups.prompts) if prompt.serial == example.prompt.serial]
    if not places or batch.advantages is None:
        return None
    return float(batch.advantages[places[0], example.sample])


def clipped(text: str, limit: int) -> str:
    """At most `limit` characters, from the beginning and the end.

    >>> clipped("short", 40), clipped("a" * 50 + "b" * 50, 40)
    ('short', 'aaaaa … 90 characters left out … bbbbb')
    """
    if len(text) <= limit:
        return text
    note = f" … {len(text)} characters left out … "
    half = max((limit - len(note)) // 2, 0)
    return f"{text[:half]} … {len(text) - 2 * half} characters left out … {text[len(text) - half :]}"


def reference_answer(item: Mapping[str, Any]) -> str:
    """What the verifier holds a response against, as text."""
    entry = item.get("entry", item)
    answer = entry.get("answer", item) if isinstance(entry, Mapping) else item
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
