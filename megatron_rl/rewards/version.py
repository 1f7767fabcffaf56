"""Which verifiers these are, so that what others judged is not taken for their verdicts."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

# What verdicts rest on beside our own source. The last is `as_published` alone.
PACKAGES = ("math-verify", "sympy", "latex2sympy2_extended", "mpmath", "langdetect", "reasoning-gym")
LENGTH = 12  # hexadecimal digits


@cache
def version() -> str:
    """A digest of the verifiers' source and of the versions of the packages that they judge with."""
    folder, found = Path(__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    for package in PACKAGES:
        try:
            found.update(f"{package} {metadata.version(package)}\n".encode())
        except metadata.PackageNotFoundError:
            found.update(f"{package} is not there\n".encode())
    return found.hexdigest()[:LENGTH]
