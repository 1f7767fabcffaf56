"""TensorBoard, MLflow and W&B hold the numbers of metrics.jsonl, each once, whoever was killed meanwhile."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from megatron_rl.commands.cli import app
from megatron_rl.config.checks import UserError
from megatron_rl.report import ledger
from megatron_rl.report.journal import Journal, Row
from megatron_rl.report.provenance import write_run_file
from megatron_rl.report.report import Report
from megatron_rl.report.track import send, track, tracked_of
from megatron_rl.runtime import rundir
from megatron_rl.types import State
from tests.report.records import step_row, validation_row
from tests.report.runs import make_run
from tests.report.test_report import MAIN, play

PLACES = ("tensorboard", "mlflow", "wandb")
pytest.importorskip("tensorboard", reason="needs the extra `track`")
Held = list[tuple[str, int, float]]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of 10 steps that has come to step 7, with a checkpoint at step 5."""
    for name in ("WANDB_MODE", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    run = tmp_path / "run"
    run.mkdir()
    write_run_file(make_run(run), 0)
    record(run, 0, 7)
    tell(run, (0, "start"), (0, "resume", 0), (0, "step", 7))
    beat(run, 0)
    folder = run / "checkpoints" / "step_000005"
    folder.mkdir(parents=True)
    manifest = rundir.sealed({"format": rundir.CHECKPOINT_FORMAT})
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return run


def record(run: Path, first: int, last: int, shift: float = 0.0) -> None:
    """Steps after `first` up to `last`, a validation every fifth, one domain's name with a point in it.

    The validation at the start, and that at the checkpoint, which a resume does again, are among them.
    """
    journal = Journal(run)
    is_first_due = first in (0, 5)
    for step in range(first, last + 1):
        if step > first:
            row = step_row(step, reward=step / 7) | {"rollout/reward_mean/my_rewards.py:Sum": step / 3}
            journal.append(row | {"time/step_seconds": step + shift, "decisions": ["reference reset: why"]})
        if step % 5 == 0 and (step > first or is_first_due):
            journal.append(validation_row(step, step / 13))


def tell(run: Path, *events: tuple[Any, ...]) -> None:
    with (run / ledger.FILE_NAME).open("a") as file:
        for attempt, event, *more in events:
            line = {"attempt": attempt, "event": event, "at": time.time()}
            for value in more:
                line["why" if isinstance(value, str) else "step"] = value
            file.write(json.dumps(line) + "\n")


def beat(run: Path, attempt: int) -> None:
    facts = {"attempt": attempt, "at": time.time(), "next_seconds": 10.0, "where": "x", "since": 0.0, "detail": ""}
    (run / "heartbeat.json").write_text(json.dumps(facts))


def resumed(run: Path) -> None:
    """The run was killed, went on from its checkpoint, did steps 6 and 7 again at another pace, and finished."""
    Journal(run).resume(5)
    write_run_file(make_run(run), 5)
    tell(run, (0, "end", "killed"), (1, "start"), (1, "resume", 5))
    rows = Journal(run).rows()
    assert rows[-1]["step"] == 5
    record(run, 5, 10, shift=0.25)
    tell(run, (1, "step", 10), (1, "end", "finished"))


def in_tensorboard(run: Path) -> Held:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (run / "track" / "tensorboard").iterdir()
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    found.Reload()
    return [(tag, one.step, one.value) for tag in found.Tags()["scalars"] for one in found.Scalars(tag)]


def in_mlflow(run: Path) -> Held:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(run / "track" / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("megatron-rl")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.params["recipe.algorithm.clip_low"] == "0.2"
    assert found.data.params["release"].startswith("prorl_v2 ")
    histories = [client.get_metric_history(found.info.run_id, name) for name in found.data.metrics]
    return [(one.key.replace("..", "/"), one.step, one.value) for history in histories for one in history]


def in_wandb(run: Path) -> Held:
    """By the messages of W&B itself; its own reader of the file is a program that only uploads."""
    from megatron_rl.report.trackers.wandb import history

    paths = sorted((run / "track" / "wandb").glob("offline-run-*/*.wandb"))
    return [(name, step, value) for path in paths for step, row in history(path) for name, value in row.items()]


READERS: dict[str, Callable[[Path], Held]] = {
    "tensorboard": in_tensorboard,
    "mlflow": in_mlflow,
    "wandb": in_wandb,
}


def expected(rows: Sequence[Row], to: str) -> Held:
    """Every number of the rows as the place keeps it."""
    kept = np.float32 if to == "tensorboard" else np.float64
    return sorted(
        (name, row["step"], float(kept(value)))
        for row in rows
        for name, value in row.items()
        if name not in ("step", "decisions")
    )


def num_bytes(folder: Path) -> int:
    """Of all files in a folder, while some come and go."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def slow_but_tensorboard(to: str) -> Any:
    return pytest.param(to, marks=[] if to == "tensorboard" else [pytest.mark.e2e])


@pytest.mark.parametrize("to", [slow_but_tensorboard(to) for to in PLACES])
def test_every_number_of_the_journal_is_there_once_also_after_a_resume(to: str, directory: Path) -> None:
    settled = [row for row in Journal(directory).rows() if row["step"] < 5]  # a kill takes back what came later
    num_sent, said = track(directory, to, None, follows=False, is_live=False)
    assert num_sent == len(settled) == 5
    assert said.endswith("; 4 more are sent once a checkpoint after them stands, or at once with --live")
    assert sorted(READERS[to](directory)) == expected(settled, to)
    assert track(directory, to, None, follows=False, is_live=False)[0] == 0
    resumed(directory)
    track(directory, to, None, follows=True, is_live=False)  # ends, for the run has finished
    rows = Journal(directory).rows()
    assert sorted(READERS[to](directory)) == expected(rows, to)
    assert {row["step"] for row in rows} == set(range(11))
    assert track(directory, to, None, follows=False, is_live=False)[0] == 0


@pytest.mark.e2e
@pytest.mark.parametrize("to", PLACES)
def test_a_tracker_that_is_killed_at_any_moment_goes_on_where_it_was(to: str, directory: Path) -> None:
    resumed(directory)
    record(directory, 10, 300)
    command = [sys.executable, "-m", "megatron_rl", "track", str(directory), "--to", to, "--live", "--follow"]
    tell(directory, (2, "start"), (2, "resume", 10))
    seen = 0
    for last in (400, 500):
        beat(directory, 2)
        process = subprocess.Popen(command, start_new_session=True)
        until = time.monotonic() + 60
        while num_bytes(directory / "track" / to) <= seen:
            assert time.monotonic() < until, "nothing is sent"
            time.sleep(0.01)
        time.sleep(0.3)
        process.kill()  # what it started lives on
        process.wait()
        seen = num_bytes(directory / "track" / to)
        record(directory, last - 100, last)
    tell(directory, (2, "end", "finished"))
    track(directory, to, None, follows=False, is_live=False)
    assert sorted(READERS[to](directory)) == expected(Journal(directory).rows(), to)


@pytest.mark.e2e
def test_the_command_that_uploads_is_one_that_wandb_takes(directory: Path) -> None:
    _, said = track(directory, "wandb", None, follows=False, is_live=True)
    command = said.split("`")[1]
    done = subprocess.run(
        ["bash", "-c", command.replace("wandb sync", f"{sys.executable} -m wandb sync --dry-run", 1)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "Would sync 1 run" in done.stdout + done.stderr, done


def test_a_step_that_is_done_again_is_not_sent_again() -> None:
    class Place:
        last: dict[str, int] = {}
        sent: list[tuple[int, float]] = []

        def send(self, step: int, at: float, numbers: Any) -> None:
            self.sent.append((step, numbers["a"]))

        def close(self, *, is_finished: bool) -> str:
            return ""

    place = Place()
    assert send(place, [{"step": step, "a": 0.1} for step in (1, 2, 3)], {}) == 3
    assert send(place, [{"step": step, "a": 0.2} for step in (1, 2, 3, 4)], {}) == 1
    assert place.sent == [(1, 0.1), (2, 0.1), (3, 0.1), (4, 0.2)]


def test_a_run_that_was_moved_is_the_same_run(directory: Path, tmp_path: Path) -> None:
    there = tmp_path / "elsewhere" / "run"
    there.parent.mkdir()
    before = tracked_of(directory)
    directory.rename(there)
    assert tracked_of(there) == before
    assert before.parameters["recipe.sampling.temperature"] and before.parameters["layout.tensor_parallel"] == "1"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--to", "comet"], "must be one of tensorboard, wandb, mlflow"),
        (["--to", "wandb"], "--to wandb: its package is not installed here; pip install wandb"),
    ],
)
def test_what_cannot_be_tracked_is_one_line(
    words: list[str], line: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    before = sorted(directory.rglob("*"))
    result = CliRunner().invoke(app, ["track", str(directory), *words])
    assert result.exit_code == 2 and sorted(directory.rglob("*")) == before
    assert line in " ".join(result.stderr.split()) and "Traceback" not in result.stderr


def test_a_second_tracker_of_a_run_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron_rl.report import track as tracking

    monkeypatch.setattr(tracking, "LOCK_SECONDS", 0.0)
    name = f"tensorboard-{tracked_of(directory).id}"
    with tracking.alone(directory / "track", name):
        result = CliRunner().invoke(app, ["track", str(directory), "--to", "tensorboard"])
    assert result.exit_code == 2 and "another `track` is at work" in result.stderr


def in_a_run(directory: Path, to: str) -> None:
    """A run of four steps, without engines, that is tracked."""
    run = dataclasses.replace(make_run(directory), track=to)
    with Report(run, MAIN) as report:
        play(report, State.fresh(), 4)


def test_a_run_sends_its_numbers_while_it_trains(tmp_path: Path) -> None:
    in_a_run(tmp_path / "run", "tensorboard")
    assert sorted(in_tensorboard(tmp_path / "run")) == expected(Journal(tmp_path / "run").rows(), "tensorboard")


def test_a_tracker_that_fails_is_one_warning_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "track").write_text("a file where the folder should be")
    in_a_run(tmp_path / "run", "tensorboard")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line]
    assert "run.track=tensorboard: error: " in line and "the run goes on" in line
    assert Journal(tmp_path / "run").rows()[-1]["step"] == 4


@pytest.mark.parametrize("value", ["comet", "wandb,wandb", "wandb,"])
def test_a_tracker_that_there_is_not_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be none, or each once of tensorboard, wandb, mlflow"):
        dataclasses.replace(make_run(tmp_path), track=value)
