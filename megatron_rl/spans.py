"""Where the time of a step goes: named spans, timed where the work is done and summed until somebody asks."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

_seconds: defaultdict[str, float] = defaultdict(float)


@contextmanager
def span(name: str) -> Iterator[None]:
    """Adds the wall time spent inside to `name`; also a decorator. Spans may nest under different names."""
    start = time.perf_counter()
    try:
        yield
    finally:
        _seconds[name] += time.perf_counter() - start


def take() -> dict[str, float]:
    """Seconds per span since the last call."""
    taken = dict(_seconds)
    _seconds.clear()
    return taken
