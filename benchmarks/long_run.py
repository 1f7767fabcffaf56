"""Does a step stay what it was after thousands of others? One long run of very small steps; prints one line of JSON.

What a run keeps, and what a step costs beside generating and training, must not grow with the steps before it. Memory
is looked at in the second half: for some 1,500 steps oneDNN makes kernels for new shapes, and keeps them.
Not covered: what grows with the size of a model or of its responses, GPUs, several ranks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from megatron_rl.report.journal import FILE_NAME, Row, is_validation, read_rows

ENGINES = ("generate", "idle", "score", "logprob", "update", "validate")  # what a step is made for
SETTINGS = {
    "scale.devices_per_node": 1,
    "sampling.prompts_per_step": 2,
    "sampling.samples_per_prompt": 8,
    "sampling.max_response_tokens": 12,
    "algorithm.dynamic_sampling": "none",  # every step does the same
    "run.max_validation_prompts": 8,
    "run.max_steps_without_update": 1000,
}


def main() -> None:
    """Trains and prints the figures."""
    options = parsed_arguments()
    with tempfile.TemporaryDirectory(prefix="megatron-rl-long-") as temporary:
        directory = Path(temporary) / "run"
        descriptors = train(directory, options.steps)
        rows = [row for row in read_rows(directory / FILE_NAME) if not is_validation(row)]
        part = len(descriptors) // 4  # medians: a file is open for a moment now and then
        found = figures(rows) | {
            "descriptors_growth": statistics.median(descriptors[-part:])
            - statistics.median(descriptors[part : 2 * part]),
            "directory_megabytes": sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e6,
        }
    print(json.dumps({name: float(f"{value:.4g}") for name, value in found.items()}))


def figures(rows: Sequence[Row]) -> dict[str, float]:
    """What a step is beside the engines, first and last, and how memory grew, of a run's lines about steps."""
    beside = [row["time/step_seconds"] - sum(row.get(f"time/{part}_seconds", 0.0) for part in ENGINES) for row in rows]
    part = len(rows) // 4
    first, last = statistics.median(beside[:part]), statistics.median(beside[-part:])
    late = rows[len(rows) // 2 :]
    memory = statistics.linear_regression([row["step"] for row in late], [row["memory/host_bytes"] for row in late])
    return {
        "steps": rows[-1]["step"],
        "beside_engines_milliseconds_first": 1000 * first,
        "beside_engines_milliseconds_last": 1000 * last,
        "beside_engines_ratio": last / first,
        "memory_kilobytes_per_step": memory.slope / 1000,
        "memory_megabytes": rows[-1]["memory/host_bytes"] / 1e6,
    }


def train(directory: Path, num_steps: int) -> list[int]:
    """Runs the real command; the open files of its process, every second. Ends this program where the run fails."""
    settings = {**SETTINGS, "num_steps": num_steps}
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "megatron_rl", "train", "prorl_v2", "--scale", "cpu", *words]
    command += ["--directory", str(directory)]
    process = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=sys.stderr)
    counts, is_over = [], threading.Event()

    def watch() -> None:
        while not is_over.wait(1.0):
            try:
                counts.append(sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir()))
            except OSError:  # it has just ended
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    is_over.set()
    watcher.join()
    if code:
        raise SystemExit(code)
    return counts


def parsed_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000, metavar="N", help="of training; 3000, as ProRL v2 has")
    options = parser.parse_args()
    if options.steps < 100:
        parser.error(f"--steps {options.steps}: nothing would be seen to grow; use 100 or more")
    return options


if __name__ == "__main__":
    main()
