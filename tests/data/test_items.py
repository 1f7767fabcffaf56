"""Data files: what is read, and the one line an unusable file ends in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.data.items import Item, read_items

ENTRY = {"question": "?", "answer": "olleh", "metadata": {"word": "hello"}}
MATH = {"id": "a", "domain": "math", "prompt": "2+3?", "item": {"answer": "5"}}
LOGIC = {"id": "b", "domain": "logic", "prompt": "hello", "item": {"task": "spell_backward", "entry": ENTRY}}


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


def test_items_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(lines(LOGIC, MATH))
    assert read_items(path) == (Item(**LOGIC), Item(**MATH))


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ("", 1, "the file is empty"),
        (lines(MATH) + "{\n", 2, "not JSON"),
        (lines(MATH) + "\n" + lines(LOGIC), 2, "an empty line"),
        (lines(MATH, [1]), 2, "a JSON list"),
        (lines(MATH, without(LOGIC, "prompt")), 2, "key 'prompt' is missing"),
        (lines(MATH, LOGIC | {"anser": 1}), 2, "unknown key 'anser'"),
        (lines(MATH, LOGIC | {"id": "a"}), 2, "id 'a' was used in line 1"),
        (lines(MATH | {"id": 3}), 1, "id is 3"),
        (lines(MATH | {"prompt": " "}), 1, "prompt is ' '"),
        (lines(MATH | {"domain": "maths"}), 1, "unknown domain 'maths'"),
        (lines(MATH | {"item": "5"}), 1, "item is a JSON str"),
        (lines(MATH | {"item": {"answer": ""}}), 1, "the answer of a math item"),
        (lines(MATH | {"item": {"answer": "5", "unit": "m"}}), 1, "the key 'answer' alone"),
        (lines(LOGIC | {"item": {"task": "spel", "entry": ENTRY}}), 1, "not one of reasoning-gym's"),
        (lines(LOGIC | {"item": {"task": "n_queens", "entry": ENTRY}}), 1, "executes the answer"),
        (lines(LOGIC | {"item": {"task": "spell_backward", "entry": ENTRY | {"answer": ""}}}), 1, "is a text"),
    ],
)
def test_a_line_that_can_not_be_meant_ends_in_one_line_that_names_it(
    tmp_path: Path, content: str, line: int, what: str
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError) as caught:
        read_items(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: ")
    assert what in message
    assert "; " in message, "the remedy"
    assert "\n" not in message


def test_bytes_that_are_no_text_are_named_by_their_line(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(lines(MATH).encode() + b'{"id": "\xff"}\n')
    with pytest.raises(ValueError, match=r"train\.jsonl:2: not UTF-8; "):
        read_items(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.jsonl: no such file; "):
        read_items(tmp_path / "train.jsonl")


def test_checking_data_imports_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "transformers", "reasoning_gym", "math_verify", "sympy"}
    program = f"import sys, megatron_rl.data.prompts; print(sorted({heavy!r} & sys.modules.keys()))"
    assert (
        subprocess.check_output([sys.executable, "-c", program], text=True, cwd=Path(__file__).parents[2]).strip()
        == "[]"
    )
