"""The ledger: where the wall time of every attempt went; ledger.jsonl, which a resume never cuts.

An attempt writes a line when it begins, when it goes on from a step, after each step and validation, and when it ends.
Its first process, and the one that started the ranks, add a line as they exit; the operating system says when it began.
A heartbeat beside it says until when a killed attempt lived, to a hundredth of its age. Every moment is counted once:
in the phase it was spent in; as `redone` where a later attempt did the step again; as `cut_off` where a kill ended a
step that was under way; as `waiting` between two attempts.

Not covered: what a job script does before and after the program, such as pulling an image; an attempt that is killed
before its ranks have met, which counts as waiting.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_rl.report.journal import OF_AN_EVENT, Row, append_line, read_rows
from megatron_rl.runtime.files import replace_file
from megatron_rl.runtime.heartbeat import STARTED_AT, Heartbeat, last_beat, process_start

FILE_NAME = "ledger.jsonl"
GRACE_SECONDS = 30.0  # that a heartbeat may be late, on a shared disk, before its attempt counts as killed
# Names of the parts, in the order of a step, and what each means on the page.
PARTS: Mapping[str, str] = {
    "start": "start: engines, checkpoint",
    "refit": "refit",
    "generate": "generate",
    "idle": "idle tail of generation",
    "score": "score",
    "pack": "pack",
    "logprob": "log-probabilities",
    "update": "update",
    "validate": "evaluate",
    "save": "save",
    "report": "report",
    "other": "other",
    "redone": "redone after kills",
    "cut_off": "cut off by kills",
    "waiting": "waiting between attempts",
}
ENDINGS = ("end", "exit")  # events after which an attempt does no more
GOOD = ("generate", "score", "logprob", "update", "refit", "pack")  # what a run is for


KINDS = {"step": int, "seconds": dict, "why": str}  # of what an event may have
NEEDED = {"end": ("why",), "resume": ("step",)}


@dataclass(kw_only=True)
class Attempt:
    """One start of the program, as the ledger tells of it; times are those of time.time()."""

    number: int
    started: float
    ended: float
    from_step: int = 0
    to_step: int = 0
    why: str = "killed"  # how it ended, `under way` while it lives
    parts: dict[str, float] = field(default_factory=dict)  # seconds by PARTS, `waiting` before its start included


class Ledger:
    """Owns the ledger of a run directory and the heartbeat, while this attempt lives."""

    def __init__(self, directory: Path) -> None:
        self.path, self.directory, self.attempt = directory / FILE_NAME, directory, 0
        self.heartbeat = Heartbeat(directory)

    def begin(self) -> None:
        """A new attempt; the one before gets its end, where it could not write it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        lines = read_events(self.path)
        replace_file(self.path, b"".join(json.dumps(line).encode() + b"\n" for line in lines))  # without half a line
        self.attempt = sum(line["event"] == "start" for line in lines)
        if lines and lines[-1]["event"] not in ENDINGS:
            beat = last_beat(self.directory)
            ended = max(lines[-1]["at"], beat["at"] if beat and beat["attempt"] == self.attempt - 1 else 0.0)
            self._write({"attempt": self.attempt - 1, "event": "end", "at": ended, "why": "killed"})
        started = float(os.environ.get(STARTED_AT) or process_start())
        self._write({"attempt": self.attempt, "event": "start", "at": started})
        self.heartbeat.start(self.attempt, started)

    def resume(self, step: int) -> None:
        """The engines stand, and the run goes on from `step`."""
        self._event("resume", step, {})

    def add(self, event: str, step: int, seconds: Mapping[str, float]) -> None:
        """What a step or a validation, which ended now, spent in each phase."""
        self._event(event, step, seconds)

    def end(self, why: str, seconds: Mapping[str, float]) -> None:
        """The attempt's last word, with what it spent since its last step."""
        self.heartbeat.stop()
        self._write({"attempt": self.attempt, "event": "end", "at": time.time(), "why": why, "seconds": dict(seconds)})

    def _event(self, event: str, step: int, seconds: Mapping[str, float]) -> None:
        line = {"attempt": self.attempt, "event": event, "at": time.time(), "step": step}
        self._write(line | ({"seconds": {name: round(value, 6) for name, value in seconds.items()}} if seconds else {}))

    def _write(self, line: Mapping[str, Any]) -> None:
        append_line(self.path, line, is_synced=False)


def note_exit(directory: Path) -> None:
    """Says that the newest attempt's processes exit now; ends it where it could not do so itself.

    The caller holds the directory's lock, so that no other attempt has begun.
    """
    path = directory / FILE_NAME
    lines = read_events(path)
    if not lines:
        return
    ending: dict[str, Any] = {"attempt": lines[-1]["attempt"], "event": "exit", "at": time.time()}
    if lines[-1]["event"] not in ENDINGS:
        ending |= {"event": "end", "why": "killed"}
    replace_file(path, b"".join(json.dumps(line).encode() + b"\n" for line in [*lines, ending]))


