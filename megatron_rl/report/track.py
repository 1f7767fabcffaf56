"""Tracking: the numbers of a run, read from its files, sent to TensorBoard, W&B or MLflow; no rank depends on it.

What was sent before is asked of the place itself, so that a step is there once, whichever process was killed meanwhile.
While a run is under way, a step is sent once a checkpoint after it stands: no resume does it again, and what was sent
is what `metrics.jsonl` says for good.

Not covered: a checkpoint that is damaged after a later step was sent; what the run does again then keeps its first
numbers, from which only the measured ones differ.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from megatron_rl.config.checks import UserError
from megatron_rl.config.run import TRACKERS
from megatron_rl.report import ledger, provenance
from megatron_rl.report.journal import FILE_NAME, OF_AN_EVENT, Row, read_rows
from megatron_rl.runtime import rundir
from megatron_rl.runtime.log import get_logger

FOLDER = "track"  # in a run directory
PARENT = "MEGATRON_RL_TRACKED_BY"  # environment: the number of the process whose run is followed
POLL_SECONDS, LOCK_SECONDS = 2.0, 20.0
HELD = "; {} more are sent once a checkpoint after them stands, or at once with --live"
STOP_SECONDS = 30.0  # that the end of a run waits for what follows it


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """A run as a tracker knows it."""

    name: str  # of its directory
    id: str  # the same for every attempt, also after the directory was moved
    parameters: Mapping[str, str]  # recipe, scale and lineage: dotted name -> value


class Tracker(Protocol):
    """A place for numbers. Its errors are RuntimeError and OSError."""

    last: dict[str, int]  # name of a number -> the newest step that the place has it of

    def send(self, step: int, at: float, numbers: Mapping[str, float]) -> None:
        """Adds the numbers of a step, which ended at `at`, a time.time()."""

    def close(self, *, is_finished: bool) -> str:
        """Waits until all is there; returns how to look at it, or what is left to do."""


def track(directory: Path, to: str, folder: Path | None, *, follows: bool, is_live: bool) -> tuple[int, str]:
    """Sends what a run has recorded and is not there yet, until the run ends where it `follows`.

    Returns the number of steps and validations sent, and what the place says of it. Where it `is_live`, a step is sent
    as soon as it is recorded, and one that is done again keeps its first numbers. Raises UserError, RuntimeError.
    """
    tracked = tracked_of(directory)
    place, num_sent, num_held, seen = folder or directory / FOLDER, 0, 0, None
    with ExitStack() as stack:
        stack.enter_context(alone(place, f"{to}-{tracked.id}"))
        tracker = opened(to, place, tracked)
        while True:
            is_over, signature = has_ended(directory, follows), _signature(directory)
            if is_over or signature != seen:
                seen, limit = signature, None if is_live else limit_of(directory, follows)
                every = list(read_rows(directory / FILE_NAME))
                rows = [row for row in every if limit is None or row["step"] < limit]
                num_held = len(every) - len(rows)
                num_sent += send(tracker, rows, moments(directory))
            if is_over:
                said = tracker.close(is_finished=state_of(directory) == "finished")
                return num_sent, said + (HELD.format(num_held) if num_held else "")
            time.sleep(POLL_SECONDS)


def opened(to: str, place: Path, tracked: Tracked) -> Tracker:
    """The tracker of that name. Raises UserError where its package is not installed."""
    try:
        import_module(to)
    except ModuleNotFoundError as error:
        if error.name != to:
            raise
        raise UserError(f"--to {to}: its package is not installed here; pip install {TRACKERS[to]}") from None
    module = import_module(f"megatron_rl.report.trackers.{to}")
    place.mkdir(parents=True, exist_ok=True)
    return cast(Tracker, module.Place(place, tracked))


def tracked_of(directory: Path) -> Tracked:
    """The run in a directory. Raises UserError where there is none."""
    facts, name = provenance.read_run_file(directory), directory.resolve().name
    began = facts["attempts"][0]["started"]
    digest = hashlib.sha256(f"{name} {began}".encode()).hexdigest()[:8]
    return Tracked(name=name, id=re.sub(r"[^\w-]", "-", f"{name[:48]}-{digest}"), parameters=parameters_of(facts))


def parameters_of(facts: Mapping[str, Any]) -> dict[str, str]:
    """What run.json says of recipe, scale, data and lineage, by dotted names."""
    run = facts["run"]
    kept = {
        **{name: facts[name] for name in ("release", "variant_of", "fingerprint", "differences")},
        "scale": facts["scale"],
        "modified": facts["modified"],
        "seed": run["seed"],
        "data": facts["data"]["digest"],
        "recipe": run["recipe"],
        "layout": run["scale"],
        "parent": run["parent"],
        "attempts": [{name: one.get(name) for name in ("commit", "python")} for one in facts["attempts"][:1]],
    }
    return dict(_flat(kept))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested dictionaries and lists by dotted names; what is empty has no leaf."""
    if isinstance(value, Mapping | list | tuple):
        inner = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, one in inner:
            yield from _flat(one, f"{name}.{key}".lstrip("."))
    elif value is not None and value != "":
        yield name, str(value)


