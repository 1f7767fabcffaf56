"""What a process gives up before it meets a response: each layer applied, or the reason why it could not be."""

from __future__ import annotations

import os
import resource
import site
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_rl.rewards.sandbox import landlock, seccomp
from megatron_rl.rewards.sandbox.kernel import libc
from megatron_rl.rewards.sandbox.slots import ALL_TAKEN, NONE_ALONE

LAYERS = ("rlimits", "uid", "landlock", "seccomp", "bubblewrap")
MAX_DESCRIPTORS = 64
MAX_TASKS = 64  # of what the kernel counts for a process that is alone there; the trainer's user has many already
NOT_ALONE = "other processes have the user"
_SYSTEM_FOLDERS = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache")
_DEVICES = ("/dev/urandom", "/dev/zero")
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_CLONE_NEWUSER = 0x10000000


@dataclass(frozen=True, kw_only=True)
class Level:
    """How well this machine can confine a process."""

    missing: Mapping[str, str]  # layer -> why it is not there

    @property
    def present(self) -> tuple[str, ...]:
        return tuple(layer for layer in LAYERS if layer not in self.missing)

    @property
    def lacking(self) -> str:
        """What is missing of the least that model-written code may run with: rlimits, seccomp, and uid or landlock.

        Empty where nothing is. A machine that has users to spare must have one left.

        >>> Level(missing={"uid": "not root", "bubblewrap": "not installed"}).lacking
        ''
        """
        reasons = [f"{layer} ({self.missing[layer]})" for layer in ("rlimits", "seccomp") if layer in self.missing]
        if {"uid", "landlock"} <= self.missing.keys():
            reasons.append(f"uid ({self.missing['uid']}) or landlock ({self.missing['landlock']})")
        elif (reason := self.missing.get("uid")) in (ALL_TAKEN, NONE_ALONE):
            reasons.append(f"uid ({reason})")
        return "; ".join(reasons)


def confine(*, users: Iterable[int | str], readable: Sequence[str], limits: Mapping[int, int]) -> dict[str, str]:
    """Applies all layers but bubblewrap to this process, for good, and returns the missing ones with the reason.

    Of `users` it becomes the first that no other process has; a text says why there is none. The process can still
    fork; see `seal`. After it, files below `readable` can be read, and nothing can be written but /dev/null.
    """
    missing: dict[str, str] = {}
    tasks = len(list(Path("/proc/self/task").iterdir())) if Path("/proc/self/task").is_dir() else 1
    try:
        _limit(limits)
    except (OSError, ValueError) as error:
        missing["rlimits"] = str(error)
    hidden = _hidden(readable)
    reason = f"other users cannot read {hidden}; install Python where they can" if hidden else _become(users, tasks)
    if reason:
        missing["uid"] = reason
        _count_apart()
    if not reason or _is_alone(tasks):
        _cap(resource.RLIMIT_NPROC, MAX_TASKS)
    _give_up_privileges()
    if tasks > 1:  # both bind the calling thread alone
        return missing | dict.fromkeys(("landlock", "seccomp"), f"the process has {tasks} threads already")
    try:
        landlock.restrict(
            readable=[*readable, *_SYSTEM_FOLDERS, *_DEVICES],
            writable_files=["/dev/null"],
        )
    except OSError as error:
        missing["landlock"] = error.strerror or str(error)
    try:
        seccomp.deny_to_service(files_too="landlock" in missing)
    except OSError as error:
        missing["seccomp"] = error.strerror or str(error)
    return missing


def seal() -> None:
    """Takes from a confined process what only the zygote needs: it cannot fork, run a program or send a signal.

    Raises OSError where there is no seccomp.
    """
    seccomp.deny_to_program()


def python_folders(*, without: Sequence[str] = ()) -> list[str]:
    """The folders that this interpreter's libraries and packages are in."""
    libraries = [f"{prefix}/{name}" for prefix in (sys.base_prefix, sys.prefix) for name in ("lib", "lib64")]
    folders = dict.fromkeys([*libraries, *site.getsitepackages(), *sys.path])
    return [folder for folder in folders if Path(folder).is_dir() and folder not in ("", *without)]


def _limit(limits: Mapping[int, int]) -> None:
    for which, most in {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0, **limits}.items():
        resource.setrlimit(which, (most, most))  # no file may have any length: pipes and /dev/null are none
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_DESCRIPTORS, MAX_DESCRIPTORS))


def _hidden(folders: Sequence[str]) -> str:
    """The first of the folders on the way to `folders` that other users cannot pass, if there is one."""
    for folder in (Path(folder).resolve() for folder in folders):
        for place in (*reversed(folder.parents), folder):
            needed = 0o005 if place == folder and folder.is_dir() else 0o001
            if place.is_dir() and place.stat().st_mode & needed != needed:
                return str(place)
    return ""


def _become(users: Iterable[int | str], tasks: int) -> str:
    """Why this process, of so many tasks, could become none of `users`; empty where it became one."""
    for user in users:
        if isinstance(user, str):
            return user
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, 0)  # the way back, should others have it
        except OSError as error:
            return f"cannot become user {user}: {error.strerror}"
        is_alone = _is_alone(tasks)
        os.setresuid(*(user if is_alone else 0,) * 3)
        if is_alone:
            return ""
    return NOT_ALONE


def _is_alone(tasks: int) -> bool:
    """Whether the kernel counts nobody but this process, of so many tasks, against its user's limit of them.

    The kernel's count knows no bounds of containers, and is what the limit goes by.
    """
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (_at_most(tasks + 1, before[1]), before[1]))
    try:
        child = os.fork()
    except BlockingIOError:
        return False
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, before)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return True


def _count_apart() -> None:
    """Has the kernel count this process's tasks apart from its user's others, where it may have a user namespace."""
    libc().unshare(_CLONE_NEWUSER)  # since Linux 5.14; `_is_alone` finds out whether it did


def _cap(which: int, most: int) -> None:
    most = _at_most(most, resource.getrlimit(which)[1])
    resource.setrlimit(which, (most, most))


def _at_most(wanted: int, limit: int) -> int:
    return wanted if limit == resource.RLIM_INFINITY else min(wanted, limit)


def _give_up_privileges() -> None:
    """No capability now, and none by running a program."""
    libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc().capset(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytes(24))