def read_events(path: Path) -> list[Row]:
    """The lines of a ledger. Raises RuntimeError where one cannot be meant, or the first begins no attempt."""
    lines = list(read_rows(path, OF_AN_EVENT))
    for number, line in enumerate(lines, start=1):
        kinds = {name: kind for name, kind in KINDS.items() if name in line or name in NEEDED.get(line["event"], ())}
        is_whole = all(isinstance(line.get(name), kind) for name, kind in kinds.items())
        if not is_whole or (number == 1 and line["event"] != "start"):
            raise RuntimeError(
                f"{path}, line {number}: is no event of a ledger; something else changed the file: mend that line, or "
                "remove it"
            )
    return lines


def read_attempts(directory: Path) -> list[Attempt]:
    """Every attempt in a run directory, oldest first. The parts of each sum to its wall time and the wait before it."""
    lines = read_events(directory / FILE_NAME)
    resumed = [(line["attempt"], line["step"]) for line in lines if line["event"] == "resume"]
    attempts: list[Attempt] = []
    for line in lines:
        if line["event"] == "start":
            waited = max(line["at"] - attempts[-1].ended, 0.0) if attempts else 0.0
            # One that ends before it goes on from somewhere stands where the one before began.
            from_step = attempts[-1].from_step if attempts else 0
            attempts.append(
                Attempt(
                    number=line["attempt"],
                    started=line["at"],
                    ended=line["at"],
                    from_step=from_step,
                    to_step=from_step,
                )
            )
            attempts[-1].parts["waiting"] = waited
        else:
            _count(attempts[-1], line, resumed)
    if attempts and lines[-1]["event"] not in ENDINGS:
        _go_on(attempts[-1], last_beat(directory))
    return attempts


def _count(attempt: Attempt, line: Mapping[str, Any], resumed: Sequence[tuple[int, int]]) -> None:
    """Counts the time since the attempt's line before, each second of it once."""
    event, step = line["event"], line.get("step", 0)
    wall = max(line["at"] - attempt.ended, 0.0)
    later = [start for number, start in resumed if number > attempt.number]
    attempt.ended = max(line["at"], attempt.ended)
    if event == "exit":
        found = {"other": wall}
    elif event == "resume":
        attempt.from_step = attempt.to_step = step
        found = {"start": wall}
    elif event == "end" and attempt.why != "under way":
        found = {"start": wall}
    elif event == "end" and line["why"] == "killed":
        found = {"cut_off": wall}
    elif event != "end" and any(step > start or (step == start and event == "validation") for start in later):
        found = {"redone": wall}
    else:
        found = {name: value for name, value in line.get("seconds", {}).items() if value > 0}
        found["other"] = found.get("other", 0.0) + wall - sum(found.values())
    for name, seconds in found.items():
        attempt.parts[name] = attempt.parts.get(name, 0.0) + seconds
    attempt.to_step = max(attempt.to_step, step)
    attempt.why = line["why"] if event == "end" else attempt.why if event == "exit" else "under way"


def _go_on(attempt: Attempt, beat: Mapping[str, Any] | None) -> None:
    """Counts what the newest attempt has done since its last line, up to its last heartbeat."""
    is_started, attempt.why = attempt.why == "under way", "killed"
    if beat is None or beat["attempt"] != attempt.number:
        return
    if time.time() - beat["at"] <= beat["next_seconds"] + GRACE_SECONDS:
        attempt.why = "under way"
    if beat["at"] <= attempt.ended:
        return
    # A living attempt may yet end the step under way, whose parts its next line will tell.
    name = "start" if not is_started else "other" if attempt.why == "under way" else "cut_off"
    attempt.parts[name] = attempt.parts.get(name, 0.0) + beat["at"] - attempt.ended
    attempt.ended = beat["at"]


def in_all(attempts: Sequence[Attempt]) -> dict[str, float]:
    """Seconds by part of all attempts; they sum to the wall time from the first start to the last end."""
    return {name: sum(attempt.parts.get(name, 0.0) for attempt in attempts) for name in PARTS}


def goodput(parts: Mapping[str, float]) -> float:
    """The share of the time that led to the policy there is now, 0..1.

    >>> goodput({"generate": 2.0, "update": 1.0, "waiting": 3.0})
    0.5
    """
    whole = sum(parts.values())
    return sum(parts.get(name, 0.0) for name in GOOD) / whole if whole else 0.0
