"""A checkout in which the pages' commands are given as written, and take seconds.

It is this one, save that the recipes' schedules are divided by more at the scales of a CPU, so that ProRL v2 has 12
steps in place of 150, that the suite `mini` has 128 samples of each problem in place of 256, and that a mixture has one
row of each generated task in place of 400.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT

SHORTER = (
    ("scales.py", "schedule_divisor=20,", "schedule_divisor=250,"),
    ("suites/mini.py", "samples_per_problem=256,", "samples_per_problem=128,"),
    ("mixtures/prorl.py", "rows_per_task=400,", "rows_per_task=1,"),
    ("mixtures/prorl.py", "rows_per_task=100,", "rows_per_task=1,"),
)
LINKED = ("CHANGELOG.md", "Makefile", "benchmarks", "containers", "demo", "docs", "megatron_rl", "pyproject.toml")
COPIED = ("recipes", "slurm")
UNSET = ("WANDB_MODE", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "HF_HUB_CACHE", "HF_HUB_OFFLINE")
Done = subprocess.CompletedProcess[str]


def make_checkout(folder: Path) -> Path:
    """Makes it of links, with recipes and scripts of its own and an environment that `make setup` finds up to date."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__", "site.env")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name, published, shorter in SHORTER:
        text = (folder / "recipes" / name).read_text()
        assert text.count(published) == 1, f"{name}: {published}"
        (folder / "recipes" / name).write_text(text.replace(published, shorter))
    (folder / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.suffix != ".stamp":
            (folder / ".venv" / path.name).symlink_to(path)
    lock, project = (hashlib.sha256((ROOT / one).read_bytes()).hexdigest() for one in MADE_OF)
    (folder / ".venv" / "lock.stamp").write_text(f"{folder.resolve()} {lock}  -\n")
    (folder / ".venv" / "project.stamp").write_text(f"{project}  -\n")
    return folder


MADE_OF = ("containers/cpu.lock", "pyproject.toml")  # what containers/setup.sh looks at


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """The variables of a newcomer's shell, in which Python finds the checkout's recipes."""
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    own = {"PYTHONPATH": str(folder), "HF_HOME": str(folder / "huggingface"), "PIP_NO_INDEX": "1"}
    return kept | own | variables


def given(folder: Path, line: str, **variables: str) -> Done:
    """A line of a page typed in the checkout, once its environment is activated."""
    return subprocess.run(
        ["bash", "-c", f"source .venv/bin/activate; {line}"],
        cwd=folder,
        env=environment(folder, **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
