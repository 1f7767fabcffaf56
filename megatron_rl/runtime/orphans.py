"""Processes that end with the one that started them: the kernel sees to it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
# Loaded here, for a child between fork and exec may find the loader's lock taken by a thread that it has no copy of.
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when the thread that started it ends, even from within a C call.

    To be called in the child, after its last change of user, which undoes it, and before a sandbox is sealed. Ends the
    process if `parent` is no more. The kernel asks whether the parent may signal this process, so a parent that became
    another user may not. Raises RuntimeError where the kernel refuses.
    """
    if sys.platform == "linux" and _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise RuntimeError("the kernel refuses PR_SET_PDEATHSIG; the process is sealed already")
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)
