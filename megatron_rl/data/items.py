r"""The problems of a data file: JSON lines, checked before a run starts.

A data folder holds train.jsonl and validation.jsonl. A line is
`{"id": unique text, "domain": which verifier judges, "prompt": what the model reads, "item": what the verifier reads}`.

| domain | item |
|---|---|
| math | `{"answer": "5"}`: the reference answer, in LaTeX where it is not a plain number |
| code | `{"tests": [{"input": "3\n", "output": "6\n"}]}`, or `function` and tests of `arguments` and `returns` |
| stem | `{"answer": "B"}`, perhaps with `choices`; `{"answer": "9.81", "unit": "m/s^2", "relative_tolerance": 0.01}` |
| logic | `{"task": "spell_backward", "entry": {"question": .., "answer": .., "metadata": ..}}`, of reasoning-gym |
| instruct | `{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}`, of IFEval |

docs/data.md says all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_rl.config.checks import UserError
from megatron_rl.rewards.rows import parse_row

_KEYS = ("id", "domain", "prompt", "item")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One problem of a data file."""

    id: str
    domain: str
    prompt: str  # before the chat template
    item: Mapping[str, Any]  # the verifier's own


def read_items(path: Path) -> tuple[Item, ...]:
    """The problems of a JSON lines file, in its order.

    Raises UserError `path:line: what is wrong; remedy` at the first line that cannot be meant.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; a data folder holds train.jsonl and validation.jsonl")
    items: list[Item] = []
    lines: dict[str, int] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                item = _parse(line)
                if item.id in lines:
                    raise UserError(f"id '{item.id}' was used in line {lines[item.id]}; rename one of the two")
            except ValueError as error:
                raise UserError(f"{path}:{number}: {error}") from None
            lines[item.id] = number
            items.append(item)
    if not items:
        raise UserError(f"{path}:1: the file is empty; write one problem a line")
    return tuple(items)


def _parse(line: bytes) -> Item:
    row = parse_row(line, _KEYS)
    if not row["prompt"].strip():
        raise UserError(f"prompt is {row['prompt']!r}; write a text that is not empty")
    for key in ("id", "prompt"):
        try:
            row[key].encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{key} has half a character, {row[key][error.start]!r}; write whole ones") from None
    return Item(**row)