def send(tracker: Tracker, rows: Sequence[Row], ended: Mapping[int, float]) -> int:
    """Sends what is not there yet, the rows of one step together; returns how many rows had something new.

    >>> class Nowhere:
    ...     last = {"a": 1}
    ...     def send(self, step, at, numbers): print(step, numbers)
    >>> send(Nowhere(), [{"step": 1, "a": 0.5}, {"step": 2, "a": 0.6}, {"step": 2, "b": 1.0}], {})
    2 {'a': 0.6, 'b': 1.0}
    2
    """
    by_step: dict[int, dict[str, float]] = {}
    count = 0
    for row in rows:
        step = row["step"]
        new = {
            name: value
            for name, value in row.items()
            if name not in ("step", "decisions") and step > tracker.last.get(name, -1)
        }
        count += bool(new)
        by_step.setdefault(step, {}).update(new)
    for step, numbers in sorted(by_step.items()):
        if numbers:
            tracker.send(step, ended.get(step, time.time()), numbers)
            tracker.last |= dict.fromkeys(numbers, step)
    return count


def moments(directory: Path) -> dict[int, float]:
    """Step -> the time.time() at which it, or else its validation, ended, as the ledger says."""
    found: dict[int, float] = {}
    for line in read_rows(directory / ledger.FILE_NAME, OF_AN_EVENT):
        if line["event"] == "step" or (line["event"] == "validation" and line["step"] not in found):
            found[line["step"]] = line["at"]
    return found


def state_of(directory: Path) -> str:
    """How the newest attempt stands: `under way`, `killed`, `finished`, ...; `unknown` without a ledger."""
    attempts = ledger.read_attempts(directory)
    return attempts[-1].why if attempts else "unknown"


def limit_of(directory: Path, follows: bool) -> int | None:
    """Steps before this one are not done again; None where nobody is at work, so that all are taken as they are."""
    state = state_of(directory)
    if state in ("finished", "unknown") or not (follows or state == "under way"):
        return None
    whole = [path for path in rundir.checkpoints(directory) if rundir.manifest_of(path) is not None]
    return rundir.step_of(whole[-1]) if whole else 0


def has_ended(directory: Path, follows: bool) -> bool:
    """Whether there is nothing to wait for."""
    if not follows:
        return True
    parent = os.environ.get(PARENT)
    if parent is None:
        return state_of(directory) == "finished"  # one that was killed may go on
    return os.getppid() != int(parent) or state_of(directory) not in ("under way", "unknown", "killed")


def _signature(directory: Path) -> tuple[Any, ...]:
    """Changes when there may be something to send."""
    paths = [directory / FILE_NAME, directory / ledger.FILE_NAME]
    newest = [path.name for path in rundir.checkpoints(directory)][-1:]
    return (*newest, *((path.stat().st_size, path.stat().st_mtime) for path in paths if path.exists()))


@contextmanager
def alone(place: Path, name: str) -> Iterator[None]:
    """Holds a place for one run's numbers. Raises UserError where it cannot be written, or another process has it."""
    lock = place / f".{name}.lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(rundir.held(lock, LOCK_SECONDS))
        except BlockingIOError:
            raise UserError(f"{place}: another `track` is at work for {name}; one is enough") from None
        except OSError as error:
            raise UserError(f"{place}: cannot be written ({error.strerror}); name another with --folder") from None
        yield


class Followers:
    """Owns the processes that send a run's numbers while it trains; none can end the run, nor outlives it for long."""

    def __init__(self, directory: Path, places: Sequence[str]) -> None:
        self.directory, self.places = directory, places
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Starts them; what they say goes to logs/track_PLACE.log."""
        for to in self.places:
            command = [sys.executable, "-m", "megatron_rl", "track", str(self.directory), "--to", to, "--follow"]
            try:
                (self.directory / "logs").mkdir(exist_ok=True)
                with self._log(to).open("wb") as log:
                    self.processes[to] = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env=os.environ | {PARENT: str(os.getpid())},
                        start_new_session=True,  # Ctrl-C is the run's; they see its end
                    )
            except OSError as error:
                get_logger().warning("run.track=%s: did not start (%s); the run goes on", to, error)

    def check(self, wait_seconds: float = 0.0) -> None:
        """Warns of each that has failed, once; waits for the end of the others, all together at most so long."""
        until = time.monotonic() + wait_seconds
        for to, process in list(self.processes.items()):
            try:
                code = process.wait(max(until - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                if wait_seconds:
                    process.kill()
                    self._warn(to, f"was not done after {wait_seconds:.0f} s")
                continue
            del self.processes[to]
            if code:
                lines = self._log(to).read_text(encoding="utf-8", errors="replace").split("\n")
                self._warn(to, next((line for line in reversed(lines) if line.strip()), f"exit code {code}"))

    def _log(self, to: str) -> Path:
        return self.directory / "logs" / f"track_{to}.log"

    def _warn(self, to: str, why: str) -> None:
        get_logger().warning(
            "run.track=%s: %s; the run goes on, and `megatron-rl track %s --to %s` sends the rest", to, why,
            self.directory, to,
        )  # fmt: skip
