"""Where the time of a step goes: named spans, timed where the work is done and summed until somebody asks."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

MAX_KEPT = 20_000  # of the newest spans, for a process in which nobody takes them

_seconds: defaultdict[str, float] = defaultdict(float)


class Span(NamedTuple):
    """One span that has ended."""

    name: str
    began: float  # time.time() of it
    seconds: float


_ended: deque[Span] = deque(maxlen=MAX_KEPT)


class Progress(NamedTuple):
    """How far this process has come, for one who watches it from another thread."""

    marks: int  # spans begun and ended so far, and what was told within them
    where: str  # the newest of the spans
    since: float  # time.time() of its mark
    moved: float  # time.monotonic() of the newest mark, or of what was told after it


_progress = Progress(0, "start", time.time(), time.monotonic())
_detail = ""


def progress() -> Progress:
    """The newest mark."""
    return _progress


def tell(text: str) -> None:
    """Says how far a long span has come, as in "312 of 512 groups", which is progress; forgotten when a span ends."""
    global _detail, _progress
    _detail, _progress = text, _progress._replace(marks=_progress.marks + 1, moved=time.monotonic())


def detail() -> str:
    """What was told last."""
    return _detail


def _mark(where: str) -> None:
    global _progress
    _progress = Progress(_progress.marks + 1, where, time.time(), time.monotonic())


@contextmanager
def span(name: str) -> Iterator[None]:
    """Adds the wall time spent inside to `name`; also a decorator. Spans may nest under different names."""
    global _detail
    began, start = time.time(), time.perf_counter()
    _mark(name)
    try:
        yield
    finally:
        seconds = time.perf_counter() - start
        _seconds[name] += seconds
        _ended.append(Span(name, began, seconds))
        _mark(f"after {name}")
        _detail = ""


def take() -> dict[str, float]:
    """Seconds per span since the last call."""
    taken = dict(_seconds)
    _seconds.clear()
    return taken


def take_ended() -> list[Span]:
    """Every span that ended since the last call, in the order of their ends."""
    taken = list(_ended)
    _ended.clear()
    return taken
