"""Progress: a live display where standard output is a terminal, one line per step where it is not.

The display has no thread of its own: it changes when a step ends, so that nothing runs beside the engines.
"""

from __future__ import annotations

import math
import os
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from megatron_rl.report.journal import Row, is_validation
from megatron_rl.report.plots import span_means
from megatron_rl.runtime.console import Terminal
from megatron_rl.runtime.log import get_logger

BLOCKS = "▁▂▃▄▅▆▇█"
RECENT_STEPS = 20  # that the time left and the rates shown are taken from


class Course:
    """What there is to show of a journal: small, and as quick to take a line, however many there were before."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.last_step = 0
        self.num_done, self.seconds = 0, 0.0  # steps, and what they took
        self.newest: Row | None = None  # of the steps
        self.validations: tuple[Row, Row] | None = None  # the first and the last
        self.curves = {"accuracy": array("d"), "reward": array("d")}
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Takes one more line."""
        self.last_step = int(row["step"])
        if is_validation(row):
            self.validations = (self.validations or (row,))[0], row
            label, name = "accuracy", "validation/accuracy"
        else:
            label, name = "reward", "rollout/reward_mean"
            self.newest, self.num_done = row, self.num_done + 1
            self.seconds += row["time/step_seconds"]
            self._recent.append(row["time/step_seconds"])
        if name in row:
            self.curves[label].append(row[name])

    def seconds_left(self, num_steps: int) -> float | None:
        """Steps left times the mean of the recent ones; None before the first."""
        if self.newest is None:
            return None
        return float((num_steps - self.newest["step"]) * sum(self._recent) / len(self._recent))


