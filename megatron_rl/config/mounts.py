"""A container's mounts: where a path that a job sees lies on the machine that submits it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path


def mounts_of(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The mounts SOURCE:TARGET[:ro] that the site gives its containers; none where it has no containers."""
    mounts = environment.get("CONTAINER_MOUNTS", "") if environment.get("CONTAINER_IMAGE") else ""
    return tuple(filter(None, mounts.split(",")))


def on_host(path: Path, mounts: Sequence[str]) -> Path | None:
    """Where a path inside the container lies on the host; None where no mount leads to it.

    >>> on_host(Path("/data/prorl"), ["/shared/data:/data:ro", "/scratch"]), on_host(Path("/else"), ["/scratch"])
    (PosixPath('/shared/data/prorl'), None)
    """
    for mount in mounts:
        source, _, rest = mount.partition(":")
        target = Path(rest.partition(":")[0] or source)
        if path.is_relative_to(target):
            return Path(source) / path.relative_to(target)
    return None


def seen_here(path: Path) -> Path:
    """The path itself where this machine has it, or where no mount leads to it; else where it lies on this machine."""
    return path if path.exists() else on_host(path, mounts_of()) or path
