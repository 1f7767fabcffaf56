"""A run directory is one run's: its lock, its checkpoints' manifests, and the name that ties shared memory to it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

CHECKPOINT_FORMAT = 1
MANIFEST_KEYS = {"format", "fingerprint", "layout", "state", "prompt_position", "files"}
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


def checkpoints(directory: Path) -> list[Path]:
    """The committed checkpoints, oldest first."""
    return sorted(path for path in (directory / "checkpoints").glob("step_??????") if path.is_dir())


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """What a checkpoint says of itself; None when that can not be read."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.keys() >= MANIFEST_KEYS else None


def check_manifest(folder: Path, manifest: dict[str, Any], fingerprint: str, layout: dict[str, Any]) -> None:
    """Raises ValueError where a readable checkpoint is of another format, recipe or layout."""
    if manifest["format"] != CHECKPOINT_FORMAT:
        raise ValueError(
            f"{folder} has checkpoint format {manifest['format']}, this version reads {CHECKPOINT_FORMAT}; "
            "go on with the version that wrote it, or use another --directory"
        )
    if manifest["fingerprint"] != fingerprint:
        raise ValueError(
            f"{folder} was made by another recipe, {manifest['fingerprint']} instead of {fingerprint}; "
            "give the settings it was started with, or another --directory"
        )
    if manifest["layout"] != layout:
        raise ValueError(
            f"{folder} was saved on layout {manifest['layout']}, this run has {layout}; "
            "resume at the scale it was saved at"
        )


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
    sync_file(folder)


def sync_file(path: Path) -> None:
    """Waits until the disk has what was written to `path`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shared_memory_name(directory: Path) -> str:
    """What the names of this run's shared memory contain: the same for every attempt in a directory, and no other."""
    return "megatron-rl-" + hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]


def name_shared_memory(directory: Path) -> None:
    """Makes the shared memory that this process gets from Python carry the run's name, not one drawn at random."""
    prefix = f"/{shared_memory_name(directory)}-"
    shared_memory._SHM_NAME_PREFIX = prefix  # type: ignore[attr-defined]
    shared_memory._SHM_SAFE_NAME_LENGTH = len(prefix) + 8  # type: ignore[attr-defined]


def remove_shared_memory(directory: Path) -> list[str]:
    """Removes what an attempt in this directory left on this machine, and returns the names.

    Only while no attempt runs: a live one's memory would go as well.
    """
    left = [path for path in SHARED_MEMORY.glob("*") if shared_memory_name(directory) in path.name]
    for path in left:
        path.unlink(missing_ok=True)
    return [path.name for path in left]
