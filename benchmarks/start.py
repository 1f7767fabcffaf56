"""How long a run takes from its command to the end of its first step, here and at an older revision, in turn.

Prints one line of JSON. Not covered: GPUs, whose engines take longer to start than to import; the data of a real run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Starts runs of one step, one tree after the other, and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", default="cpu")
    parser.add_argument("--against", metavar="REVISION", help="of this repository; its starts are the other side")
    options = parser.parse_args()
    with checked_out(options.against) as other:
        trees = {"": REPOSITORY} | ({"_before": other} if other is not None else {})
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in trees}
        for turn in range(options.repeats):
            for name, tree in trees.items():
                print(f"turn {turn + 1} of {options.repeats}: {tree}", file=sys.stderr)
                found[name].append(started(tree, options.scale))
    figures: dict[str, float] = {}
    for name, turns in found.items():
        for place, what in enumerate(("first_step_seconds", "command_seconds", "cpu_seconds")):
            figures[what + name] = statistics.median(turn[place] for turn in turns)
    if options.against is not None:
        for what in ("first_step_seconds", "command_seconds", "cpu_seconds"):
            figures[what.replace("seconds", "ratio")] = figures[what] / figures[what + "_before"]
    rounded = {name: round(value, 3) for name, value in figures.items()}
    print(json.dumps({**rounded, "scale": options.scale, "repeats": options.repeats, "against": options.against}))


@contextlib.contextmanager
def checked_out(revision: str | None) -> Iterator[Path | None]:
    """A tree of the repository at a revision, for a while; None without one."""
    if revision is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="megatron-rl-start-") as temporary:
        tree = Path(temporary) / "tree"
        git = ["git", "-C", str(REPOSITORY), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def started(tree: Path, scale: str) -> tuple[float, float, float]:
    """Seconds from the command to the end of the first step and to its own end, and CPU seconds of all processes."""
    with tempfile.TemporaryDirectory(prefix="megatron-rl-start-") as temporary:
        directory = Path(temporary) / "run"
        command = [sys.executable, "-m", "megatron_rl", "train", "prorl_v2", "--scale", scale]
        command += ["--set", "num_steps=1", "--directory", str(directory)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.time()
        subprocess.run(
            command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, check=True, stdout=subprocess.DEVNULL
        )
        ended = time.time()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        lines = (json.loads(line) for line in (directory / "ledger.jsonl").read_text().splitlines())
        first = next(line["at"] for line in lines if line["event"] == "step")
    return first - began, ended - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
