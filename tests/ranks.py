"""Runs a test's body in several gloo processes: the layout tests' one way to have ranks.

Ranks are copies of a process that has imported what they need, as those of `train` are. A worker of pytest starts one
for all of its tests, for on two cores importing takes longer than most of what is tested.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from megatron_rl.runtime.orphans import die_with_parent
from megatron_rl.runtime.ranks import (
    Forked,
    World,
    import_ahead,
    launch_ranks,
    process_environment,
)
from recipes.scales import SCALES

ROOT = Path(__file__).parents[1]
HAS_GPU = Path("/dev/nvidiactl").exists()  # without asking CUDA, which does not survive a fork
VARIABLES = {"OMP_NUM_THREADS": "1"} if HAS_GPU else process_environment(SCALES["cpu"])
IMPORTED = "tests.ahead"
POLL_SECONDS = 0.02
SHOWN = 6000  # characters of what ranks said


def run_ranks(body: str, num_ranks: int, *, timeout_seconds: float = 240, **arguments: Any) -> list[Any]:
    """The JSON result of `module:function(**arguments)` on every rank, in rank order.

    All others are ended soon after the first that fails, and all after `timeout_seconds`, imports left out. Raises
    AssertionError with the end of what they said.
    """
    with tempfile.TemporaryDirectory() as folder:
        request = {"body": body, "arguments": arguments, "num_ranks": num_ranks, "folder": folder}
        trouble = _origin().asked(request | {"timeout_seconds": timeout_seconds, "environment": dict(os.environ)})
        assert not trouble, f"ranks {trouble}:\n{(Path(folder) / 'output').read_text(errors='replace')[-SHOWN:]}"
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(num_ranks)]


class _Origin:
    """The process that ranks are copies of; it ends with this one."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.ranks"],
            env=os.environ | VARIABLES | {"PYTHONPATH": path},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )
        atexit.register(self.end)

    def asked(self, request: dict[str, Any]) -> str:
        """What became of the ranks: nothing, or how they ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        answer = ""
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        finally:
            if not answer:  # it died, or pytest's own time limit is over: the next test begins with another
                self.end()
                _origin.cache_clear()
        assert answer, "the process that ranks are copies of has ended; what it said is shown with this test"
        return str(json.loads(answer))

    def end(self) -> None:
        self.process.kill()  # ranks die with it
        self.process.wait()


@functools.cache
def _origin() -> _Origin:
    return _Origin()


def _serve() -> None:
    """Runs what is asked for on stdin, a line of JSON each, and answers with a line."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what imports have to say is no answer
    assert import_ahead(IMPORTED, VARIABLES), "a process with several threads is not forked"
    for line in sys.stdin:
        print(json.dumps(_outcome(json.loads(line))), file=answers, flush=True)


def _outcome(request: dict[str, Any]) -> str:
    launcher = Forked(partial(_launch, request, os.getpid()))
    limit = request["timeout_seconds"]
    deadline, is_late = time.monotonic() + limit, False
    while os.waitid(os.P_PID, launcher.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() >= deadline:
            is_late = True
            os.kill(launcher.pid, signal.SIGKILL)  # ranks die with it
            break
        time.sleep(POLL_SECONDS)
    code = launcher.wait()
    return f"were not done after {limit} s" if is_late else f"ended with {code}" if code else ""


def _launch(request: dict[str, Any], parent: int) -> int:
    """Starts the ranks and waits for them, in a process of its own; returns the exit code of them all."""
    die_with_parent(parent)
    folder = Path(request["folder"])
    with (folder / "output").open("w") as output, Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.update(request["environment"])
    module, function = request["body"].split(":")
    body = getattr(importlib.import_module(module), function)

    def work(world: World) -> int:
        (folder / f"{world.rank}.json").write_text(json.dumps(body(**request["arguments"])))
        return 0

    assert import_ahead(IMPORTED, VARIABLES), f"{module} starts a thread; such a process is not forked"
    return launch_ranks(request["num_ranks"], [], VARIABLES, IMPORTED, work)


if __name__ == "__main__":
    _serve()
