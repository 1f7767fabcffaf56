"""The GPU check starts anywhere, and whatever becomes of a phase is one line with a reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu
from benchmarks.gpu import PHASES, attempt

ROOT = Path(__file__).parents[2]
HAS_GPU = gpu.no_gpu() is None


def checked(*words: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and lines of the script."""
    done = subprocess.run([sys.executable, "benchmarks/gpu.py", *words], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


@pytest.mark.e2e
@pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU; tests/test_gpu.py runs the phases")
def test_without_a_gpu_every_phase_is_skipped_with_the_reason(tmp_path: Path) -> None:
    code, (machine, *phases) = checked("--results", str(tmp_path / "found.jsonl"))
    assert code == 0
    assert [phase["phase"] for phase in phases] == [phase.name for phase in PHASES] and len(phases) == 10
    assert all(phase["status"] == "skipped" and "no CUDA device" in phase["reason"] for phase in phases)
    assert machine["machine"]["card"] is None and machine["machine"]["versions"]["torch"]
    kept = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert kept == [machine, *phases]


def test_phases_are_chosen_by_name_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    _, lines = checked("--only", "attention", "--results", str(tmp_path / "found.jsonl"))
    assert [line["phase"] for line in lines[1:]] == ["attention"]
    assert checked("--only", "everything")[0] == 2


def test_a_spent_budget_leaves_the_rest_out(tmp_path: Path) -> None:
    words = ("--rehearse", "--only", "actor", "loop", "--budget", "0", "--results", str(tmp_path / "found.jsonl"))
    code, lines = checked(*words)
    assert code == 0
    assert all("budget of 0 s is spent" in line["reason"] for line in lines[1:]) and len(lines) == 3


def test_a_phase_that_crashes_costs_one_line() -> None:
    killed = attempt(python("import os; print('so far'); os.kill(os.getpid(), 11)"), 30)
    assert killed["status"] == "failed" and killed["reason"].startswith("exit code -11")
    raised = attempt(python("raise AssertionError('0.5 nats off')"), 30)
    assert raised["reason"] == "exit code 1: AssertionError: 0.5 nats off" and raised["log"]
    silent = attempt(python("pass"), 30)
    assert silent["status"] == "failed" and "no output" in silent["reason"]


@pytest.mark.e2e
def test_a_phase_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    child = "import time; time.sleep(600)"
    program = (
        "import subprocess, sys, pathlib, time\n"
        f"process = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"pathlib.Path({str(tmp_path / 'child')!r}).write_text(str(process.pid))\n"
        "time.sleep(600)"
    )
    found = attempt(python(program), 2)
    assert found["status"] == "timeout" and found["reason"] == "not done after 2 s"
    child_id = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5
    while is_running(child_id):
        assert time.monotonic() < deadline, "what the phase started is still running"
        time.sleep(0.05)


def is_running(process_id: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_what_a_phase_finds_is_its_line() -> None:
    program = 'import os, pathlib; pathlib.Path(os.environ[\'RESULT\']).write_text(\'{"status": "passed", "x": 1}\')'
    found = attempt(python(program), 30)
    assert (found["status"], found["x"]) == ("passed", 1) and found["seconds"] >= 0


def test_every_phase_has_its_function() -> None:
    from benchmarks.gpu_phases import FUNCTIONS

    assert list(FUNCTIONS) == [phase.name for phase in PHASES]
    assert all(FUNCTIONS[phase.name].__doc__ for phase in PHASES)


@pytest.mark.ranks
def test_a_phase_works_on_a_cpu_but_for_the_kernels(tmp_path: Path) -> None:
    words = ("--rehearse", "--only", "actor", "memory", "--results", str(tmp_path / "found.jsonl"))
    code, (machine, compared, measured) = checked(*words)
    assert code == 0 and machine["rehearsal"]
    assert compared["status"] == measured["status"] == "passed"
    assert 0 < compared["gap_mean_both"] < 0.03 and compared["gap_mean_both"] != compared["gap_mean_neither"]
    assert measured["as_published"]["update_mfu"] > 0 and os.cpu_count()
