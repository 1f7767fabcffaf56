"""Checkpoints at step boundaries: one file per rank, a manifest with checksums, and a rename that commits them all.

A rank's file has its share of the optimizer, and its weights where it is the first that has them: the data- and
context-parallel ranks after it have the same. A rank that goes on in the place it was saved in goes on with the same
bits. On another layout every rank cuts its share out of all files: the same weights and optimizer, which round
otherwise from then on.

Not covered: another precision, and a shared file system that shows the ranks different contents of one folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Self

import torch
from torch import Tensor

from megatron_rl.actor.actor import Actor
from megatron_rl.actor.reshard import WEIGHTS
from megatron_rl.config.checks import UserError
from megatron_rl.config.records import differences
from megatron_rl.config.run import Run
from megatron_rl.data.prompts import PromptStream
from megatron_rl.rollout import waves
from megatron_rl.runtime import parallel, rundir
from megatron_rl.runtime.files import commit, replace_file
from megatron_rl.runtime.log import get_logger
from megatron_rl.runtime.preempt import Preempted
from megatron_rl.runtime.spans import span
from megatron_rl.types import Reset, Scores, State

NOTES = ("pass_rates", "response_tokens")  # of prompts by id: a stream's, and keys of a manifest; in files NAME.json


class Saver:
    """Saves a run, one checkpoint at a time; owns the thread that writes.

    Left by Preempted, it saves the last step that was done; left in peace, it waits for the checkpoint under way.

    A save copies this rank's state to host memory and hands it to the thread. The checkpoint is committed once all
    ranks have written: at once, or where the device saves in the background, at a later call. Until then nothing that
    existed before is touched. Its methods are collective over the world, and raise RuntimeError on every rank where
    one could not write.
    """

    def __init__(self, run: Run, actor: Actor, prompts: PromptStream, state: State) -> None:
        self.run, self.actor, self.prompts, self.state = run, actor, prompts, state
        self.saved_step, self._saved_at = state.step, time.monotonic()
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._under_way: tuple[Path, dict[str, Any], Future[dict[str, Any]]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None and issubclass(kind, Preempted) and self.state.step > self.saved_step:
            self.save(self.state)
        if kind is None or issubclass(kind, Preempted):
            self.finish()

    def after(self, state: State) -> None:
        """Commits what has been written meanwhile, and begins the checkpoint that is due after a step."""
        self.state = state
        self.poll()
        run = self.run
        if is_due(state.step, run.save_every_steps, run.at_step(state.step).num_steps) or self.is_overdue():
            self.save(state)

    def is_overdue(self) -> bool:
        """Whether the newest checkpoint is older than `run.save_every_minutes`, by the clock of rank 0."""
        return bool(parallel.gather(time.monotonic() - self._saved_at >= 60 * self.run.save_every_minutes)[0])

    @span("save")
    def save(self, state: State) -> None:
        """Begins the checkpoint of `state.step`; the one before is committed first."""
        self._commit()
        self.saved_step, self._saved_at = state.step, time.monotonic()
        run, ranks = self.run, self.actor.ranks
        partial = folder_of(run, state.step).with_suffix(".partial")
        notes = self._everywhere(partial, self._begin if ranks.is_main else None)
        mine = self.actor.state() | (dict.fromkeys(WEIGHTS) if ranks.rank != ranks.first_replica else {})
        content = copied(mine, self.actor.device.host_copy)
        manifest = {
            "format": rundir.CHECKPOINT_FORMAT,
            "recipe": run.recipe.release,
            "fingerprint": run.recipe.fingerprint,
            "seed": run.seed,
            "data": run.data_digest,
            "identity": dict(run.identity),
            "max_validation_prompts": run.max_validation_prompts,
            "num_steps": run.recipe.num_steps,
            "scale": run.scale.name,
            "layout": run.scale.layout,
            "parent": dataclasses.asdict(run.parent) if run.parent is not None else None,
            "state": dataclasses.asdict(state),
            "prompt_position": self.prompts.position,
        } | (notes or {})
        writing = self._writer.submit(write_synced, partial / file_of(ranks.rank), content)
        self._under_way = partial, manifest, writing
        if not self.actor.device.saves_in_background:
            self._commit()

    def _begin(self, partial: Path) -> dict[str, dict[str, Any]]:
        """Makes the folder and writes what is noted of the prompts: size and checksum of each file."""
        _make_room(partial)
        found = {}
        for name in NOTES:
            if noted := getattr(self.prompts, name):
                content = json.dumps(noted).encode()
                replace_file(partial / f"{name}.json", content)
                found[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return found

    def poll(self) -> None:
        """Commits the checkpoint under way if all ranks have written it; waits for none that has not."""
        if self._under_way is None:
            return
        with span("save"):
            *_, writing = self._under_way
            if all(parallel.gather(writing.done())):
                self._commit()

    @span("save")
    def finish(self) -> None:
        """Waits for the checkpoint under way, and commits it."""
        self._commit()

    def _commit(self) -> None:
        if self._under_way is None:
            return
        (partial, manifest, writing), self._under_way = self._under_way, None
        written = self._everywhere(partial, lambda _: writing.result())
        name = file_of(self.actor.ranks.rank)
        files = {name: facts for part in parallel.gather({name: written}) for name, facts in part.items()}

        def conclude(partial: Path) -> None:
            content = json.dumps(rundir.sealed(manifest | {"files": files}), indent=1)
            replace_file(partial / "manifest.json", content.encode())
            final = partial.with_suffix("")
            if final.exists():  # a damaged one, which the run came past
                rundir.remove(final)
            commit(partial, final)
            found = rundir.checkpoints(self.run.directory)
            for old in rundir.superseded(found, final, self.run.checkpoints_kept, self.run.keep_every_steps):
                rundir.remove(old)
            waves.clear(self.run.directory, before_step=manifest["state"]["step"])

        self._everywhere(partial, conclude if self.actor.ranks.is_main else None)

    def _everywhere(self, partial: Path, do: Callable[[Path], Any] | None) -> Any:
        """What `do` returns on this rank; where it fails on one rank, all end the save with what that one says."""
        result, trouble = None, None
        try:
            result = do(partial) if do is not None else None
        except OSError as error:
            trouble = (
                f"{partial.with_suffix('')}: rank {self.actor.ranks.rank} could not write it "
                f"({error.strerror or error}); mend that and start again, the checkpoints before it are intact"
            )
        try:
            parallel.raise_together(trouble)
        except RuntimeError:
            if self.actor.ranks.is_main:
                shutil.rmtree(partial, ignore_errors=True)  # space may be what lacks
            raise
        return result


def is_due(step: int, every: int, last: int) -> bool:
    """True at step 0, at every `every`-th step and at the last one.

    >>> [step for step in range(8) if is_due(step, 3, 7)]
    [0, 3, 6, 7]
    """
    return step % every == 0 or step == last


def resume(run: Run, actor: Actor, prompts: PromptStream | None, only: Path | None = None) -> State:
    """Restores the newest undamaged checkpoint, or `only` that one, and returns its state; a fresh one without any.

    Collective over the world. A damaged checkpoint is passed over for the one before, with a warning. Raises
    UserError when it was made by another recipe, precision, seed, model or data, or is damaged and the `only` one,
    RuntimeError when all are damaged.
    """
    folders = _as_rank_0(actor, rundir.checkpoints, run.directory) if only is None else [only]
    for folder in reversed(folders):
        manifest = _as_rank_0(actor, rundir.manifest_of, folder)
        if manifest is not None:
            rundir.check_manifest(folder, manifest, run)
        if damage := _damage_of(folder, manifest, actor):
            if only is not None:
                raise UserError(f"{folder}: cannot be used ({damage}); name another checkpoint of its run")
            get_logger().warning("%s cannot be used (%s); trying the one before", folder, damage)
            continue
        actor.load_state(_state_for(actor, folder, manifest, run))
        if prompts is not None:
            prompts.seek(manifest["prompt_position"])
            for name in NOTES:
                setattr(prompts, name, _as_rank_0(actor, _noted, folder / f"{name}.json") if name in manifest else {})
        return _going_on(state_of(manifest["state"]), manifest, run)
    if folders:
        raise RuntimeError(
            f"{run.directory}: none of its {len(folders)} checkpoints can be used; restore one of them, "
            "or start again in another --directory"
        )
    return State.fresh()


def _going_on(state: State, manifest: dict[str, Any], run: Run) -> State:
    """The state, with what is decided by going on as this run does."""
    before, now = manifest["num_steps"], run.recipe.num_steps
    return state if before == now else state.with_news(f"the run was made longer: num_steps {before} -> {now}")


def _as_rank_0(actor: Actor, look: Callable[[Path], Any], path: Path) -> Any:
    """What rank 0 sees, on every rank: a shared folder may show them different things for a while."""
    return parallel.gather(look(path) if actor.ranks.is_main else None)[0]


def _damage_of(folder: Path, manifest: dict[str, Any] | None, actor: Actor) -> str:
    """What one of the ranks found wrong with a checkpoint, each having looked at its share of the files; "" if nothing.

    A rank looks at its own file where there are as many ranks as files.
    """
    if manifest is None:
        return "manifest.json cannot be read"
    files = manifest["files"] | {f"{name}.json": manifest[name] for name in NOTES if name in manifest}
    mine = sorted(files.items())[actor.ranks.rank :: actor.ranks.world]
    found = next((wrong for name, facts in mine if (wrong := damage_of(folder / name, facts))), "")
    return next((wrong for wrong in parallel.gather(found) if wrong), "")


def _state_for(actor: Actor, folder: Path, manifest: dict[str, Any], run: Run) -> dict[str, Any]:
    """What this rank has to load: its own file, or its share of all files."""
    path = folder / file_of(actor.ranks.rank)
    fits = path.name in manifest["files"] and mapped(path)["places"] == actor.places
    if len(manifest["files"]) == actor.ranks.world and all(parallel.gather(fits)):
        # Read, for the file may be removed while what is in it is still the reference.
        own: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        first = mapped(folder / file_of(actor.ranks.first_replica))
        return own | {what: copied(first[what], torch.clone) for what in WEIGHTS if own[what] is None}
    get_logger().info(
        "%s was saved on another layout (%s): the weights and the optimizer are the same, but from here on they round "
        "otherwise",
        folder,
        "; ".join(differences(manifest["layout"], run.scale.layout)) or "other parameters per rank",
    )
    return actor.resharded([mapped(folder / name) for name in sorted(manifest["files"])])


def mapped(path: Path) -> dict[str, Any]:
    """The content of a rank's file, its tensors mapped into memory."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return content


