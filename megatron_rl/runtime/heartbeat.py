"""The heartbeat: a small file that says until when an attempt lived and what it was at, for readers on any machine."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from megatron_rl.runtime import spans

FILE_NAME = "heartbeat.json"
STARTED_AT = "MEGATRON_RL_STARTED_AT"  # environment: when the program began that started this process
SHARE, MIN_SECONDS, MAX_SECONDS = 0.01, 0.05, 10.0  # of the attempt's age from one beat to the next, and its bounds


class Heartbeat:
    """Owns the file and a thread that writes it, between `start` and `stop`; one process may."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, attempt: int, began: float) -> None:
        """Beats from now on; `began` is the time.time() that the attempt's age is counted from."""
        self._thread = threading.Thread(target=self._beat, args=(attempt, began), name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No beat after this; harmless where there was none."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def _beat(self, attempt: int, began: float) -> None:
        while True:
            now = time.time()
            pause = min(max(SHARE * (now - began), MIN_SECONDS), MAX_SECONDS)
            progress = spans.progress()
            beat = {"attempt": attempt, "at": now, "next_seconds": pause, "where": progress.where}
            beat |= {"since": progress.since, "detail": spans.detail()}
            with suppress(OSError):  # a disk that is full is no reason to end the run
                aside = self.path.with_suffix(".partial")
                aside.write_text(json.dumps(beat), encoding="utf-8")
                aside.replace(self.path)
            if self._is_over.wait(pause):
                return


KEYS = {"attempt", "at", "next_seconds"}  # that every version writes


def last_beat(directory: Path) -> dict[str, Any] | None:
    """The newest beat of a run directory: `attempt`, `at`, `next_seconds`, `where`, `since`, `detail`."""
    try:
        found: dict[str, Any] = json.loads((directory / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not found.keys() >= KEYS:
        return None
    return {"where": "", "since": found["at"], "detail": ""} | found


def process_start() -> float:
    """When this process began, as time.time() tells it."""
    ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age
