"""What happens in the process of one program, from the fork to its end: nothing in here can be trusted afterwards.

The channel brings the request and takes the result: `READY` once no layer is left to apply, then, where a function was
called, the value of each call as a line of JSON. A program that writes to the channel itself only returns other values:
what was expected never enters this process.
"""

from __future__ import annotations

import atexit
import builtins
import io
import json
import os
import random
import resource
import signal
import sys
import threading
import types
from typing import Any, NoReturn

from megatron_rl.rewards.sandbox import layers
from megatron_rl.rewards.sandbox.protocol import READY
from megatron_rl.runtime.orphans import die_with_parent

CHANNEL = 3  # the descriptor of the channel
MAX_CPU_SECONDS = 600  # a backstop for the supervisor's clock, which stops a program long before

# What LeetCode's own environment offers to a solution; imported here, once, for the zygote.
_PRELUDE = """
import bisect, collections, copy, datetime, functools, heapq, itertools, math, operator, random, re, string
from math import *
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from typing import *
from builtins import *
"""
_OFTEN_IMPORTED = "import abc, array, cmath, dataclasses, decimal, enum, fractions, queue, statistics, time"
_prelude: dict[str, Any] = {}
exec(_PRELUDE + _OFTEN_IMPORTED, _prelude)
# Behind the program's own names, as Python's builtins are: what is called must be the program's, and no `math.gcd`.
_BUILTINS = vars(builtins) | {name: value for name, value in _prelude.items() if not name.startswith("__")}


def run(parent: int, channel: int, source: int, sink: int, *, seals: bool) -> NoReturn:
    """Becomes the program that arrives on the channel, with `source` and `sink` as its input and output.

    Where it `seals` itself and cannot, it ends without having said that it is ready.
    """
    leave, status = os._exit, 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(source, 0)
        os.dup2(sink, 1)
        os.dup2(os.dup(channel), CHANNEL)
        os.closerange(CHANNEL + 1, layers.MAX_DESCRIPTORS)
        die_with_parent(parent)
        resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))
        if seals:
            layers.seal()
        os.write(CHANNEL, READY)
        status = _run(json.loads(_receive()))
        threading._shutdown()  # type: ignore[attr-defined]  # as multiprocessing ends its children
        atexit._run_exitfuncs()
        _write_out()
    except BaseException:  # whatever it is, it must not climb into the zygote's loop
        status = status or 1
    finally:
        leave(status)
    raise AssertionError("the process has ended")


def _receive() -> bytes:
    chunks = []
    while chunk := os.read(CHANNEL, 1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


def _run(request: dict[str, Any]) -> int:
    """The exit status of the program, as Python itself would set it."""
    is_called = request["function"] is not None
    dumps, seed = json.dumps, random.seed
    seed(0)  # so that a verdict can be had again; Python seeds it anew in every fork
    # A program run by itself is __main__; a solution that is called is imported, so that its own main stays idle.
    module = types.ModuleType("solution" if is_called else "__main__")
    sys.modules[module.__name__] = module
    module.__dict__["__builtins__"] = dict(_BUILTINS) if is_called else builtins
    sys.argv = ["main.py"]
    if not is_called:
        os.close(CHANNEL)
    try:
        exec(compile(request["source"], "main.py", "exec"), module.__dict__)
        if is_called:
            function = _function(module, request["function"])
            for place, arguments in enumerate(request["calls"]):
                if place:
                    seed(0)  # as if it were the first
                value = function(*arguments)
                answer = memoryview(dumps(value, allow_nan=False, default=_number).encode() + b"\n")
                while answer:
                    answer = answer[os.write(CHANNEL, answer) :]
    except SystemExit as stop:
        return _status(stop.code)
    return 0


def _function(module: types.ModuleType, name: str) -> Any:
    """The function of that name: the program's own before a method of its Solution, that before one it imported."""
    found, solution = vars(module).get(name), vars(module).get("Solution")
    is_own = getattr(found, "__module__", None) == module.__name__
    if name in vars(module) and (is_own or not hasattr(solution, name)):
        return found
    return getattr(module.Solution(), name)


def _write_out() -> None:
    """Has the files of the program and of Python write what they hold back, as Python does where it ends."""
    names = vars(sys.modules["__main__"]).values()
    owners = [value.__self__ if type(value) is types.BuiltinMethodType else value for value in names]  # open(1).write
    files: list[Any] = [*(owner for owner in owners if isinstance(owner, io.IOBase)), sys.stdout, sys.__stdout__]
    for file in files:
        if file is not None and not getattr(file, "closed", False):
            file.flush()


def _number(value: object) -> object:
    """One of numpy's scalars as Python's; json asks for what it has no word for. Raises TypeError for anything else."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return value.item()
    raise TypeError(f"JSON has no word for a {type(value).__name__}")


def _status(code: object) -> int:
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1
