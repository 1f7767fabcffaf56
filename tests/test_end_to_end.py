"""Whole runs by the command line, on the real engines: they learn, survive a kill, and any layout gives the same."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.report.ledger import read_attempts
from megatron_rl.report.metrics import MEASURED, METRICS, checked
from megatron_rl.runtime.preempt import REQUEUE_EXIT_CODE
from megatron_rl.runtime.rundir import SHARED_MEMORY, shared_memory_name
from tests.report import browser

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[1]
OF_FP16 = {"actor/loss_scale", "actor/overflows_count"}  # tests/report/test_metrics.py has them
NUM_STEPS = 6
SETTINGS = {
    "num_steps": NUM_STEPS,
    "run.validate_every_steps": 3,
    "run.save_every_steps": 2,
    "run.max_validation_prompts": 40,
}

Row = dict[str, Any]


class Training:
    """`megatron-rl train` in a process of its own, its output kept in a file."""

    def __init__(
        self, directory: Path, scale: str = "cpu", recipe: str = "prorl_v2", parent: Path | None = None, **settings: Any
    ) -> None:
        self.directory = directory
        words = ["--parent", str(parent)] if parent is not None else []
        words += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        self.output = directory.with_suffix(".log")
        self.began = time.time()
        with self.output.open("a") as output:
            self.start_of_output = output.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "megatron_rl", "train", recipe, "--scale", scale]
                + ["--directory", str(directory), *words],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, timeout_seconds: float = 600) -> int:
        return self.process.wait(timeout_seconds)

    def wait_for_step(self, step: int) -> None:
        for _ in range(6000):
            if any(int(done) >= step for done in re.findall(r"step +(\d+)/\d+  reward", self.said())):
                return
            assert self.process.poll() is None, self.tail()
            time.sleep(0.05)
        raise AssertionError(f"step {step} was not reached:\n{self.tail()}")

    def said(self) -> str:
        """What this attempt has said, without those before it in the same directory."""
        return self.output.read_bytes()[self.start_of_output :].decode()

    def tail(self) -> str:
        return self.output.read_text()[-3000:]


@contextmanager
def training(directory: Path, *how: Any, **settings: Any) -> Iterator[Training]:
    """A training that does not outlive its test."""
    run = Training(directory, *how, **settings)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.kill()  # its ranks die with it
            run.process.wait()


def finished(directory: Path, *how: Any, **settings: Any) -> Training:
    with training(directory, *how, **settings) as run:
        assert run.wait() == 0, run.tail()
    return run


def rows(directory: Path) -> list[Row]:
    """The whole lines of a run's metrics."""
    path = directory / "metrics.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def steps(directory: Path) -> list[Row]:
    return [row for row in rows(directory) if "actor/loss" in row]


def validations(directory: Path) -> list[Row]:
    return [row for row in rows(directory) if "validation/accuracy" in row]


def repeatable(directory: Path) -> list[Row]:
    """The metrics that must be equal, to the bit, in a run and its repetition."""
    return [{name: value for name, value in row.items() if not name.startswith(MEASURED)} for row in rows(directory)]


def final_weights(directory: Path) -> dict[str, str]:
    """A digest of each rank's whole checkpoint: weights, reference, optimizer."""
    import torch

    from tests.test_checkpoint import digest

    files = sorted((directory / "checkpoints" / f"step_{NUM_STEPS:06d}").glob("*.pt"))
    return {file.name: digest(torch.load(file, weights_only=True)) for file in files}


