"""Every second of every attempt is counted once, whatever ended it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.report.ledger import FILE_NAME, PARTS, Ledger, goodput, in_all, note_exit, read_attempts
from megatron_rl.runtime.heartbeat import MIN_SECONDS, SHARE, last_beat, process_start

ROOT = Path(__file__).parents[2]
TICK = 0.05  # the kernel tells of a process's start in hundredths of a second


def write(directory: Path, *lines: tuple[Any, ...], beat: dict[str, Any] | None = None) -> Path:
    """A ledger of (attempt, event, at, step, seconds or reason) lines."""
    found = []
    for attempt, event, at, *more in lines:
        line: dict[str, Any] = {"attempt": attempt, "event": event, "at": float(at)}
        for value in more:
            line[{int: "step", str: "why", dict: "seconds"}[type(value)]] = value
        found.append(json.dumps(line) + "\n")
    (directory / FILE_NAME).write_text("".join(found))
    if beat is not None:
        (directory / "heartbeat.json").write_text(json.dumps({"next_seconds": 1.0} | beat))
    return directory


KILLED_TWICE = (
    (0, "start", 100),
    (0, "resume", 110, 0),
    (0, "validation", 112, 0, {"validate": 2.0}),
    (0, "step", 120, 1, {"generate": 5.0, "update": 2.0}),
    (0, "step", 130, 2, {"generate": 10.0}),
    (0, "step", 140, 3, {"generate": 10.0}),
    (0, "end", 145, "killed"),
    (1, "start", 165),
    (1, "end", 170, "killed"),  # before the engines stood
    (2, "start", 171),
    (2, "resume", 180, 1),
    (2, "step", 190, 2, {"generate": 9.0, "update": 1.0}),
    (2, "step", 200, 3, {"generate": 9.0}),
    (2, "end", 203, "finished", {"save": 2.0}),
)


def test_the_parts_of_a_run_that_was_killed_twice_are_counted_by_hand(tmp_path: Path) -> None:
    first, second, third = read_attempts(write(tmp_path, *KILLED_TWICE))
    assert first.parts == pytest.approx(
        {"waiting": 0, "start": 10, "validate": 2, "generate": 5, "update": 2, "other": 1, "redone": 20, "cut_off": 5}
    )
    assert second.parts == pytest.approx({"waiting": 20, "start": 5})
    assert third.parts == pytest.approx(
        {"waiting": 1, "start": 9, "generate": 18, "update": 1, "save": 2, "other": 1 + 1}
    )
    assert [one.why for one in (first, second, third)] == ["killed", "killed", "finished"]
    assert [(one.from_step, one.to_step) for one in (first, second, third)] == [(0, 3), (0, 0), (1, 3)]


def test_the_parts_sum_to_the_wall_time(tmp_path: Path) -> None:
    attempts = read_attempts(write(tmp_path, *KILLED_TWICE))
    for attempt in attempts:
        assert sum(attempt.parts.values()) - attempt.parts["waiting"] == pytest.approx(attempt.ended - attempt.started)
    everything = in_all(attempts)
    assert list(everything) == list(PARTS)
    assert sum(everything.values()) == pytest.approx(203 - 100)
    assert goodput(everything) == pytest.approx((5 + 2 + 18 + 1) / 103)


def test_the_validation_of_the_step_that_is_resumed_from_is_done_again(tmp_path: Path) -> None:
    lines = (
        (0, "start", 0),
        (0, "resume", 1, 0),
        (0, "step", 2, 1),
        (0, "validation", 4, 1, {"validate": 2.0}),
        (0, "end", 4, "left: SIGUSR1 was received", {}),
        (1, "start", 4),
        (1, "resume", 5, 1),
        (1, "validation", 7, 1, {"validate": 2.0}),
        (1, "end", 7, "finished", {}),
    )
    first, second = read_attempts(write(tmp_path, *lines))
    assert first.parts["redone"] == 2 and second.parts["validate"] == 2


def test_a_live_attempt_is_counted_up_to_its_heartbeat(tmp_path: Path) -> None:
    now = time.time()
    lines = ((0, "start", now - 20), (0, "resume", now - 10, 0))
    (attempt,) = read_attempts(write(tmp_path, *lines, beat={"attempt": 0, "at": now - 1}))
    assert attempt.why == "under way" and attempt.parts["other"] == pytest.approx(9, abs=0.01)
    assert "cut_off" not in attempt.parts
    (attempt,) = read_attempts(write(tmp_path, *lines, beat={"attempt": 0, "at": now - 5, "next_seconds": -40.0}))
    assert attempt.why == "killed" and attempt.parts["cut_off"] == pytest.approx(5, abs=0.01)
    (attempt,) = read_attempts(write(tmp_path, *lines, beat={"attempt": 3, "at": now - 1}))  # another attempt's
    assert attempt.ended == pytest.approx(now - 10)


def test_an_attempt_that_never_went_on_stands_where_the_one_before_began(tmp_path: Path) -> None:
    lines = (
        (0, "start", 0),
        (0, "resume", 1, 480),
        (0, "step", 2, 481, {"update": 1.0}),
        (0, "end", 3, "killed"),
        (1, "start", 4),
        (1, "end", 5, "failed: RuntimeError: no memory", {}),
    )
    assert [(one.from_step, one.to_step) for one in read_attempts(write(tmp_path, *lines))] == [(480, 481), (480, 480)]


def test_a_directory_without_a_ledger_has_no_attempts(tmp_path: Path) -> None:
    assert read_attempts(tmp_path) == []


KILLED = """
import sys, time
from pathlib import Path
from megatron_rl.report.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
ledger.begin()
ledger.resume(0)
ledger.add("step", 1, {"generate": 0.01})
print("ready", flush=True)
time.sleep(60)
"""


def test_the_ledger_agrees_with_a_clock_outside_on_a_process_that_is_killed_twice(tmp_path: Path) -> None:
    """What can be late on a busy machine is held between two looks at the clock, not to a share of the time."""
    looks: list[tuple[float, float, float, float]] = []
    for number in range(2):
        before = time.time()
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        after, beat = time.time(), None
        while beat is None or beat["attempt"] != number or beat["at"] < after:
            time.sleep(0.01)
            beat = last_beat(tmp_path)
        age = beat["at"] - before
        assert beat["next_seconds"] <= max(SHARE * age, MIN_SECONDS), "what a kill may cost: a hundredth"
        process.kill()
        process.communicate()
        looks.append((before, after, beat["at"], time.time()))
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write('{"attempt": 1, "event": "st')  # a line that a kill cut short
    ledger = Ledger(tmp_path)
    ledger.begin()
    ledger.resume(1)
    ledger.end("finished", {})
    attempts = read_attempts(tmp_path)
    for attempt, (before, after, beat_at, killed) in zip(attempts, looks, strict=False):
        assert before - TICK <= attempt.started <= after and beat_at <= attempt.ended <= killed
        assert sum(attempt.parts.values()) - attempt.parts["waiting"] == pytest.approx(attempt.ended - attempt.started)
    first, second, third = attempts
    assert sum(in_all([first, second]).values()) == pytest.approx(second.ended - first.started, abs=TICK)
    assert [one.why for one in attempts] == ["killed", "killed", "finished"]
    assert second.parts["waiting"] == pytest.approx(second.started - first.ended, abs=TICK)
    # The third is this process, which is older; what reads its age may be put off between two clocks.
    assert min(process_start() for _ in range(20)) - TICK <= third.started <= looks[0][0]


@pytest.mark.parametrize("has_ended", [True, False])
def test_what_an_attempt_does_after_its_last_word_is_counted(has_ended: bool, tmp_path: Path) -> None:
    lines: list[tuple[Any, ...]] = [(0, "start", 100), (0, "resume", 110, 0), (0, "step", 120, 1, {"update": 10.0})]
    now = time.time()
    write(tmp_path, *lines, *([(0, "end", 121, "finished", {})] if has_ended else []))
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write('{"attempt": 0, "eve')  # a line that a kill cut short
    note_exit(tmp_path)
    (attempt,) = read_attempts(tmp_path)
    assert attempt.why == ("finished" if has_ended else "killed")
    assert sum(attempt.parts.values()) == pytest.approx(now - 100, abs=1.0)
    assert attempt.parts["other" if has_ended else "cut_off"] == pytest.approx(now - 120, abs=1.0)
    ledger = Ledger(tmp_path)
    ledger.begin()
    ledger.end("finished", {})
    assert [one.why for one in read_attempts(tmp_path)] == [attempt.why, "finished"]


def test_a_directory_without_a_ledger_gets_none_as_its_processes_exit(tmp_path: Path) -> None:
    note_exit(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_heart_stops_with_the_attempt(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.begin()
    ledger.end("finished", {})
    beat = last_beat(tmp_path)
    assert beat is None or beat["attempt"] == 0
    time.sleep(0.5)
    assert last_beat(tmp_path) == beat


@pytest.mark.parametrize(
    "event",
    [
        {"event": "end"},
        {"event": "resume"},
        {"event": "step", "step": "1"},
        {"event": "step", "step": 1, "seconds": []},
        {"event": 5},
        {"attempt": "0", "event": "step"},
    ],
)
def test_an_event_that_no_run_writes_is_an_error_that_names_it(event: dict[str, Any], tmp_path: Path) -> None:
    lines = [{"attempt": 0, "event": "start", "at": 1.0}, {"attempt": 0, "at": 2.0} | event]
    for number, written in ((2, lines), (1, lines[1:])):
        (tmp_path / FILE_NAME).write_text("".join(json.dumps(line) + "\n" for line in written))
        with pytest.raises(RuntimeError, match=f"ledger.jsonl, line {number}: .*; something else changed the file"):
            read_attempts(tmp_path)


@pytest.mark.parametrize("text", ["[1]", "{}", "[" * 100_000, ""])
def test_a_heartbeat_that_no_run_writes_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "heartbeat.json").write_text(text)
    assert last_beat(tmp_path) is None
