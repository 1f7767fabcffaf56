"""The clean process that programs are forked from: it holds Python's common modules, and nothing of any answer.

It talks over the socket whose number is its first argument; its second is the user to become, or why there is none.
Those behind it are packages to import before that.
Each message it sends or takes is a datagram. First it says which layers are missing. Told to `RUN`, it makes the
program's pipes, forks, and sends the other ends, through which alone the program's text and input go. When the program
has ended it sends how. It ends, with its program, when told nothing more because the supervisor is gone.
Run as `python -P -s -B -m megatron_rl.rewards.sandbox.zygote` by run.py.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Mapping

from megatron_rl.rewards.sandbox import layers, program, seccomp
from megatron_rl.rewards.sandbox.protocol import RUN

MAX_ADDRESS_BYTES = 1 << 30
STACK_BYTES = 64 << 20  # for programs that recurse deeply; the system's usual 8 MiB end some of them
_READY_TO_DIE_FIRST = "1000"  # oom_score_adj: when memory runs out, the kernel kills a program and not the trainer


def main() -> None:
    """Serves one program at a time until the supervisor is gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    user = sys.argv[2]
    for package in sys.argv[3:]:
        importlib.import_module(package)
    missing = _confine(int(user) if user.isdecimal() else user)
    control.send(json.dumps(missing).encode())
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.collect()
    gc.freeze()  # the collector would touch, and so copy, every page in every program
    while message := control.recv(64):
        if message == RUN:  # a late KILL is for a program that has just ended
            _serve(control, woken, missing)


def _confine(user: int | str) -> dict[str, str]:
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - nothing else needs pathlib here
            file.write(_READY_TO_DIE_FIRST)
    except OSError:
        pass  # no /proc in here; the limits hold without it
    source_root = sys.path.pop(0)  # from PYTHONPATH; what lies beside the package is no business of programs
    readable = layers.python_folders(without=[source_root])
    limits = {resource.RLIMIT_AS: MAX_ADDRESS_BYTES}
    stack = resource.getrlimit(resource.RLIMIT_STACK)[1]
    wanted = STACK_BYTES if stack == resource.RLIM_INFINITY else min(STACK_BYTES, stack)
    resource.setrlimit(resource.RLIMIT_STACK, (wanted, stack))
    missing = layers.confine(users=[user], readable=readable, limits=limits)
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silence, descriptor)
    os.close(silence)
    if "seccomp" not in missing:
        seccomp.program_filter()
    return missing


def _serve(control: socket.socket, woken: int, missing: Mapping[str, str]) -> None:
    """One program, from its fork to its end."""
    ours, theirs = socket.socketpair()
    source, stdin = os.pipe()
    stdout, sink = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        program.run(parent, theirs.fileno(), source, sink, seals="seccomp" not in missing)
    theirs.close()
    os.close(source)
    os.close(sink)
    socket.send_fds(control, [b"started"], [ours.fileno(), stdin, stdout])
    ours.close()
    os.close(stdin)
    os.close(stdout)
    ended, status, usage = os.wait4(child, os.WNOHANG)
    while not ended:
        ready, _, _ = select.select([control.fileno(), woken], [], [])
        if control.fileno() in ready:
            supervisor_is_there = control.recv(64)
            os.kill(child, signal.SIGKILL)
            if not supervisor_is_there:
                sys.exit()
        if woken in ready:
            os.read(woken, 64)
        ended, status, usage = os.wait4(child, os.WNOHANG)
    _sweep(child, owns_user="uid" not in missing)
    report = [os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime]
    control.send(json.dumps(report).encode())


def _sweep(child: int, *, owns_user: bool) -> None:
    """Kills what a program has left; with seccomp it cannot have left anything."""
    try:
        if owns_user:
            os.kill(-1, signal.SIGKILL)  # all of this user, save the caller
        else:
            os.killpg(child, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


if __name__ == "__main__":
    main()
