"""Landlock: the folders a process can see, for it and its children, for good; needs no privilege."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

from megatron_rl.rewards.sandbox.kernel import libc

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every machine
_VERSION = 1  # flag: return the version instead of making a ruleset
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_ALL_OF_VERSION_1 = (1 << 13) - 1
_ADDED = {2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # by version: moving between folders, truncating, device controls
_TRUNCATE = _ADDED[3]
_TCP = 3  # bind and connect, from version 4
_SIGNALS_AND_ABSTRACT_SOCKETS = 3  # from version 6


def restrict(*, readable: Iterable[str], writable_files: Iterable[str]) -> None:
    """Leaves this process reading below `readable` and writing to `writable_files`, where those paths exist.

    Raises OSError where the kernel has no Landlock.
    """
    version = _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    handled = _ALL_OF_VERSION_1 | sum(right for since, right in _ADDED.items() if version >= since)
    fields = [handled, _TCP if version >= 4 else 0, _SIGNALS_AND_ABSTRACT_SOCKETS if version >= 6 else 0]
    attributes = struct.pack("QQQ", *fields)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    try:
        for path in readable:
            _allow(ruleset, path, _READ_FILE | _READ_DIR | _EXECUTE)  # libraries are mapped to be executed
        for path in writable_files:
            _allow(ruleset, path, (_READ_FILE | _WRITE_FILE | _TRUNCATE) & handled)
        _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= ~_READ_DIR
        rule = struct.pack("=Qi", rights, place)
        _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0))
    finally:
        os.close(place)


def _call(number: int, *arguments: object) -> int:
    result = int(libc().syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"the kernel has no Landlock: {os.strerror(error)}")
    return result
