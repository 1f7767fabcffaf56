"""What a person sees of a run: on a terminal, in a log, and at the end."""

import io
import logging
import os
import pty
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from megatron_rl.report.progress import Course, Progress, line_of, sparkline, summary_rows
from megatron_rl.runtime.log import get_logger
from tests.report.records import step_row, validation_row

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


@pytest.fixture
def told() -> Iterator[list[str]]:
    """The lines that are logged."""
    lines: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    listener, logger = Listener(), get_logger()
    logger.addHandler(listener)
    yield lines
    logger.removeHandler(listener)


def make(is_terminal: bool, num_steps: int = 4) -> tuple[Progress, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=is_terminal, width=100, highlight=False, _environ={"TERM": "xterm"})
    return Progress("prorl_v2 2.1.0 at scale cpu", num_steps, console), text


def test_without_a_terminal_every_step_and_validation_is_one_plain_line(told: list[str]) -> None:
    progress, text = make(is_terminal=False)
    progress.start([])
    progress.add(validation_row(0, 0.25))
    for step in range(1, 5):
        progress.add(step_row(step))
    assert len(told) == 5
    assert told[0] == "step 0/4  validation accuracy 0.250  (math 0.250)"
    assert all(line.startswith(f"step {step}/4  reward 0.500") for step, line in enumerate(told[1:], start=1))
    assert "6 s left" in told[1]
    assert "\x1b" not in "".join(told) + text.getvalue()


def test_on_a_terminal_the_display_shows_where_the_run_stands(told: list[str]) -> None:
    progress, text = make(is_terminal=True)
    progress.start([])
    progress.add(validation_row(0, 0.25))
    progress.add(step_row(1, 0.25))
    progress.add(step_row(2, 0.75))
    progress.add(validation_row(2, 0.5))
    progress.stop()
    shown = text.getvalue()
    for part in ("step 2/4", "0.250 -> 0.500", "0.250 -> 0.750", "128 samples/s", "4 s left", "━"):
        assert part in shown, part
    assert "step 2/4  validation accuracy 0.500" in shown
    assert told == []  # what the display shows is not logged as well


def test_the_cursor_is_never_left_hidden() -> None:
    progress, text = make(is_terminal=True)
    progress.start([])
    progress.add(step_row(1))
    shown = text.getvalue()
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)  # while running: a kill cannot leave it hidden
    progress.stop()
    progress.stop()
    assert text.getvalue().rindex(SHOW_CURSOR) > text.getvalue().rindex(HIDE_CURSOR)


def test_a_resumed_run_says_from_where(told: list[str]) -> None:
    progress, _ = make(is_terminal=False)
    progress.start([step_row(1), step_row(2)])
    assert told == ["prorl_v2 2.1.0 at scale cpu: going on from step 2 of 4"]


def test_the_summary_tells_the_gain_and_every_path(tmp_path: Path) -> None:
    progress, text = make(is_terminal=False)
    progress.start([validation_row(0, 0.25), step_row(1), validation_row(1, 0.75)])
    progress.summary(tmp_path, ["report.html", "metrics.jsonl"])
    shown = text.getvalue()
    assert "0.250 -> 0.750  (+0.500)" in shown
    for path in (tmp_path, tmp_path / "report.html", tmp_path / "metrics.jsonl"):
        assert str(path) in shown
    assert "1 of 4 steps done" in shown


def test_marks_of_a_step_are_in_its_line() -> None:
    line = line_of(step_row(3, is_reset=True, is_on=True), 4, None)
    assert line.endswith("length term on  reference reset")


def test_time_left_follows_the_recent_steps() -> None:
    slow = [step_row(step) | {"time/step_seconds": 100.0} for step in range(1, 31)]
    fast = [step_row(step) | {"time/step_seconds": 1.0} for step in range(31, 51)]
    assert Course([*slow, *fast, validation_row(50, 0.5)]).seconds_left(100) == pytest.approx(50.0)
    assert Course([validation_row(0, 0.5)]).seconds_left(100) is None


def test_a_course_holds_few_lines_however_long_the_run() -> None:
    class Line(dict[str, Any]):
        """A line that can be watched."""

    course, lines = Course(), []
    for step in range(1, 201):
        for row in (step_row(step), validation_row(step, 0.5)):
            line = Line(row)
            lines.append(weakref.ref(line))
            course.add(line)
            del line
    kept = [line for line in lines if line() is not None]
    assert course.num_done == 200 and len(kept) == 3  # the newest step, the first and the last validation


def test_summary_of_a_run_without_validation_is_its_pace() -> None:
    assert [name for name, _ in summary_rows(Course([step_row(1)]))] == ["pace"]
    assert summary_rows(Course()) == []


def test_a_sparkline_spans_lowest_to_highest() -> None:
    assert sparkline([float(i) for i in range(8)], 40) == "▁▂▃▄▅▆▇█"
    assert len(sparkline([float(i % 7) for i in range(1000)], 40)) == 40


BODY = f"""
import time
from megatron_rl.report.progress import Progress
progress = Progress("run", 1000)
try:
    progress.start([])
    for step in range(1, 1000):
        progress.add({step_row(1)!r} | dict(step=step))
        time.sleep(0.02)
    time.sleep(600)  # on a busy machine it is read late, and must not have ended by then
finally:
    progress.stop()
"""


def test_ctrl_c_gives_the_terminal_back() -> None:
    main, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", BODY],
        stdin=side,
        stdout=side,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TERM": "xterm"},
        # As at a terminal: what a shell starts in the background ignores it, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(side)
    try:
        shown, deadline = b"", time.monotonic() + 60
        while b"step 3/1000" not in shown:
            assert time.monotonic() < deadline, shown
            if select.select([main], [], [], 1)[0]:
                shown += os.read(main, 4096)
        process.send_signal(signal.SIGINT)
        while select.select([main], [], [], 20)[0]:
            try:
                shown += os.read(main, 4096)
            except OSError:  # the other side has closed the terminal
                break
        assert process.wait(20) != 0
    finally:
        process.kill()
        process.communicate()
        os.close(main)
    assert shown.rindex(SHOW_CURSOR.encode()) > shown.rindex(HIDE_CURSOR.encode())
    assert shown.endswith((b"\r\n", SHOW_CURSOR.encode()))
