"""The watchdog: ends a process that has made no progress for too long, after writing down where it stands.

Progress is a span that begins or ends, or what is told within one, such as a finished wave. A rank that hangs keeps the
others waiting, so that all of them end; who came least far is named.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from megatron_rl.runtime import spans
from megatron_rl.runtime.log import get_logger

STALL_EXIT_CODE = 86  # a failure: slurm/job.sh requeues it, and gives up the third time in a row
BEATS_PER_LIMIT = 10  # how often a rank writes down how far it is


class Watchdog:
    """Owns a thread, and the files `logs/progress/rank_NNNNN` of a run directory, while entered."""

    def __init__(self, directory: Path, rank: int, limit_seconds: float) -> None:
        self.folder, self.rank, self.limit_seconds = directory / "logs" / "progress", rank, limit_seconds
        self._began = time.monotonic()  # what was before is no matter
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(self.limit_seconds / BEATS_PER_LIMIT):
            progress = spans.progress()
            own = {"rank": self.rank, "marks": progress.marks, "where": progress.where, "since": progress.since}
            with suppress(OSError):  # a disk that is full is no reason to stop watching
                (self.folder / f"rank_{self.rank:05d}").write_text(json.dumps(own), encoding="utf-8")
            if time.monotonic() - max(progress.moved, self._began) >= self.limit_seconds:
                self._end(progress)

    def _end(self, progress: spans.Progress) -> None:
        place: Path | str = self.folder.parent / f"stall_rank{self.rank}.txt"
        try:
            with place.open("w", encoding="utf-8") as file:
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError as error:
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
            place = f"above, for {place} cannot be written ({error.strerror})"
        get_logger().error(
            "rank %d made no progress for %.0f s in '%s'; %s; stacks: %s",
            self.rank, time.monotonic() - progress.moved, progress.where, straggler(self.folder), place,
        )  # fmt: skip
        os._exit(STALL_EXIT_CODE)


def straggler(folder: Path) -> str:
    """Which rank came least far, by the progress files; a rank's file is at most a tenth of the limit old."""
    found = []
    for path in folder.glob("rank_*"):
        try:
            found.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):  # being written just now
            continue
    if not found:
        return "no rank has written its progress"
    last = min(found, key=lambda one: (one["marks"], one["rank"]))
    return f"rank {last['rank']} came least far, to '{last['where']}'"
