"""Rows of IFEval: a prompt, and the instructions in it by name, with their arguments."""

from __future__ import annotations

from typing import Any

from megatron_rl.evaluation.benchmarks.columns import Row, need, shown, text


def ifeval(row: Row, number: int) -> dict[str, Any]:
    """`key`, `prompt`, `instruction_id_list`, `kwargs`, whose nulls are fillings of a table and not arguments."""
    identifiers, arguments = need(row, "instruction_id_list"), need(row, "kwargs")
    for column, value in (("instruction_id_list", identifiers), ("kwargs", arguments)):
        if not isinstance(value, list):
            raise ValueError(f"column '{column}' is {shown(value)}; the published rows have a list there")
    given = [
        {name: value for name, value in one.items() if value is not None} if isinstance(one, dict) else one
        for one in arguments
    ]
    return {
        "id": str(need(row, "key")),
        "domain": "instruct",
        "prompt": text(row, "prompt"),
        "item": {"instruction_id_list": identifiers, "kwargs": given},
    }
