"""The directory of a long run that did not happen: 10,000 steps of five domains, 700 resets, attempts that were killed.

python -m tests.report.long_run FOLDER
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from megatron_rl.report import ledger
from megatron_rl.report.metrics import METRICS
from megatron_rl.report.provenance import write_run_file
from tests.report.runs import make_run

DOMAINS = ("code", "instruct", "logic", "math", "stem")


def step_line(step: int, num_steps: int, is_reset: bool) -> dict[str, Any]:
    """A journal line with every metric and domain there is."""
    row: dict[str, Any] = {"step": step}
    for i, (name, metric) in enumerate(METRICS.items()):
        if name.startswith("validation/"):
            continue
        for j, domain in enumerate(("", *DOMAINS) if metric.per_domain else ("",)):
            wave = 0.5 + 0.4 * math.sin(step / num_steps * 5 + i + j / 3) + 0.03 * math.sin(step * 12.9898 + i)
            row[f"{name}/{domain}".rstrip("/")] = wave
    row |= {"run/samples_count": 8192.0 * step, "run/tokens_count": 2e7 * step, "time/step_seconds": 300.0}
    row |= {"reference/reset": float(is_reset), "length_term/is_on": float(step % 600 >= 500)}
    if is_reset:
        row["decisions"] = ["reference reset, optimizer kept: the KL to the reference is 8 times its median"]
    return row


def write_long_run(directory: Path, num_steps: int = 10_000, num_resets: int = 700, num_attempts: int = 40) -> Path:
    """Writes metrics, ledger and run file; returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    run, resets = make_run(directory), {round((i + 1) * num_steps / (num_resets + 1)) for i in range(num_resets)}
    with (directory / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for step in range(num_steps + 1):
            if step:
                file.write(json.dumps(step_line(step, num_steps, step in resets)) + "\n")
            if step % 50 == 0:
                accuracy = {f"validation/accuracy/{name}": 0.3 + 0.5 * step / num_steps for name in DOMAINS}
                mean = {"step": step, "validation/accuracy": 0.3 + 0.5 * step / num_steps}
                mean["validation/unjudged_fraction"] = 0.0
                file.write(json.dumps(mean | accuracy) + "\n")
    at, lines = 1.7e9, []
    for attempt in range(num_attempts):
        first, last = num_steps * attempt // num_attempts, num_steps * (attempt + 1) // num_attempts
        lines.append({"attempt": attempt, "event": "start", "at": (at := at + 60)})
        lines.append({"attempt": attempt, "event": "resume", "at": (at := at + 240), "step": first})
        for step in range(first + 1, last + 1 + 3 * (attempt + 1 < num_attempts)):
            seconds = {"generate": 180.0, "idle": 20.0, "score": 3.0, "logprob": 20.0, "update": 60.0, "refit": 1.0}
            lines.append(
                {"attempt": attempt, "event": "step", "at": (at := at + 300), "step": step, "seconds": seconds}
            )
        why = "finished" if attempt + 1 == num_attempts else "killed"
        lines.append({"attempt": attempt, "event": "end", "at": (at := at + 100), "why": why, "seconds": {}})
        write_run_file(run, first)
    (directory / ledger.FILE_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return directory


if __name__ == "__main__":
    write_long_run(Path(sys.argv[1]))
