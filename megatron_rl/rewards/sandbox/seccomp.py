"""The seccomp filters, as classic BPF: a list of calls that fail with EPERM, some only with certain arguments."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from functools import cache
from typing import Any

from megatron_rl.rewards.sandbox import syscalls
from megatron_rl.rewards.sandbox.kernel import libc

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000  # a second numbering of the same calls on x86_64
Filter = tuple[Any, Any]  # what the kernel is pointed to, and the instructions, which that points to

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2

_CLONE_THREAD = 0x00010000
_CREATES = 0o100 | 0o1000 | 0o20000000  # O_CREAT, O_TRUNC, O_TMPFILE
_PR_SET_PDEATHSIG = 1
_RLIMIT_CPU = 0
# Each makes the kernel send a signal to a process of one's choice when a descriptor becomes ready.
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15
_FIOSETOWN, _SIOCSPGRP, _TIOCSTI, _TIOCLINUX = 0x8901, 0x8902, 0x5412, 0x541C


def deny_to_service(*, files_too: bool) -> None:
    """Takes from this process, for good, what the zygote can do without; with `files_too`, creating files.

    Raises OSError where the kernel or the machine has no such filter.
    """
    body = _deny(syscalls.numbers(syscalls.SERVICE))
    if files_too:  # where Landlock does it, opening /dev/null to write stays possible
        body += _deny_bits("open", 1, _CREATES) + _deny_bits("openat", 2, _CREATES)
        body += _deny_all("openat2", errno.ENOSYS)  # its flags lie in memory, where a filter cannot look
    body += _deny_values("fcntl", 1, (_F_SETOWN, _F_SETSIG, _F_SETOWN_EX))
    body += _deny_values("ioctl", 1, (_FIOSETOWN, _SIOCSPGRP, _TIOCSTI, _TIOCLINUX))
    _load(_finished(body))


def deny_to_program() -> None:
    """Takes from this process, for good, other processes: it can start threads, but fork, run and signal nothing.

    Raises OSError where the kernel or the machine has no such filter.
    """
    _load(program_filter())


@cache
def program_filter() -> Filter:
    """That filter, made once: the zygote's memory is shared by its programs as long as it is only read."""
    body = _deny(syscalls.numbers(syscalls.PROGRAM))
    body += _deny_all("clone3", errno.ENOSYS)  # the C library then takes clone, whose flags can be seen
    body += _unless_bits("clone", 0, _CLONE_THREAD)
    body += _unless_zero("prlimit64", 0)  # of itself it may lower limits, but one:
    # At the end of its processor time the kernel kills it, which looks as if it had been killed from outside.
    body += _deny_values("prlimit64", 1, (_RLIMIT_CPU,)) + _deny_values("setrlimit", 0, (_RLIMIT_CPU,))
    body += _unless_zero("sendto", 5)  # a pair of sockets is no network, unless it can send to another address
    return _finished(body + _deny_values("prctl", 0, (_PR_SET_PDEATHSIG,)))


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _fail(error: int = errno.EPERM) -> bytes:
    return _instruction(_RETURN, _ERRNO | error)


def _deny(numbers: Iterable[int]) -> bytes:
    return b"".join(_instruction(_EQUAL, number, 0, 1) + _fail() for number in numbers)


def _argument(index: int) -> bytes:
    return _instruction(_LOAD, 16 + 8 * index)  # the lower half; both machines are little-endian


def _when(name: str, block: bytes) -> bytes:
    """`block`, for the call `name` only; the call's number is loaded again behind it."""
    number = syscalls.number(name)
    if number is None:
        return b""
    block += _instruction(_LOAD, 0)
    return _instruction(_EQUAL, number, 0, len(block) // 8) + block


def _deny_all(name: str, error: int) -> bytes:
    return _when(name, _fail(error))


def _deny_bits(name: str, argument: int, bits: int) -> bytes:
    return _when(name, _argument(argument) + _instruction(_ANY_BIT, bits, 0, 1) + _fail())


def _unless_bits(name: str, argument: int, bits: int) -> bytes:
    return _when(name, _argument(argument) + _instruction(_ANY_BIT, bits, 1, 0) + _fail())


def _unless_zero(name: str, argument: int) -> bytes:
    return _when(name, _argument(argument) + _instruction(_EQUAL, 0, 1, 0) + _fail())


def _deny_values(name: str, argument: int, values: Iterable[int]) -> bytes:
    tests = b"".join(_instruction(_EQUAL, value, 0, 1) + _fail() for value in values)
    return _when(name, _argument(argument) + tests)


def _finished(body: bytes) -> Filter:
    """The filter that allows what `body` lets pass, on this machine's own system calls alone."""
    head = _instruction(_LOAD, 4) + _instruction(_EQUAL, syscalls.audit_architecture(), 1, 0)
    head += _instruction(_RETURN, _KILL) + _instruction(_LOAD, 0)
    head += _instruction(_AT_LEAST, _X32, 0, 1) + _instruction(_RETURN, _KILL)
    text = head + body + _instruction(_RETURN, _ALLOW)
    instructions = ctypes.create_string_buffer(text, len(text))
    pointer = struct.pack("HxxxxxxQ", len(text) // 8, ctypes.addressof(instructions))
    return ctypes.create_string_buffer(pointer, 16), instructions


def _load(found: Filter) -> None:
    program, _ = found
    if libc().prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"the kernel takes no seccomp filter: {os.strerror(error)}")
