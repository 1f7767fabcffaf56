"""What do checkpoints cost? Trains by the real command, leaves, goes on, and prints one line of JSON.

Not covered: a shared file system, and devices that save in the background, where a step waits for less.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megatron_rl.config.run import Run
from megatron_rl.report.journal import FILE_NAME, Row, read_rows
from megatron_rl.runtime.preempt import REQUEUE_EXIT_CODE
from megatron_rl.runtime.rundir import checkpoints

SAVE_EVERY_STEPS = 2  # so that a short run has some saves; the default's share follows from theirs
SETTINGS = ("run.validate_every_steps=1000", "run.max_validation_prompts=1", f"run.save_every_steps={SAVE_EVERY_STEPS}")
POLL_SECONDS = 0.02


def main() -> None:
    """Trains some steps, leaves as if preempted, goes on by one step, then prints the figures."""
    options = parsed_arguments()
    with tempfile.TemporaryDirectory(prefix="megatron-rl-checkpoint-") as temporary:
        directory = Path(temporary) / "run"
        with training(directory, options) as process:
            first = seconds_to_step(directory, 1, process)
            seconds_to_step(directory, options.steps, process)
        rows = steps(directory)
        with training(directory, options) as process:
            resumed = seconds_to_step(directory, rows[-1]["step"] + 1, process)
        megabytes = sum(path.stat().st_size for path in checkpoints(directory)[-1].glob("*")) / 1e6
    # A row's time counts from the row before, so that of the first is all that came after the engines were up.
    start = first - rows[0]["time/step_seconds"]
    saves = [row["time/save_seconds"] for row in rows if row.get("time/save_seconds", 0) > 0]
    save = statistics.median(saves)
    step = statistics.median(row["time/step_seconds"] - row.get("time/save_seconds", 0) for row in rows[1:])
    figures = {
        "save_share": save / (Run.save_every_steps * step + save),
        "save_seconds": save,
        "save_seconds_most": max(saves),
        "step_seconds": step,
        "checkpoint_megabytes": megabytes,
        "save_seconds_per_megabyte": save / megabytes,
        "engine_start_seconds": start,
        "resume_seconds": resumed - start,
    }
    print(json.dumps({name: round(value, 5) for name, value in figures.items()}))


@contextmanager
def training(directory: Path, options: argparse.Namespace) -> Iterator[subprocess.Popen[bytes]]:
    """The training command, which is told to leave in the end, and has to do so in good order."""
    command = [sys.executable, "-m", "megatron_rl", "train", options.recipe, "--scale", options.scale]
    command += ["--directory", str(directory)]
    command += [word for setting in (*SETTINGS, *options.set) for word in ("--set", setting)]
    say(" ".join(command[1:]))
    process = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=sys.stderr)
    try:
        yield process
        process.send_signal(signal.SIGUSR1)
        code = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if code != REQUEUE_EXIT_CODE:
        say(f"the run ended with exit code {code}")
        raise SystemExit(code or 1)


def seconds_to_step(directory: Path, step: int, process: subprocess.Popen[bytes]) -> float:
    """Seconds from now until the step is in the run's metrics; ends this program when the run ends before."""
    began = time.perf_counter()
    while not any(row["step"] >= step for row in steps(directory)):
        if process.poll() is not None:
            say(f"the run ended with exit code {process.returncode} before step {step}")
            raise SystemExit(process.returncode or 1)
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - began


def steps(directory: Path) -> list[Row]:
    """The rows of the run's metrics that tell of a step."""
    return [row for row in read_rows(directory / FILE_NAME) if "time/step_seconds" in row]


def say(line: str) -> None:
    """Writes a line of progress; standard output is for the figures."""
    print(line, file=sys.stderr, flush=True)


def parsed_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="before the run is told to leave")
    parser.add_argument("--recipe", default="prorl_v2")
    parser.add_argument("--scale", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as for `train`; repeatable")
    options = parser.parse_args()
    if options.steps <= SAVE_EVERY_STEPS:
        parser.error(f"--steps {options.steps}: must be above {SAVE_EVERY_STEPS}, so that a save is followed by a step")
    return options


if __name__ == "__main__":
    main()
