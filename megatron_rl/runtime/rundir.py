"""A run directory is one run's: its lock, its checkpoints' manifests, and the name that ties shared memory to it.

Not covered: a second run on another machine, where the file system does not carry locks between machines.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import shared_memory
from pathlib import Path
from typing import IO, Any

from megatron_rl.config.checks import UserError
from megatron_rl.config.identity import DATA_FILES, STOP_TOKENS, WEIGHTS, changed
from megatron_rl.config.run import Run

CHECKPOINT_FORMAT = 3
KEYS = ("fingerprint", "num_steps", "layout", "seed", "max_validation_prompts", "data", "identity", "state", "files")
LOCK = ".lock"
ENTRIES = ("checkpoints", "logs", "rollouts", "run.json", "metrics.jsonl", LOCK)  # what every attempt writes
SHARED_MEMORY = Path("/dev/shm")
# A process that was killed holds its lock until the kernel has taken its memory apart, which for a rank takes seconds.
HANDOVER_SECONDS, POLL_SECONDS = 5.0, 0.1


@contextmanager
def locked(directory: Path, option: str = "--directory") -> Iterator[None]:
    """Holds the directory for this process; the lock goes with the process, however it ends.

    A holder that puts nothing there leaves nothing: neither the lock nor a folder that was made for it. `option` is the
    one by which another directory is given. Raises UserError when another live process holds it for HANDOVER_SECONDS,
    and when it cannot be written to or locked.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(held(directory / LOCK, HANDOVER_SECONDS))
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        except BlockingIOError:
            raise UserError(in_use(directory, option)) from None
        except OSError as error:
            raise UserError(not_writable(directory, error.strerror or str(error), option)) from None
        yield


@contextmanager
def held(lock: Path, seconds: float) -> Iterator[IO[str]]:
    """A directory's lock, open and taken; made anew where the holder before removed it meanwhile.

    A holder that puts nothing beside it leaves nothing: neither the lock nor a folder that was made for it.

    Raises OSError, of which BlockingIOError where another process holds it for so long.
    """
    directory = lock.parent
    while True:
        before, made = _names(directory), [path for path in (directory, *directory.parents) if not path.exists()]
        directory.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError), ExitStack() as stack:
            stack.callback(_remove_empty, made)
            file = stack.enter_context(lock.open("a", encoding="utf-8"))
            take_lock(file, fcntl.LOCK_EX, seconds)
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                if lock.name not in before:
                    stack.callback(_remove_unused, lock, before | {lock.name})
                holding = stack.pop_all()
                break
    with holding:
        yield file


def _remove_unused(lock: Path, before: set[str]) -> None:
    """Removes a lock where its holder, who still has it, has put nothing beside it."""
    with suppress(OSError):  # a disk may be what its holder failed of
        if _names(lock.parent) == before:
            lock.unlink()


def _remove_empty(folders: Sequence[Path]) -> None:
    """Removes folders, the inner ones first, as long as they are empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} if directory.is_dir() else set()


def take_lock(file: IO[Any], kind: int, seconds: float) -> None:
    """Locks an open file. Raises BlockingIOError where another process holds it for so long."""
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
        time.sleep(POLL_SECONDS)


def check_free(directory: Path, option: str = "--directory") -> None:
    """Raises UserError where `locked` would, as far as that can be seen without writing anything."""
    try:
        existing = next(path for path in (directory, *directory.resolve().parents) if path.exists())
        if not existing.is_dir():
            raise UserError(not_writable(directory, f"{existing} is a file", option))
        inside = [existing / name for name in ENTRIES if existing == directory and (existing / name).exists()]
        for path in (existing, *inside):
            if not os.access(path, os.W_OK | (os.X_OK if path.is_dir() else 0)):
                raise UserError(not_writable(directory, f"{path} is not writable", option))
        if directory.is_symlink() and not directory.exists():
            raise UserError(not_writable(directory, "it is a link that leads nowhere", option))
        with suppress(FileNotFoundError), (directory / LOCK).open("rb") as file:
            take_lock(file, fcntl.LOCK_SH, HANDOVER_SECONDS)
    except BlockingIOError:
        raise UserError(in_use(directory, option)) from None
    except OSError as error:
        raise UserError(not_writable(directory, error.strerror or str(error), option)) from None


def in_use(directory: Path, option: str = "--directory") -> str:
    """The message of a directory that another process holds."""
    holder = "which has just ended"
    with suppress(FileNotFoundError):
        holder = (directory / LOCK).read_text(encoding="utf-8")
    return (
        f"directory {directory}: another run is using it ({holder}); wait for its end, or choose another with {option}"
    )


def not_writable(directory: Path, why: str, option: str = "--directory") -> str:
    """The message of a directory that no run can live in."""
    return f"directory {directory}: cannot be written to or locked ({why}); mend that, or choose another with {option}"


def checkpoints(directory: Path) -> list[Path]:
    """The committed checkpoints, oldest first."""
    return sorted(path for path in (directory / "checkpoints").glob("step_??????") if path.is_dir())


def superseded(folders: Sequence[Path], newest: Path, kept: int, every_steps: int | None) -> list[Path]:
    """Which committed checkpoints can go once `newest` is one of them.

    All but the last `kept` up to it and those of every `every_steps`-th step; and any after it, which the run came
    past because they were damaged.

    >>> folders = [Path(f"step_{step:06d}") for step in (10, 20, 30, 40, 50, 60)]
    >>> [folder.name for folder in superseded(folders, folders[4], kept=2, every_steps=20)]
    ['step_000010', 'step_000030', 'step_000060']
    """
    older = [folder for folder in folders if folder.name <= newest.name][:-kept]
    later = [folder for folder in folders if folder.name > newest.name]
    return [folder for folder in older if every_steps is None or step_of(folder) % every_steps] + later


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step_"))


def remove(checkpoint: Path) -> None:
    """Removes a checkpoint: never seen half, and what a kill leaves of it goes at the next save."""
    aside = checkpoint.rename(checkpoint.with_suffix(".removed"))
    shutil.rmtree(aside, ignore_errors=True)


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with a checksum of itself."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return content | {"sha256": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """What a checkpoint says of itself; None when that cannot be read or was changed."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(manifest, dict) or "format" not in manifest:
        return None
    is_whole = manifest["format"] != CHECKPOINT_FORMAT or manifest == sealed(manifest)
    return manifest if is_whole else None


