"""Data files: what is read, and the one line an unusable file ends in."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from megatron_rl.data.items import Item, read_data, read_items
from megatron_rl.rewards.score import VERIFIERS

ENTRY = {"question": "?", "answer": "olleh", "metadata": {"word": "hello"}}
MATH = {"id": "a", "domain": "math", "prompt": "2+3?", "item": {"answer": "5"}}
LOGIC = {"id": "b", "domain": "logic", "prompt": "hello", "item": {"task": "spell_backward", "entry": ENTRY}}
TEST = {"input": "3\n", "output": "6\n"}
CODE = {"id": "c", "domain": "code", "prompt": "Double it.", "item": {"tests": [TEST]}}
CALLS = [{"arguments": [3], "returns": 6}]
CALL = {"id": "d", "domain": "code", "prompt": "Double it.", "item": {"function": "f", "tests": CALLS}}
STEM = {"id": "e", "domain": "stem", "prompt": "g?", "item": {"answer": "9.81", "unit": "m/s^2"}}
NO_COMMA = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
INSTRUCT = {"id": "f", "domain": "instruct", "prompt": "Say it.", "item": NO_COMMA}


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


def test_items_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    rows = (LOGIC, INSTRUCT, CODE, MATH, CALL, STEM)
    path.write_text(lines(*rows))
    assert read_items(path) == tuple(Item(**row) for row in rows)


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ("", 1, "the file is empty"),
        (lines(MATH) + "{\n", 2, "not JSON"),
        (lines(MATH) + "\n" + lines(LOGIC), 2, "an empty line"),
        (lines(MATH)[:-1] + lines(LOGIC), 1, "not JSON (Extra data at column"),
        (
            lines(MATH | {"item": 7}).replace("7", "7" * 5000),
            1,
            "a number of more than 4300 digits; write",
        ),
        (lines(MATH | {"item": {"a": 7}}).replace("7", "1e999"), 1, "1e999 is larger than a number can be"),
        (lines(MATH).replace('"id"', '"id": "b", "id"'), 1, "key 'id' is given twice"),
        (lines(MATH | {"item": {"answer": "half \ud800"}}), 1, "item has half a character"),
        (lines(MATH | {"domain": "m" * 10**6}), 1, "m ...; use one of math"),
        (lines(MATH, [1]), 2, "a JSON list"),
        (lines(MATH, without(LOGIC, "prompt")), 2, "key 'prompt' is missing"),
        (lines(MATH, LOGIC | {"anser": 1}), 2, "unknown key 'anser'"),
        (lines(MATH, LOGIC | {"id": "a"}), 2, "id 'a' was used in line 1"),
        (lines(MATH | {"id": 3}), 1, "id is 3"),
        (lines(MATH | {"prompt": " "}), 1, "prompt is ' '"),
        (lines(MATH | {"domain": "maths"}), 1, "unknown domain 'maths'"),
        (lines(MATH | {"item": "5"}), 1, "item is a JSON str"),
        (lines(MATH) + "[" * 100_000 + "\n", 2, "nests too deep"),
        (lines(MATH | {"item": {"answer": float("nan")}}), 1, "NaN is no number of JSON"),
        (lines(MATH | {"prompt": "half \ud800"}), 1, "prompt has half a character"),
        (lines(MATH | {"item": {"answer": ""}}), 1, "the answer of a math item"),
        (lines(MATH | {"item": {"answer": "\\frac{1}{2"}}), 1, "braces that do not close"),
        (lines(MATH | {"item": {"answer": "5", "unit": "m"}}), 1, "not ['answer', 'unit']"),
        (lines(MATH | {"item": {"answer": "5", "relative_tolerance": 0.5}}), 1, "relative_tolerance of a math item"),
        (lines(CODE | {"item": {}}), 1, "a code item has 'tests'"),
        (lines(CODE | {"item": {"tests": []}}), 1, "with one test or more"),
        (lines(CODE | {"item": {"tests": [TEST | {"output": 6}]}}), 1, "the output of test 1 is a text"),
        (lines(CODE | {"item": {"tests": [TEST | {"output": " "}]}}), 1, "a program that does nothing passes"),
        (lines(CODE | {"item": {"tests": CALLS}}), 1, "test 1 of a code item without a function"),
        (lines(CODE | {"item": {"tests": [TEST], "function": "f"}}), 1, "test 1 of a code item with a function"),
        (lines(CODE | {"item": {"tests": [TEST], "seconds": 0}}), 1, "the seconds of a code item"),
        (lines(STEM | {"item": {"answer": " "}}), 1, "the answer of a stem item"),
        (lines(STEM | {"item": {"answer": "fast", "unit": "m/s"}}), 1, "but is no number"),
        (lines(STEM | {"item": {"answer": "D", "choices": ["a", "b"]}}), 1, "is none of the choices ['A', 'B']"),
        (lines(STEM | {"item": {"answer": "A", "choices": ["a", ""]}}), 1, "choices are 2 to 26 texts"),
        (lines(LOGIC | {"item": {"task": "spel", "entry": ENTRY}}), 1, "not one of reasoning-gym's"),
        (lines(LOGIC | {"item": {"task": "composite", "entry": ENTRY}}), 1, "it wraps other tasks"),
        (lines(LOGIC | {"item": {"task": "spell_backward", "entry": {}}}), 1, "a logic entry has the keys"),
        (lines(LOGIC | {"item": {"task": "spell_backward", "entry": ENTRY | {"answer": ""}}}), 1, "is a text"),
        (lines(INSTRUCT | {"item": {"instruction_id_list": [], "kwargs": []}}), 1, "a list with an instruction in it"),
        (lines(INSTRUCT | {"item": NO_COMMA | {"kwargs": []}}), 1, "kwargs is a list of 1"),
        (lines(INSTRUCT | {"item": NO_COMMA | {"instruction_id_list": ["no_commas"]}}), 1, "unknown instruction"),
        (lines(INSTRUCT | {"item": NO_COMMA | {"instruction_id_list": [{}]}}), 1, "unknown instruction {}"),
        (lines(INSTRUCT | {"item": NO_COMMA | {"kwargs": [{"n": 1}]}}), 1, "has the kwargs [], not ['n']"),
        (lines(INSTRUCT | {"item": NO_COMMA | {"mode": "lose"}}), 1, "mode is 'lose'"),
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


@pytest.mark.parametrize("length", range(1, len(json.dumps(MATH))))
def test_a_line_that_was_cut_off_is_said_to_end_there(tmp_path: Path, length: int) -> None:
    path = tmp_path / "train.jsonl"
    for end in ("", "\n", "\r\n"):
        path.write_bytes(f"{json.dumps(MATH)[:length].rstrip()}{end}".encode())
        column = len(json.dumps(MATH)[:length].rstrip())
        with pytest.raises(ValueError, match=rf"train\.jsonl:1: not JSON \(the line ends at column {column}, before"):
            read_items(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress(lines(MATH).encode()), "packed by gzip; unpack the file"),
        (zstandard.compress(lines(MATH).encode()), "packed by zstd; unpack the file, or name it .jsonl.zst"),
        (lines(MATH).encode("utf-16"), "UTF-16; save the file as UTF-8"),
        (lines(MATH).encode("utf-16-be"), "not JSON"),
        (b"PAR1\x15\x04\xff\xfe", "a parquet file; write its rows as JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS; run `git lfs pull`"),
    ],
    ids=["gzip", "zstd", "utf-16", "utf-16-be", "parquet", "git-lfs"],
)
def test_a_file_of_another_kind_is_named_as_what_it_is(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "train.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=rf"train\.jsonl:1: {what}"):
        read_items(tmp_path / "train.jsonl")


def test_what_editors_on_windows_add_harms_nobody(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + lines(MATH, LOGIC).replace("\n", "\r\n").encode())
    assert [item.id for item in read_items(path)] == [MATH["id"], LOGIC["id"]]
    assert read_items(path)[0].opened() == MATH["item"]


def test_bytes_that_are_no_text_are_named_by_their_line(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(lines(MATH).encode() + b'{"id": "\xff"}\n')
    with pytest.raises(ValueError, match=r"train\.jsonl:2: not UTF-8; "):
        read_items(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.jsonl: there is no such file; "):
        read_items(tmp_path / "train.jsonl")


def test_the_items_that_the_documentation_shows_are_accepted() -> None:
    page, shown = (Path(__file__).parents[2] / "docs" / "data.md").read_text(), dict.fromkeys(VERIFIERS, 0)
    for section in page.split("\n## ")[1:]:
        domain, _, text = section.partition("\n")
        for example in re.findall(r"^\{.*\}$", text, re.MULTILINE) if domain in VERIFIERS else ():
            VERIFIERS[domain].check_item(json.loads(example))
            shown[domain] += 1
    assert min(shown.values()) >= 1, shown


def test_checking_data_imports_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "transformers", "reasoning_gym", "math_verify", "sympy"}
    program = f"import sys, megatron_rl.data.prompts; print(sorted({heavy!r} & sys.modules.keys()))"
    assert (
        subprocess.check_output([sys.executable, "-c", program], text=True, cwd=Path(__file__).parents[2]).strip()
        == "[]"
    )


def test_validation_prompts_that_are_trained_on_are_counted_by_domain(tmp_path: Path) -> None:
    stem = MATH | {"id": "s", "domain": "stem"}
    held_out = [
        MATH | {"id": "1", "prompt": f" {MATH['prompt']}\n"},
        MATH | {"id": "2", "prompt": "a prompt of its own"},
        stem,
    ]
    (tmp_path / "train.jsonl").write_text(lines(MATH, stem | {"prompt": "another"}))
    (tmp_path / "validation.jsonl").write_text(lines(*held_out))
    data = read_data(tmp_path)
    assert data.overlap() == {"math": (1, 2)}
    assert data.of({"stem"}).overlap() == {}
