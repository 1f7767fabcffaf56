"""A run directory is one run's: the lock that says so, and the name that ties shared memory to it."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the directory for this process; the lock goes with the process, however it ends.

    Raises RuntimeError when another live process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                f"directory {directory}: another run is using it; wait for its end, or choose another with --directory"
            ) from None
        yield


def shared_memory_name(directory: Path) -> str:
    """What the names of this run's shared memory contain: the same for every attempt in a directory, and no other."""
    return "megatron-rl-" + hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]


def remove_shared_memory(directory: Path) -> list[str]:
    """Removes what an attempt in this directory left on this machine, and returns the names.

    Only while no attempt runs: a live one's memory would go as well.
    """
    left = [path for path in SHARED_MEMORY.glob("*") if shared_memory_name(directory) in path.name]
    for path in left:
        path.unlink(missing_ok=True)
    return [path.name for path in left]