def descendants(pid: int) -> list[int]:
    """Every process under this one, at any depth."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found = list(children.get(pid, []))
    for child in found:
        found += children.get(child, [])
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def alive_after(pids: list[int], seconds: float) -> list[int]:
    """Which of the processes are still there after at most so long."""
    deadline = time.monotonic() + seconds
    while (left := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def shared_memory(directory: Path) -> list[str]:
    return [path.name for path in SHARED_MEMORY.glob("*") if shared_memory_name(directory) in path.name]


def interrupted(directory: Path, after_step: int, how: Callable[[Training], None]) -> dict[str, Any]:
    """Starts a run, or goes on with it, and ends it in the middle; what was seen on the way."""
    with training(directory, **SETTINGS) as run:
        run.wait_for_step(after_step)
        below = descendants(run.process.pid)
        how(run)
        found: dict[str, Any] = {"code": run.wait(60), "num_processes": len(below)}
        found |= {"seconds": time.time() - run.began, "left": alive_after(below, 10)}
    return found | {
        "output": run.said(),
        "steps_before": len(steps(directory)),
        "shared_memory": shared_memory(directory),
        "page": (directory / "report.html").read_bytes(),
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(runs: Path) -> Training:
    """The run that nobody stops."""
    return finished(runs / "whole", **SETTINGS)


@pytest.fixture(scope="module")
def interruptions(runs: Path) -> dict[str, dict[str, Any]]:
    """One run that is interrupted three times and then goes on to its end; what was seen of each attempt."""
    directory = runs / "interrupted"
    found = {
        "stopped": interrupted(directory, 1, lambda run: run.process.send_signal(signal.SIGINT)),
        "killed": interrupted(directory, 3, lambda run: os.killpg(run.process.pid, signal.SIGKILL)),
        "told": interrupted(directory, 4, lambda run: run.process.send_signal(signal.SIGUSR1)),
    }
    last = finished(directory, **SETTINGS)
    seconds = time.time() - last.began
    return found | {"last": {"output": last.said(), "directory": directory, "seconds": seconds}}


def test_every_step_and_every_validation_has_one_line_of_declared_metrics(whole: Training) -> None:
    assert [row["step"] for row in steps(whole.directory)] == list(range(1, NUM_STEPS + 1))
    assert [row["step"] for row in validations(whole.directory)] == [0, 3, 6]
    for row in rows(whole.directory):
        checked({name: value for name, value in row.items() if name not in ("step", "decisions")})
    unused = {name for name in METRICS if not any(name in row for row in rows(whole.directory))}
    assert unused == OF_FP16, "declared, but no step of a run gives it"


def test_metrics_are_what_their_names_say(whole: Training) -> None:
    for row in steps(whole.directory):
        assert 0 < row["rollout/reward_mean"] < 1
        # A step of few prompts may have met one domain only.
        per_domain = [value for name, value in row.items() if name.startswith("rollout/reward_mean/")]
        assert min(per_domain) <= row["rollout/reward_mean"] <= max(per_domain)
        assert row["dynamic_sampling/trained_count"] <= 6 <= row["dynamic_sampling/tried_count"]
        assert 0 < row["rollout/response_tokens_mean"] <= row["rollout/response_tokens_max"] <= 24
        assert row["rollout/unjudged_fraction"] == 0
        assert row["mismatch/mean_nats"] < 1e-5 < row["actor/gradient_norm"]
        assert row["actor/learning_rate"] == 3e-5
        times = {name: value for name, value in row.items() if name.startswith("time/")}
        phases = sum(value for name, value in times.items() if name != "time/step_seconds" and "verifier" not in name)
        assert phases == pytest.approx(row["time/step_seconds"])
    samples = [row["run/samples_count"] for row in steps(whole.directory)]
    tried = [row["dynamic_sampling/tried_count"] * 16 for row in steps(whole.directory)]
    assert samples == [sum(tried[: i + 1]) for i in range(NUM_STEPS)]


def test_the_newest_checkpoints_are_there(whole: Training) -> None:
    folders = sorted(path.name for path in (whole.directory / "checkpoints").iterdir())
    assert folders == ["step_000004", "step_000006"]
    manifest = json.loads((whole.directory / "checkpoints" / "step_000006" / "manifest.json").read_text())
    assert manifest["state"]["step"] == NUM_STEPS
    assert manifest["state"]["samples_seen"] == steps(whole.directory)[-1]["run/samples_count"]
    assert [one["step"] for one in manifest["state"]["scores"]] == [0, 3]  # the last validation comes after the save


def test_the_report_and_its_picture_are_there(whole: Training) -> None:
    page = (whole.directory / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html") and "prorl_v2" in page and "finished" in page
    assert (whole.directory / "report.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((whole.directory / "run.json").read_text())


def test_the_run_ends_by_saying_what_it_came_to_and_where_it_is(whole: Training) -> None:
    output = whole.output.read_text()
    assert f"{NUM_STEPS} of {NUM_STEPS} steps done" in output
    ending = output[output.index("run directory") :]
    for name in ("report.html", "report.png", "metrics.jsonl", "run.json"):
        assert str(whole.directory / name) in ending
    assert "Traceback" not in output
    assert output.count(" validation accuracy ") == 3


def test_a_run_leaves_no_shared_memory(whole: Training) -> None:
    assert shared_memory(whole.directory) == []


def test_a_killed_run_leaves_no_process(interruptions: dict[str, Any]) -> None:
    killed = interruptions["killed"]
    assert killed["code"] == -signal.SIGKILL
    assert killed["num_processes"] >= 4  # two ranks, a verifier each
    assert killed["left"] == []


def test_ctrl_c_leaves_no_process_and_no_shared_memory(interruptions: dict[str, Any]) -> None:
    stopped = interruptions["stopped"]
    assert stopped["code"] == 130
    assert "Ctrl-C: start the same command again to go on" in stopped["output"]
    assert stopped["num_processes"] >= 4
    assert stopped["left"] == []
    assert stopped["shared_memory"] == []
    assert "Traceback" not in stopped["output"]


def test_a_run_that_is_told_to_leave_saves_and_asks_to_be_requeued(interruptions: dict[str, Any]) -> None:
    told = interruptions["told"]
    assert told["code"] == REQUEUE_EXIT_CODE
    assert "SIGUSR1 was received" in told["output"]
    assert "Traceback" not in told["output"]
    assert told["left"] == [] and told["shared_memory"] == []
    assert told["steps_before"] < NUM_STEPS
    assert f"going on from step {told['steps_before']} of {NUM_STEPS}" in interruptions["last"]["output"]


def test_an_interrupted_run_goes_on_from_its_newest_checkpoint(interruptions: dict[str, Any]) -> None:
    stopped, killed, told = (interruptions[name] for name in ("stopped", "killed", "told"))
    assert 0 < stopped["steps_before"] < NUM_STEPS and 2 < killed["steps_before"] < NUM_STEPS
    assert f"going on from step {stopped['steps_before']} of {NUM_STEPS}" in killed["output"], "Ctrl-C saves"
    last_save = max(stopped["steps_before"], killed["steps_before"] // 2 * 2)
    assert f"going on from step {last_save} of {NUM_STEPS}" in told["output"]


def test_a_run_that_was_interrupted_ends_bit_identical_to_one_that_was_not(
    whole: Training, interruptions: dict[str, Any]
) -> None:
    directory = interruptions["last"]["directory"]
    assert repeatable(directory) == repeatable(whole.directory)
    weights = final_weights(whole.directory)
    assert list(weights) == ["rank_00000.pt", "rank_00001.pt"]
    assert final_weights(directory) == weights


def test_an_interrupted_run_has_the_samples_of_one_that_was_not(whole: Training, interruptions: dict[str, Any]) -> None:
    found, expected = (
        (directory / "samples.jsonl").read_text() for directory in (interruptions["last"]["directory"], whole.directory)
    )
    assert found == expected
    every = [json.loads(line) for line in expected.splitlines()]
    rows = [row for row in every if "held_out" not in row]
    held_out = [row for row in every if "held_out" in row]
    assert {row["step"] for row in held_out} == {0, 3, 6}
    assert all(row["policy_version"] == row["step"] and row["advantage"] is None for row in held_out)
    assert len({row["prompt_id"] for row in held_out}) == 4, "the same two of both domains each time"
    assert {row["step"] for row in rows} == set(range(1, NUM_STEPS + 1))
    counts = Counter((row["step"], row["domain"]) for row in rows)
    assert max(counts.values()) == 2 and {domain for _, domain in counts} == {"math", "logic"}
    assert all(row["response"] and row["prompt"] and row["policy_version"] == row["step"] - 1 for row in rows)
    assert any(row["advantage"] not in (None, 0) for row in rows)


def test_the_ledger_has_the_wall_time_of_every_attempt(interruptions: dict[str, Any]) -> None:
    attempts = read_attempts(interruptions["last"]["directory"])[:4]  # another test may have started it again
    assert len(attempts) == 4 and attempts[-1].why == "finished"
    inside = [sum(attempt.parts.values()) - attempt.parts["waiting"] for attempt in attempts]
    outside = [found["seconds"] for found in interruptions.values()]
    assert sum(inside) == pytest.approx(sum(outside), rel=0.02)
    assert attempts[1].parts["cut_off"] + attempts[1].parts.get("redone", 0.0) > 0


@pytest.mark.skipif(browser.PROGRAM is None, reason="needs Chromium: apt-get install chromium")
def test_the_pages_of_real_runs_open_in_a_browser(
    whole: Training, interruptions: dict[str, Any], tmp_path: Path
) -> None:
    killed = tmp_path / "killed.html"
    killed.write_bytes(interruptions["killed"]["page"])
    ready, overhang = "document.documentElement.dataset.ready", "document.documentElement.scrollWidth - innerWidth"
    for path in (whole.directory / "report.html", interruptions["last"]["directory"] / "report.html", killed):
        for width in (1400, 420):
            opened = browser.open_page(path, width, ready, overhang)
            assert opened.values[ready] == "yes" and opened.values[overhang] <= 0
            assert opened.complaints == [] and opened.requests == []
        assert path.stat().st_size < 3_000_000


def test_a_finished_run_started_again_changes_nothing(interruptions: dict[str, Any]) -> None:
    directory = interruptions["last"]["directory"]
    before = repeatable(directory), final_weights(directory)
    finished(directory, **SETTINGS)
    assert (repeatable(directory), final_weights(directory)) == before


def test_validation_accuracy_rises(runs: Path) -> None:
    directory = finished(runs / "learning", num_steps=30, **{"run.validate_every_steps": 30, "run.seed": 1}).directory
    first, last = (row["validation/accuracy"] for row in validations(directory))
    assert 0.05 < first < 0.5, "the demo's model is meant to start low, with something to build on"
    assert last - first >= 0.25
