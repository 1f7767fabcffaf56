"""Checkpoints at step boundaries: one file per rank, a manifest with checksums, and a rename that commits them all.

Not covered yet: resuming on another layout, asynchronous saves.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from megatron_rl import parallel, rundir
from megatron_rl.actor.actor import Actor
from megatron_rl.data.prompts import PromptStream
from megatron_rl.log import get_logger
from megatron_rl.rollout import bank
from megatron_rl.run import Run
from megatron_rl.spans import span
from megatron_rl.types import Reset, Scores, State


@span("save")
def save(run: Run, state: State, actor: Actor, prompts: PromptStream) -> Path:
    """Writes the checkpoint of `state.step` and drops the oldest beyond `run.checkpoints_kept`.

    Collective over the world. Until the rename at the end, nothing that existed before is touched.
    """
    ranks = actor.ranks
    final = folder_of(run, state.step)
    partial = final.with_suffix(".partial")
    if ranks.is_main:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    parallel.barrier()
    name = file_of(ranks.rank)
    written = write_synced(partial / name, actor.state())
    files = {name: facts for part in parallel.gather({name: written}) for name, facts in part.items()}
    if ranks.is_main:
        manifest = {
            "format": rundir.CHECKPOINT_FORMAT,
            "recipe": run.recipe.release,
            "fingerprint": run.recipe.fingerprint,
            "layout": run.scale.layout,
            "state": dataclasses.asdict(state),
            "prompt_position": prompts.position,
            "files": files,
        }
        with (partial / "manifest.json").open("w") as file:
            json.dump(manifest, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        rundir.sync_folder(final.parent)
        for old in rundir.checkpoints(run.directory)[: -run.checkpoints_kept]:
            shutil.rmtree(old)
        bank.clear(run.directory, before_step=state.step)
    parallel.barrier()
    return final


def resume(run: Run, actor: Actor, prompts: PromptStream | None) -> State:
    """Restores the newest undamaged checkpoint and returns its state; a fresh state when there is none at all.

    Collective over the world. A damaged checkpoint is passed over for the one before, with a warning. Raises
    ValueError when it was made by another recipe or on another layout, RuntimeError when all are damaged.
    """
    folders = rundir.checkpoints(run.directory)
    for folder in reversed(folders):
        manifest, name = rundir.manifest_of(folder), file_of(actor.ranks.rank)
        damage = "manifest.json can not be read"
        if manifest is not None:
            rundir.check_manifest(folder, manifest, run.recipe.fingerprint, run.scale.layout)
            damage = damage_of(folder / name, manifest["files"][name])
        if any(found := [one for one in parallel.gather(damage) if one]):
            get_logger().warning("%s can not be used (%s); trying the one before", folder, found[0])
            continue
        assert manifest is not None, "an unreadable manifest is damage"
        actor.load_state(torch.load(folder / name, map_location="cpu", weights_only=True))
        if prompts is not None:
            prompts.seek(manifest["prompt_position"])
        return state_of(manifest["state"])
    if folders:
        raise RuntimeError(
            f"{run.directory}: none of its {len(folders)} checkpoints can be used; restore one of them, "
            "or start again in another --directory"
        )
    return State.fresh()


def folder_of(run: Run, step: int) -> Path:
    """Where the checkpoint of a step stands."""
    return run.directory / "checkpoints" / f"step_{step:06d}"


def file_of(rank: int) -> str:
    return f"rank_{rank:05d}.pt"


def state_of(saved: dict[str, Any]) -> State:
    """A State from its JSON form."""
    return State(
        **saved
        | {
            "scores": tuple(Scores(**one) for one in saved["scores"]),
            "reference_resets": tuple(Reset(**one) for one in saved["reference_resets"]),
            "kl_history": tuple(saved["kl_history"]),
        }
    )


def write_synced(path: Path, content: Any) -> dict[str, Any]:
    """Writes a file to the disk itself and returns its size and checksum."""
    with path.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": path.stat().st_size, "sha256": checksum(path)}


def damage_of(path: Path, facts: dict[str, Any]) -> str:
    """What is wrong with a file of a checkpoint; empty when nothing is."""
    if not path.exists():
        return f"{path.name} is missing"
    if path.stat().st_size != facts["bytes"]:
        return f"{path.name} has {path.stat().st_size} bytes instead of {facts['bytes']}"
    return "" if checksum(path) == facts["sha256"] else f"{path.name} has another checksum"


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
