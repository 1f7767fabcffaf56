"""Does the demo learn, on any seed? Trains by the real command once per seed and prints one line of JSON.

Not covered: learning at scales that need a GPU, and anything about speed but a step's typical duration.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from megatron_rl.report.journal import FILE_NAME, Row, is_validation, read_rows


def main() -> None:
    """Trains on seeds 1..n one after the other, then prints the figures."""
    options = parsed_arguments()
    figures: dict[str, float] = {}
    step_seconds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="megatron-rl-learning-") as temporary:
        for seed in range(1, options.seeds + 1):
            directory = (options.directory or Path(temporary)) / f"seed_{seed}"
            seconds = train(directory, seed, options)
            rows = list(read_rows(directory / FILE_NAME))
            start, end = first_and_last_accuracy(rows, directory)
            figures |= {f"seed_{seed}_start": start, f"seed_{seed}_end": end, f"seed_{seed}_gain": end - start}
            figures[f"seed_{seed}_wall_seconds"] = seconds
            step_seconds += [row["time/step_seconds"] for row in rows if "time/step_seconds" in row]
            say(f"seed {seed}: accuracy {start:.3f} -> {end:.3f} in {seconds:.0f} s")
    figures["seconds_per_step"] = statistics.median(step_seconds)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def train(directory: Path, seed: int, options: argparse.Namespace) -> float:
    """Wall seconds of one run from the start of its process; ends this program with the run's own exit code."""
    command = [sys.executable, "-m", "megatron_rl", "train", options.recipe, "--scale", options.scale]
    command += ["--directory", str(directory), "--set", f"run.seed={seed}"]
    command += [word for setting in options.set for word in ("--set", setting)]
    say(" ".join(command[1:]))
    began = time.perf_counter()
    code = subprocess.run(command, cwd=Path(__file__).parent.parent, stdout=sys.stderr, check=False).returncode
    if code:
        say(f"seed {seed}: the run ended with exit code {code}")
        raise SystemExit(code)
    return time.perf_counter() - began


def first_and_last_accuracy(rows: Sequence[Row], directory: Path) -> tuple[float, float]:
    """Greedy validation accuracy, averaged over the domains, before the first step and after the last."""
    found = [(row["step"], row["validation/accuracy"]) for row in rows if is_validation(row)]
    if len(found) < 2 or found[0][0] != 0:
        raise RuntimeError(
            f"{directory}: has validations at steps {[step for step, _ in found]}; needs step 0 and more"
        )
    return found[0][1], found[-1][1]


def say(line: str) -> None:
    """Writes a line of progress; standard output is for the figures."""
    print(line, file=sys.stderr, flush=True)


def parsed_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="run.seed is 1..N")
    parser.add_argument("--recipe", default="prorl_v2")
    parser.add_argument("--scale", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as for `train`; repeatable")
    parser.add_argument("--directory", type=lambda text: Path(text).resolve(), help="keeps the runs, in fresh folders")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds {options.seeds}: must be at least 1")
    # A run that exists would be resumed, and its wall time mean nothing.
    if options.directory is not None and any(options.directory.glob("seed_*")):
        parser.error(f"--directory {options.directory}: holds runs already; choose another or remove them")
    return options


if __name__ == "__main__":
    main()
