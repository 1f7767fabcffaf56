"""The trace of a run's spans is what Perfetto and Chrome read: one track a rank, each span where it was."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from megatron_rl.commands.cli import app
from megatron_rl.report import trace
from megatron_rl.report.report import Report
from megatron_rl.runtime import spans
from megatron_rl.types import State
from tests.report.runs import make_run
from tests.report.test_report import MAIN, OTHER, play


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two ranks of a run of four steps, one after the other."""
    for rank in (MAIN, OTHER):
        with Report(make_run(tmp_path / "run"), rank) as report:
            play(report, State.fresh(), 4)
    return tmp_path / "run"


def traced(directory: Path, *words: str) -> dict[str, Any]:
    path = directory / "trace.json"
    result = CliRunner().invoke(app, ["trace", str(directory), "--to", str(path), *words])
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_trace_keeps_to_the_format_and_has_a_track_for_each_rank(directory: Path) -> None:
    found = traced(directory)
    assert set(found) == {"traceEvents", "displayTimeUnit"}
    names = {"thread_name": set(), "process_name": set()}  # type: dict[str, set[str]]
    for event in found["traceEvents"]:
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int)
        if event["ph"] == "M":
            names[event["name"]].add(event["args"]["name"])
        else:
            assert event["ph"] == "X" and isinstance(event["name"], str)
            assert isinstance(event["ts"], int) and isinstance(event["dur"], int)
            assert event["ts"] >= 0 and event["dur"] >= 0
    assert names == {"thread_name": {"rank 0", "rank 1"}, "process_name": {"steps", "ranks"}}
    assert min(event["ts"] for event in found["traceEvents"] if event["ph"] == "X") == 0
    steps = [event["name"] for event in found["traceEvents"] if event.get("cat") == "step"]
    assert steps == ["step 1", "step 2", "step 3", "step 4"]


def test_spans_nest_and_lie_within_their_step(tmp_path: Path) -> None:
    spans.take_ended()
    with spans.span("validate"), spans.span("generate"):
        time.sleep(0.01)
    trace.SpanFile(tmp_path, 0).add(1)
    events = {event["name"]: event for event in traced(tmp_path)["traceEvents"] if event["ph"] == "X"}
    step, outer, inner = (events[name] for name in ("step 1", "validate", "generate"))
    for small, large in ((inner, outer), (outer, step)):
        assert large["ts"] <= small["ts"] and small["ts"] + small["dur"] <= large["ts"] + large["dur"] + 1000
    assert inner["dur"] >= 10_000


def test_some_steps_can_be_chosen(directory: Path) -> None:
    chosen = {event["args"]["step"] for event in traced(directory, "--steps", "2:3")["traceEvents"] if "cat" in event}
    assert chosen == {2, 3}
    assert {event["args"]["step"] for event in traced(directory, "--steps", "4")["traceEvents"] if "cat" in event} == {
        4
    }


@pytest.mark.parametrize(
    ("steps", "line"),
    [("9:12", "spans are there of steps 1 to 4"), ("3:2", "must be a step, as in 12"), ("x", "must be a step")],
)
def test_steps_that_are_not_there_are_one_line(steps: str, line: str, directory: Path) -> None:
    result = CliRunner().invoke(app, ["trace", str(directory), "--to", str(directory / "x.json"), "--steps", steps])
    assert result.exit_code == 2 and line in result.stderr


def test_a_step_that_was_done_again_is_there_as_it_was_done_last(tmp_path: Path) -> None:
    file = trace.SpanFile(tmp_path, 0)
    file.add(1)
    with file.path.open("a") as text:
        text.write('{"step": 2, "at": 5')  # a kill; the next attempt writes on
    for _ in range(2):
        file.add(2)
    lines = trace.read_spans(tmp_path)[0]
    assert list(lines) == [1, 2] and lines[2]["at"] > lines[1]["at"]


def test_a_rank_s_file_is_bounded_and_the_newest_steps_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MAX_PART_BYTES", 1000)
    file = trace.SpanFile(tmp_path, 0)
    for step in range(1, 101):
        file.add(step)
    assert sum(path.stat().st_size for path in file.path.parent.iterdir()) < 2200
    found = sorted(trace.read_spans(tmp_path)[0])
    assert found[-1] == 100 and found == list(range(found[0], 101))