class Progress:
    """Owns the terminal between `start` and `stop`."""

    def __init__(self, title: str, num_steps: int, console: Console | None = None) -> None:
        self.console = console or Terminal(highlight=False)
        self.title, self.num_steps = title, num_steps
        self.course = Course()
        self.live: Live | None = None

    def start(self, rows: Sequence[Row]) -> None:
        """Shows a run that has gone as far as `rows`."""
        self.course = Course(rows)
        if self.console.is_terminal:
            self.live = Live(self.display(), console=self.console, auto_refresh=False)
            self.live.start()
            self.console.show_cursor(True)  # a process that is killed cannot give the cursor back
        if rows:
            self._say(f"{self.title}: going on from step {self.course.last_step} of {self.num_steps}")

    def add(self, row: Row) -> None:
        """Shows one more step or validation."""
        self.course.add(row)
        if is_validation(row) or self.live is None:
            self._say(line_of(row, self.num_steps, self.course.seconds_left(self.num_steps)))
        for decision in row.get("decisions", ()):
            self._say(f"step {row['step']}: {decision}")
        if self.live is not None:
            self.live.update(self.display(), refresh=True)

    def stop(self) -> None:
        """Gives the terminal back; harmless when there is nothing to give."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def summary(self, directory: Path, files: Sequence[str]) -> None:
        """Prints what the run came to and where it can be looked at."""
        self.stop()
        table = Table(box=None, pad_edge=False, show_header=False)
        for name, value in summary_rows(self.course):
            table.add_row(Text(name, style="bold"), value)
        self.console.print()
        self.console.print(Text(f"{self.title}: {self.course.last_step} of {self.num_steps} steps done", style="bold"))
        self.console.print(table)
        self.console.print(f"run directory    {shown(directory)}", soft_wrap=True)
        for name in files:
            self.console.print(f"                 {shown(directory / name)}", soft_wrap=True)

    def _say(self, line: str) -> None:
        if self.live is not None:
            self.console.print(Text(line))
        else:
            get_logger().info("%s", line)

    def display(self) -> Group:
        """What a terminal shows: how far the run is, two curves, and the newest step."""
        course = self.course
        head = Table.grid(padding=(0, 2), expand=True)
        for justify, ratio in (("left", None), ("left", 1), ("right", None)):
            head.add_column(justify=justify, ratio=ratio, no_wrap=True)  # type: ignore[arg-type]
        left = course.seconds_left(self.num_steps)
        head.add_row(
            Text(f"step {course.last_step}/{self.num_steps}", style="bold"),
            ProgressBar(
                total=self.num_steps, completed=course.last_step, complete_style="green", finished_style="green"
            ),
            f"{duration(left)} left" if left is not None else "starting",
        )
        curves = Table.grid(padding=(0, 2))
        for label, values in course.curves.items():
            if values:
                now = f"{values[0]:.3f} -> {values[-1]:.3f}"
                curves.add_row(label, Text(sparkline(values, 40), style="cyan"), Text(now, style="bold"))
        facts = " · ".join(facts_of(course.newest)) if course.newest is not None else ""
        return Group(Text(self.title, style="dim"), head, curves, Text(facts, style="dim"))


def line_of(row: Row, num_steps: int, left: float | None) -> str:
    """One step or validation as a line of a log.

    >>> validation = {"validation/accuracy": 0.5, "validation/accuracy/math": 0.5, "validation/unjudged_fraction": 0.0}
    >>> line_of({"step": 3, **validation}, 10, None)
    'step  3/10  validation accuracy 0.500  (math 0.500)'
    """
    place = f"step {row['step']:>{len(str(num_steps))}}/{num_steps}"
    if is_validation(row):
        domains = [
            f"{name.rpartition('/')[2]} {value:.3f}"
            for name, value in row.items()
            if name.startswith("validation/accuracy/")
        ]
        mean = f"{row['validation/accuracy']:.3f}" if "validation/accuracy" in row else "unknown"
        return f"{place}  validation accuracy {mean}  ({', '.join(domains)})"
    ending = [f"{duration(left)} left"] if left is not None else []
    return f"{place}  " + "  ".join([f"reward {row['rollout/reward_mean']:.3f}", *facts_of(row), *ending])


def facts_of(row: Row) -> list[str]:
    """What is worth a glance in a step."""
    found = [
        f"{row['rollout/response_tokens_mean']:.1f} tokens/response",
        f"kept {row['dynamic_sampling/keep_rate']:.0%}",
    ]
    found.append(f"entropy {row['actor/entropy_nats']:.3f}" if "actor/entropy_nats" in row else "no update")
    if "actor/kl_reference_nats" in row:
        found.append(f"KL {row['actor/kl_reference_nats']:.2g}")
    if "mismatch/mean_nats" in row:
        found.append(f"mismatch {row['mismatch/mean_nats']:.1e}")
    found.append(f"{row['throughput/samples_per_second']:.3g} samples/s")
    if "throughput/tokens_per_second" in row:
        found.append(f"{row['throughput/tokens_per_second']:.4g} tokens/s")
    found.append(f"{row['time/step_seconds']:.2f} s/step")
    if row["length_term/is_on"]:
        found.append("length term on")
    if row["reference/reset"]:
        found.append("reference reset")
    return found


def summary_rows(course: Course) -> list[tuple[str, str]]:
    """Name and text of what changed between the first and the last validation, and of the run's pace."""
    found = []
    if course.validations is not None:
        first, last = course.validations
        for name in [name for name in last if name.startswith("validation/accuracy") and name in first]:
            label = name.replace("validation/accuracy", "accuracy").replace("/", " ")
            gain = f"({last[name] - first[name]:+.3f})"
            found.append((label, f"{first[name]:.3f} -> {last[name]:.3f}  {gain}"))
    if course.num_done:
        found.append(("pace", f"{course.seconds / course.num_done:.2f} s/step, {duration(course.seconds)} in all"))
    return found


def sparkline(values: Sequence[float], width: int) -> str:
    """Values as a row of blocks, lowest to highest; more values than `width` are averaged in equal spans.

    >>> sparkline([0.0, 0.5, 1.0], 8), sparkline([1, 1, 5, 5], 2), sparkline([2.0], 8)
    ('▁▅█', '▁█', '▁')
    """
    means = span_means(values, width)
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[math.floor((mean - low) * scale + 0.5)] for mean in means)


def duration(seconds: float) -> str:
    """Seconds for reading.

    >>> [duration(seconds) for seconds in (4.2, 200, 7300, 200_000)]
    ['4 s', '3 min 20 s', '2 h 1 min', '2 d 7 h']
    """
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // part)} {smaller}"
    return f"{seconds:.0f} s"


def shown(path: Path) -> str:
    """A path as one would type it from here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
