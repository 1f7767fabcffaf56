"""The GPU table of docs/performance.md is made from lines of the check, and from no others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_table import HEAD, NOT_MEASURED, ROWS, read_lines, table_lines

ROOT = Path(__file__).parents[2]
MACHINE = {
    "date": "2031-02-03T04:05:06+00:00", "card": "a card, 80 GiB", "driver": "1.2", "commit": "abc1234",
    "python": "3.12", "versions": {"torch": "9.8", "vllm": "7.6"},
}  # fmt: skip
FIRST = {"machine": MACHINE, "rehearsal": False, "gpu": "present"}
PHASES: list[dict[str, Any]] = [
    {"phase": "memory", "status": "passed", "matrix_product_flops": 8e14,
     "as_published": {"update_mfu": 0.474, "update_peak_gib": 61.25}},
    {"phase": "engine", "status": "passed", "to_rollouts_seconds_0": 3.0, "to_rollouts_seconds_1": 0.42,
     "bytes_moved": 3_554_000_000, "copy_floor_seconds": 0.3},
    {"phase": "mismatch", "status": "passed", "logits_neither_rope_plain_T1.0": {"mean_nats": 0.5},
     "logits_both_rope_plain_T1.0": {"mean_nats": 0.0021}, "logits_both_rope_plain_T1.2": {"mean_nats": 0.0034}},
    {"phase": "determinism", "status": "passed", "plain": {"same_bits": False, "update_seconds": 2.0},
     "deterministic": {"same_bits": True, "update_seconds": 2.5}},
]  # fmt: skip
FOUND = [
    "47% of 800 TFLOP/s; 61.2 GiB at most",
    "0.42 s for 3.6 GB, 1.4 times the copy",
    "0.0034 nats at most, of 2 settings with fp32 logits on both sides",
    "+25%; the same bits again, without it other bits",
    NOT_MEASURED,
]


def written(path: Path, first: Any, *phases: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in (first, *phases)))
    return path


def measured(table: list[str]) -> list[str]:
    return [row.split(" | ")[2].removesuffix(" |") for row in table if row.startswith("| ")][1:]


def test_each_row_says_what_its_phase_measured(tmp_path: Path) -> None:
    table = table_lines(*read_lines(written(tmp_path / "gpu.jsonl", FIRST, *PHASES)))
    assert table[0] == "a card, 80 GiB, driver 1.2, 2031-02-03, commit abc1234; torch 9.8, vllm 7.6."
    assert measured(table) == FOUND


def test_a_phase_that_did_not_pass_says_why_and_one_that_did_not_run_is_not_measured(tmp_path: Path) -> None:
    phases = [{"phase": "memory", "status": "timeout", "reason": "not done | after 150 s"}, PHASES[1]]
    table = table_lines(*read_lines(written(tmp_path / "gpu.jsonl", FIRST, *phases)))
    assert measured(table) == ["timeout: not done / after 150 s", FOUND[1], *[NOT_MEASURED] * 3]
    ended = {**PHASES[3], "deterministic": {"status": "failed", "reason": "exit code 1"}}
    assert measured(table_lines(MACHINE, {"determinism": ended}))[3] == "failed: exit code 1"


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (FIRST | {"rehearsal": True}, "has no figures of a GPU"),
        (FIRST | {"gpu": "no CUDA device"}, "has no figures of a GPU"),
        ({"step": 1}, "is no file of benchmarks/gpu.py's lines"),
        ([], "is no file of benchmarks/gpu.py's lines"),
    ],
)
def test_other_lines_are_refused(first: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_lines(written(tmp_path / "gpu.jsonl", first, *PHASES))
    with pytest.raises(ValueError, match="is no file of"):
        read_lines(tmp_path / "none.jsonl")


def test_the_page_has_the_rows_of_the_table() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    rows = page.partition("\n".join(HEAD))[2].strip().splitlines()[: len(ROWS)]
    assert [row.split(" | ")[:2] for row in rows] == [[f"| {what}", aim] for what, aim, *_ in ROWS]


def test_the_option_prints_the_table_and_refuses_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--table", str(written(tmp_path / "gpu.jsonl", FIRST, *PHASES))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, measured(done.stdout.splitlines())) == (0, FOUND), done.stderr
    done = subprocess.run([*command[:-1], str(tmp_path / "none")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.strip().splitlines()[-1].endswith("give its --results")
    old = written(tmp_path / "old.jsonl", FIRST, {"phase": "memory", "status": "passed"})
    done = subprocess.run([*command[:-1], str(old)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "lacks 'as_published'; run this version" in done.stderr
