"""What a process gives up before it meets a response: each layer applied, or the reason why it could not be."""

from __future__ import annotations

import os
import resource
import signal
import site
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_rl.rewards.sandbox import landlock, seccomp
from megatron_rl.rewards.sandbox.kernel import libc

LAYERS = ("rlimits", "uid", "landlock", "seccomp", "bubblewrap")
MAX_DESCRIPTORS = 64
MAX_TASKS = 64  # of a user of its own; the trainer's user has many already
_SYSTEM_FOLDERS = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache")
_DEVICES = ("/dev/urandom", "/dev/zero")
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CAPABILITY_VERSION_3 = 0x20080522


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

        Empty where nothing is.

        >>> Level(missing={"uid": "not root", "bubblewrap": "not installed"}).lacking
        ''
        """
        reasons = [f"{layer} ({self.missing[layer]})" for layer in ("rlimits", "seccomp") if layer in self.missing]
        if {"uid", "landlock"} <= self.missing.keys():
            reasons.append(f"uid ({self.missing['uid']}) or landlock ({self.missing['landlock']})")
        return "; ".join(reasons)


def confine(*, uid: int | str, readable: Sequence[str], limits: Mapping[int, int]) -> dict[str, str]:
    """Applies all layers but bubblewrap to this process, for good, and returns the missing ones with the reason.

    `uid` is the user to become, or why there is none. The process can still fork; see `seal`. After it, files below
    `readable` can be read, and nothing can be written but /dev/null.
    """
    missing: dict[str, str] = {}
    tasks = len(list(Path("/proc/self/task").iterdir())) if Path("/proc/self/task").is_dir() else 1
    try:
        _limit(limits)
    except (OSError, ValueError) as error:
        missing["rlimits"] = str(error)
    hidden = _hidden(readable)
    if isinstance(uid, str):
        missing["uid"] = uid
    elif hidden:
        missing["uid"] = f"other users cannot read {hidden}; install Python where they can"
    else:
        try:
            _become(uid)
        except OSError as error:
            missing["uid"] = f"cannot become user {uid}: {error.strerror}"
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


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when the thread that started it ends, even from within a C call.

    To be called after the last change of user, which undoes it, and before `seal`. Ends the process if `parent` is no
    more. The kernel asks whether the parent may signal this process, so a parent that became another user may not.
    """
    if sys.platform == "linux" and libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise RuntimeError("the kernel refuses PR_SET_PDEATHSIG; the process is sealed already")
    if os.getppid() != parent:
        os._exit(0)


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


def _become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    resource.setrlimit(resource.RLIMIT_NPROC, (MAX_TASKS, MAX_TASKS))  # it counts all tasks of the user


def _give_up_privileges() -> None:
    """No capability now, and none by running a program."""
    libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc().capset(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytes(24))
