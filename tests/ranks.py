"""Runs a test's body in several gloo processes: the layout tests' one way to have ranks."""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from megatron_rl.runtime.ranks import (
    IMPORTED_BEFORE_FORK,
    World,
    free_port,
    import_ahead,
    launch_ranks,
    process_environment,
)
from recipes.scales import SCALES

ROOT = Path(__file__).parents[1]


def run_ranks(body: str, num_ranks: int, *, timeout_seconds: float = 240, **arguments: Any) -> list[Any]:
    """The JSON result of `module:function(**arguments)` on every rank, in rank order.

    Raises AssertionError with the end of the failing rank's output.
    """
    with tempfile.TemporaryDirectory() as folder:
        port, processes, outputs = free_port(), [], []
        for rank in range(num_ranks):
            outputs.append(Path(folder) / f"{rank}.log")
            environment = os.environ | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(num_ranks),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                "RESULT": str(Path(folder) / f"{rank}.json"),
            }
            with outputs[-1].open("w") as output:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "tests.ranks", body, json.dumps(arguments)],
                        env=environment,
                        cwd=ROOT,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )
        try:
            codes = [process.wait(timeout_seconds) for process in processes]
        finally:
            for process in processes:
                process.kill()
        tails = [output.read_text()[-3000:] for output in outputs]
        assert not any(codes), f"ranks ended with {codes}:\n" + "\n---\n".join(
            tail for code, tail in zip(codes, tails, strict=True) if code
        )
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(num_ranks)]


def run_forked(body: str, num_ranks: int, *, timeout_seconds: float = 240, **arguments: Any) -> list[Any]:
    """As `run_ranks`, but the ranks are copies of one process that has imported the engines, as those of `train` are.

    All others are ended soon after the first that fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.ranks", body, json.dumps(arguments), str(num_ranks), folder],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_seconds,
        )
        assert done.returncode == 0, f"ranks ended with {done.returncode}:\n{done.stdout[-6000:]}"
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(num_ranks)]


def _fork(module: str, function: str, arguments: dict[str, Any], num_ranks: int, folder: Path) -> int:
    body = getattr(importlib.import_module(module), function)

    def work(world: World) -> int:
        (folder / f"{world.rank}.json").write_text(json.dumps(body(**arguments)))
        return 0

    engines, variables = IMPORTED_BEFORE_FORK["cpu"], process_environment(SCALES["cpu"])
    assert engines is not None and import_ahead(engines, variables), "a process with several threads is not forked"
    return launch_ranks(num_ranks, [], variables, engines, work)


if __name__ == "__main__":
    gc.disable()  # a third of an engine's start would go into looking through its imports
    module, function = sys.argv[1].split(":")
    if len(sys.argv) > 3:
        sys.exit(_fork(module, function, json.loads(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
    result = getattr(importlib.import_module(module), function)(**json.loads(sys.argv[2]))
    Path(os.environ["RESULT"]).write_text(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # engines keep threads that make an ordinary exit slow
