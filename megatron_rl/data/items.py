"""The problems of a data file: JSON lines, checked before a run starts.

A data folder holds train.jsonl and validation.jsonl. A line is
`{"id": unique text, "domain": "math" | "logic", "prompt": what the model reads, "item": what the verifier reads}`.

| domain | item |
|---|---|
| math | `{"answer": "5"}`: the reference answer, in LaTeX where it is not a plain number |
| logic | `{"task": "spell_backward", "entry": {"question": .., "answer": .., "metadata": ..}}`, of reasoning-gym |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_rl.rewards.score import VERIFIERS

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

    Raises ValueError `path:line: what is wrong; remedy` at the first line that can not be meant.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; a data folder holds train.jsonl and validation.jsonl")
    items: list[Item] = []
    lines: dict[str, int] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                item = _parse(line)
                if item.id in lines:
                    raise ValueError(f"id '{item.id}' was used in line {lines[item.id]}; rename one of the two")
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from None
            lines[item.id] = number
            items.append(item)
    if not items:
        raise ValueError(f"{path}:1: the file is empty; write one problem a line")
    return tuple(items)


def _parse(line: bytes) -> Item:
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        wrong = "an empty line" if not line.strip() else f"not JSON ({error.msg} at column {error.colno})"
        raise ValueError(f"{wrong}; write one JSON object a line") from None
    if not isinstance(row, dict):
        raise ValueError(f"a JSON {type(row).__name__}; write one JSON object a line")
    if missing := [key for key in _KEYS if key not in row]:
        raise ValueError(f"key '{missing[0]}' is missing; a line has {', '.join(_KEYS)}")
    if extra := sorted(row.keys() - set(_KEYS)):
        raise ValueError(f"unknown key '{extra[0]}'; a line has {', '.join(_KEYS)}")
    for key in ("id", "domain", "prompt"):
        if not isinstance(row[key], str) or not row[key].strip():
            raise ValueError(f"{key} is {row[key]!r}; write a text that is not empty")
    if row["domain"] not in VERIFIERS:
        raise ValueError(f"unknown domain '{row['domain']}'; use one of {', '.join(VERIFIERS)}")
    if not isinstance(row["item"], dict):
        raise ValueError(f"item is a JSON {type(row['item']).__name__}; write an object as docs/data.md says")
    VERIFIERS[row["domain"]].check_item(row["item"])
    return Item(**row)
