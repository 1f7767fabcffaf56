"""The C library, for the system calls that Python has no name for."""

from __future__ import annotations

import ctypes
from functools import cache


@cache
def libc() -> ctypes.CDLL:
    """The library; after a call that failed, `ctypes.get_errno()` says why."""
    return ctypes.CDLL(None, use_errno=True)
