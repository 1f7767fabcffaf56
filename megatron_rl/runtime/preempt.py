"""Preemption: a run that is told to leave, or whose time is up, stops where it loses nothing and asks to be requeued.

Not covered: SIGKILL and power cuts, after which the newest checkpoint and the stored waves are what there is.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from types import FrameType

from megatron_rl.config.checks import UserError

REQUEUE_EXIT_CODE = 85
SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
# By which a launcher passes on a Ctrl-C. A rank that is still starting ends by it without a word, as by a SIGTERM; by a
# SIGINT it would end with a traceback.
OF_CTRL_C = signal.SIGUSR2
CTRL_C = "Ctrl-C"  # as a reason to leave
INTERRUPTED = f"{CTRL_C}: the run stops where it loses nothing, saves and ends; press it again to leave at once"
SAME_PRESS_SECONDS = 0.5  # a terminal and a launcher may both pass on one Ctrl-C


class Preempted(Exception):
    """Raised on all ranks at the same place; the message is the reason."""


_received: list[signal.Signals] = []


_pressed_at: list[float] = []


def listen() -> None:
    """From now on a signal to leave is remembered instead of ending the process; called before the slow imports.

    A second Ctrl-C ends the process at once.
    """
    for number in (*SIGNALS, OF_CTRL_C):
        signal.signal(number, _remember)


def _remember(number: int, frame: FrameType | None) -> None:
    _received.append(signal.Signals(number))
    if number != signal.SIGINT:
        return
    now = time.monotonic()
    if not _pressed_at and os.environ.get("RANK", "0") == "0":
        os.write(2, f"{INTERRUPTED}\n".encode())  # a handler may interrupt a print
    if _pressed_at and now - _pressed_at[0] > SAME_PRESS_SECONDS:
        os._exit(128 + signal.SIGINT)
    _pressed_at.append(now)


class Preemption:
    """What tells this process, and it alone, to leave: a signal that `listen` heard, or the clock.

    Raises UserError where it would have to leave at once: requeued, it would do so for ever.
    """

    def __init__(self, time_limit_hours: float | None, lead_seconds: float) -> None:
        self.deadline = deadline(time_limit_hours, lead_seconds)
        left = self.deadline - time.time() + lead_seconds
        if left <= lead_seconds:
            raise UserError(
                f"the time limit is {left:.0f} s away, and run.preemption_lead_seconds={lead_seconds:g} before it the "
                "run has to leave; ask for more time, or set less"
            )

    @property
    def reason(self) -> str | None:
        """Why this process should leave; None while it may go on."""
        if _received:
            return CTRL_C if _received[0] in (signal.SIGINT, OF_CTRL_C) else f"{_received[0].name} was received"
        return "the time limit is near" if time.time() >= self.deadline else None


def deadline(time_limit_hours: float | None, lead_seconds: float, environment: Mapping[str, str] = os.environ) -> float:
    """When to leave, as time.time() tells it: `lead_seconds` before the job's end, by Slurm's word or from now on.

    >>> deadline(None, 60, {}), deadline(4, 60, {"SLURM_JOB_END_TIME": "1000"})
    (inf, 940.0)
    """
    if end := environment.get("SLURM_JOB_END_TIME"):
        if not (end.isascii() and end.isdigit()):
            raise UserError(f"environment variable SLURM_JOB_END_TIME={end!r}: must be seconds since 1970; unset it")
        return float(end) - lead_seconds
    return float("inf") if time_limit_hours is None else time.time() + 3600 * time_limit_hours - lead_seconds
