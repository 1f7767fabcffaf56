"""The supervisor of programs: starts the zygote, feeds one program at a time, and stops it at its limits."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from megatron_rl.rewards.sandbox import layers
from megatron_rl.rewards.sandbox.layers import Level
from megatron_rl.rewards.sandbox.protocol import KILL, READY, RUN
from megatron_rl.rewards.sandbox.slots import spare_users

START_SECONDS = 60.0  # imports from a cold shared file system
ANSWER_SECONDS = 10.0  # for the zygote to start a program, or to report its end
MAX_OUTPUT_BYTES = 4 << 20
_CHUNK_BYTES = 1 << 16


class SandboxError(RuntimeError):
    """The sandbox failed, which says nothing about the program."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a program ended, and what it said."""

    ended: Literal["exited", "time", "output"]  # by itself, or at one of its limits
    status: int  # its exit status; minus the signal, where one ended it
    output: bytes  # standard output
    value: bytes  # the called function's return value as a line of JSON, one for each call; those made before its end
    seconds: float  # by the clock
    cpu_seconds: float

    @property
    def is_clean(self) -> bool:
        """Whether it ended by itself and without an error."""
        return self.ended == "exited" and self.status == 0


class Sandbox:
    """Owns a zygote. Not for several threads; and the thread that made it must outlive it."""

    def __init__(self, *, allows_unsafe: bool = False, preloads: Sequence[str] = ()) -> None:
        """`preloads` are packages that programs find imported, beside those that they often import.

        Raises SandboxError where the zygote does not start, or its level does not suffice and may not be unsafe.
        """
        self._preloads = list(preloads)
        self._claims: list[socket.socket] = []
        for user in spare_users(self._claims):
            missing = self._start_as_well_as_can_be(str(user))
            if missing.get("uid") != layers.NOT_ALONE:
                break
            self._end_zygote()
        self.level = Level(missing=missing)
        if self.level.lacking and not allows_unsafe:
            self.close()
            raise SandboxError(
                f"model-written code is not run here: the sandbox lacks {self.level.lacking}; "
                "mend that, or allow it with --allow-unsafe-sandbox"
            )

    def run(
        self,
        source: str,
        *,
        stdin: bytes = b"",
        function: str | None = None,
        calls: Sequence[Sequence[Any]] = ((),),
        seconds: float,
    ) -> Execution:
        """How `source` ends as a program with `stdin`, or, given a `function` of it, the values of calling that.

        Each of `calls` has its arguments. They share a process: what one of them executes can change those after it.
        Raises SandboxError where the program could not be run; then close this sandbox and make another.
        """
        request = {"source": source, "function": function, "calls": [list(arguments) for arguments in calls]}
        try:
            self._control.send(RUN)
            with _Program(self._take_ends(), json.dumps(request).encode(), stdin) as program:
                return self._supervise(program, seconds)
        except (OSError, ValueError) as error:
            raise SandboxError(f"the zygote failed: {error}") from error

    def close(self) -> None:
        """Ends the zygote and what it runs."""
        self._end_zygote()
        for claim in self._claims:
            claim.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _end_zygote(self) -> None:
        self._control.close()
        try:
            self._process.wait(ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start_as_well_as_can_be(self, user: str) -> dict[str, str]:
        """The layers that a new zygote of that user, in bubblewrap where that works, lacks."""
        bubblewrap = shutil.which("bwrap")
        if bubblewrap is None:
            return self._start(user, []) | {"bubblewrap": "not installed"}
        try:
            return self._start(user, [bubblewrap, *_bubblewrap_arguments()])
        except SandboxError:
            reason = "it is installed, but this machine lets it make no namespaces"
            return self._start(user, []) | {"bubblewrap": reason}

    def _start(self, user: str, wrapper: Sequence[str]) -> dict[str, str]:
        """The layers that a new zygote of that user, started through `wrapper`, lacks."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        python = [sys.executable, "-P", "-s", "-B", "-m", "megatron_rl.rewards.sandbox.zygote"]
        with theirs, tempfile.TemporaryFile() as errors:
            self._process = subprocess.Popen(
                [*wrapper, *python, str(theirs.fileno()), user, *self._preloads],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd="/",
                env=_environment(),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            theirs.close()
            self._control.settimeout(START_SECONDS)
            try:
                hello = self._control.recv(_CHUNK_BYTES)
                self._control.settimeout(ANSWER_SECONDS)
                missing: dict[str, str] = json.loads(hello)
            except (OSError, ValueError) as error:
                self._process.kill()
                self._process.wait()
                self._control.close()
                errors.seek(0)
                words = errors.read().decode(errors="replace").strip().splitlines() or [str(error)]
                raise SandboxError(f"the zygote does not start: {words[-1]}") from error
        return missing

    def _take_ends(self) -> list[int]:
        _, ends, _, _ = socket.recv_fds(self._control, 64, 3)
        if len(ends) != 3:
            raise SandboxError(f"the zygote ended with status {self._process.poll()}")
        return ends

    def _supervise(self, program: _Program, seconds: float) -> Execution:
        began = time.monotonic()
        ended: Literal["exited", "time", "output"] = "exited"
        deadline = began + seconds
        program.selector.register(self._control, selectors.EVENT_READ)
        while not program.pump(self._control, deadline - time.monotonic()):
            now = time.monotonic()
            if ended == "exited" and (now >= deadline or program.num_bytes > MAX_OUTPUT_BYTES):
                ended = "time" if now >= deadline else "output"
                self._control.send(KILL)
                deadline = now + ANSWER_SECONDS
            elif ended != "exited" and now >= deadline:
                raise SandboxError("a program that was killed does not end")
        taken = time.monotonic() - began
        report = self._control.recv(64)
        program.drain()
        if not program.is_ready:
            raise SandboxError("the program's process ended before it was confined")
        status, cpu_seconds = json.loads(report)
        if status == -signal.SIGKILL and ended == "exited":
            raise SandboxError("the program was killed from outside; the machine may have run out of memory")
        return Execution(
            ended=ended,
            status=status,
            output=bytes(program.output),
            value=bytes(program.value),
            seconds=taken,
            cpu_seconds=cpu_seconds,
        )


class _Program:
    """The supervisor's ends of one program's channel, input and output, none of which can block it."""

    def __init__(self, ends: Sequence[int], request: bytes, stdin: bytes) -> None:
        self.channel, self.input, self.sink = ends
        self.value, self.output = bytearray(), bytearray()
        self.is_ready = False
        self.selector = selectors.DefaultSelector()
        self._unsent = {self.channel: memoryview(request), self.input: memoryview(stdin)}
        for end in ends:
            os.set_blocking(end, False)
        self.selector.register(self.channel, selectors.EVENT_READ | selectors.EVENT_WRITE)
        self.selector.register(self.sink, selectors.EVENT_READ)
        self.selector.register(self.input, selectors.EVENT_WRITE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.selector.close()
        for end in (self.channel, self.sink, self.input):
            if end >= 0:
                os.close(end)

    @property
    def num_bytes(self) -> int:
        return max(len(self.value), len(self.output))

    def pump(self, control: socket.socket, seconds: float) -> bool:
        """Moves what can be moved within `seconds`; whether the zygote has something to say."""
        has_report = False
        for key, events in self.selector.select(max(0.0, seconds)):
            if key.fileobj is control:
                has_report = True
                continue
            if events & selectors.EVENT_READ:
                self._read(key.fd)
            if events & selectors.EVENT_WRITE and key.fd in self.selector.get_map():  # it may just have ended
                self._write(key.fd)
        return has_report

    def drain(self) -> None:
        """Reads what a program that has ended left in its pipes."""
        for end in (self.channel, self.sink):
            while self._read(end):
                pass

    def _read(self, end: int) -> bool:
        try:
            chunk = os.read(end, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        except ConnectionResetError:  # it ended without having read its request
            chunk = b""
        if not chunk:
            if end in self.selector.get_map():
                self.selector.unregister(end)
            return False
        if end == self.channel and not self.is_ready:
            self.is_ready, chunk = chunk[:1] == READY, chunk[1:]
        if self.num_bytes <= MAX_OUTPUT_BYTES:  # what comes before a kill takes effect is not kept
            (self.value if end == self.channel else self.output).extend(chunk)
        return True

    def _write(self, end: int) -> None:
        unsent = self._unsent[end]
        try:
            unsent = unsent[os.write(end, unsent[:_CHUNK_BYTES]) :] if unsent else unsent
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):  # it does not want it
            unsent = unsent[:0]
        self._unsent[end] = unsent
        if unsent:
            return
        if end == self.input:
            self.selector.unregister(end)
            os.close(end)
            self.input = -1
        else:
            self.selector.modify(end, selectors.EVENT_READ)
            with socket.socket(fileno=os.dup(end)) as channel, contextlib.suppress(OSError):
                channel.shutdown(socket.SHUT_WR)


def source_root() -> str:
    """The folder to import this package from."""
    return str(Path(__file__).resolve().parents[3])


def _environment() -> dict[str, str]:
    """All that the zygote and its programs find in their environment."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {"PYTHONPATH": source_root(), "PYTHONHASHSEED": "0", "PYTHONUTF8": "1", **threads}


def _bubblewrap_arguments() -> list[str]:
    """A view of Python's folders alone, without network and other processes; the other layers are applied inside."""
    folders = [sys.base_prefix, sys.prefix, *layers.python_folders(without=[source_root()])]
    folders += [str(Path(source_root()) / "megatron_rl"), "/usr", "/lib", "/lib64", "/etc/ld.so.cache"]
    bound = [word for folder in dict.fromkeys(folders) for word in ("--ro-bind-try", folder, folder)]
    namespaces = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    return [*namespaces, "--die-with-parent", *bound, "--dev", "/dev"]