def copied(value: Any, copy: Callable[[Tensor], Tensor]) -> Any:
    """Nested lists and dictionaries with a copy of every tensor."""
    if isinstance(value, Tensor):
        return copy(value)
    if isinstance(value, dict):
        return {key: copied(inner, copy) for key, inner in value.items()}
    return [copied(inner, copy) for inner in value] if isinstance(value, list) else value


def folder_of(run: Run, step: int) -> Path:
    """Where the checkpoint of a step stands."""
    return run.directory / "checkpoints" / f"step_{step:06d}"


def _noted(path: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return found


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
            "news": tuple(saved["news"]),
        }
    )


class _Hashed:
    """A file that is hashed while it is written; torch.save hides why a write failed behind an error of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            count = self.file.write(data)
        except OSError as error:
            self.failure = error
            raise
        self.digest.update(data)
        return count

    def flush(self) -> None:
        self.file.flush()


def write_synced(path: Path, content: Any) -> dict[str, Any]:
    """Writes a file to the disk itself and returns its size and checksum. Raises OSError."""
    with path.open("wb") as file:
        hashed = _Hashed(file)
        try:
            torch.save(content, hashed)
        except RuntimeError:
            if hashed.failure is not None:
                raise hashed.failure from None
            raise
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": path.stat().st_size, "sha256": hashed.digest.hexdigest()}


def damage_of(path: Path, facts: dict[str, Any]) -> str:
    """What is wrong with a file of a checkpoint; empty when nothing is."""
    try:
        if (size := path.stat().st_size) != facts["bytes"]:
            return f"{path.name} has {size} bytes instead of {facts['bytes']}"
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"
    return "" if found == facts["sha256"] else f"{path.name} has another checksum"


def _make_room(partial: Path) -> None:
    """An empty folder, after what killed attempts left is gone."""
    for left in partial.parent.glob("step_??????.*"):
        shutil.rmtree(left)
    partial.mkdir(parents=True)