def check_manifest(folder: Path, manifest: dict[str, Any], run: Run) -> None:
    """Raises UserError where a readable checkpoint is of another format, recipe, precision, seed, model or data.

    A recipe may be made longer.
    """
    if manifest["format"] != CHECKPOINT_FORMAT:
        raise UserError(
            f"{folder} has checkpoint format {manifest['format']}, this version reads {CHECKPOINT_FORMAT}; "
            "go on with the version that wrote it, or use another --directory"
        )
    if missing := [name for name in KEYS if name not in manifest]:
        raise UserError(
            f"{folder} has no {missing[0]} in its manifest.json, which this version reads; go on with the version that "
            "wrote it, or use another --directory"
        )
    _check_recipe(folder, manifest, run)
    for name, found, own in (
        ("precision", manifest["layout"]["precision"], run.scale.precision),
        ("seed", manifest["seed"], run.seed),
        ("run.max_validation_prompts", manifest["max_validation_prompts"], run.max_validation_prompts),
    ):
        if found != own:
            raise UserError(
                f"{folder} was made with {name} {found}, this run has {own}; give the one it was started with, or "
                "another --directory"
            )
    if manifest["data"] != run.data_digest:
        raise UserError(
            f"{folder} was made from other prompts than those of {run.data_folder}/train.jsonl; give the file it was "
            "started with, or another --directory"
        )
    if names := changed(manifest["identity"], run.identity):
        place = run.data_folder if names[0] in DATA_FILES else run.model_folder
        other = "other" if names[0] in (WEIGHTS, STOP_TOKENS) else "another"
        others = f", and {len(names) - 1} more" if len(names) > 1 else ""
        raise UserError(
            f"{folder} was made with {other} {names[0]} than in {place}{others}; give what it was started with, "
            "or another --directory"
        )


def _check_recipe(folder: Path, manifest: dict[str, Any], run: Run) -> None:
    if manifest["fingerprint"] == run.recipe.fingerprint:
        return
    before, now = manifest["num_steps"], run.recipe.num_steps
    is_same = dataclasses.replace(run.recipe, num_steps=before).fingerprint == manifest["fingerprint"]
    if is_same and before < now:
        return
    if is_same:
        raise UserError(
            f"{folder} is of a run of {before} steps, which cannot be made one of {now}; give num_steps={before} or "
            "more, or another --directory"
        )
    raise UserError(
        f"{folder} was made by another recipe, {manifest['fingerprint']} instead of {run.recipe.fingerprint}; "
        "give the settings it was started with, or another --directory"
    )


def shared_memory_name(directory: Path) -> str:
    """What the names of this run's shared memory contain: the same for every attempt in a directory, and no other."""
    return "megatron-rl-" + hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]


def name_shared_memory(directory: Path) -> None:
    """Makes the shared memory that this process gets from Python carry the run's name, not one drawn at random."""
    prefix = f"/{shared_memory_name(directory)}-"
    shared_memory._SHM_NAME_PREFIX = prefix  # type: ignore[attr-defined]
    shared_memory._SHM_SAFE_NAME_LENGTH = len(prefix) + 8  # type: ignore[attr-defined]


def remove_shared_memory(directory: Path) -> list[str]:
    """Removes what an attempt in this directory left on this machine, and returns the names.

    Only while no attempt runs: a live one's memory would go as well.
    """
    left = [path for path in SHARED_MEMORY.glob("*") if shared_memory_name(directory) in path.name]
    for path in left:
        path.unlink(missing_ok=True)
    return [path.name for path in left]


@contextmanager
def clearing_shared_memory(directory: Path, *, is_first_of_machine: bool) -> Iterator[None]:
    """Removes what this attempt leaves behind on this machine, however it ends, as long as the process lives to see it.

    What is mapped stays mapped: only the names go, and a rank that is still at work does not need them.
    """
    try:
        yield
    finally:
        if is_first_of_machine:
            remove_shared_memory(directory)
