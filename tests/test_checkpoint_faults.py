"""A save that fails on one rank ends all of them with one line, leaves the older checkpoints whole, and no rest."""

from __future__ import annotations

import dataclasses
import os
import resource
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from megatron_rl import checkpoint
from megatron_rl.config.checks import UserError
from megatron_rl.data.prompts import PromptStream
from megatron_rl.runtime import parallel, rundir
from megatron_rl.types import State
from tests.models import make_folder
from tests.ranks import run_ranks
from tests.test_checkpoint import Trained, digest, some_prompts

WORLD = 2
DISK_BYTES = 24 * 2**20  # a few checkpoints of the tiny model


class Saving:
    """A run on two ranks and what is seen of its checkpoints."""

    def __init__(self, folder: str, directory: str) -> None:
        self.one = Trained(folder, directory, devices_per_node=WORLD)
        self.checkpoints = Path(directory) / "checkpoints"

    def saver(self, *, in_background: bool) -> checkpoint.Saver:
        actor = self.one.actor
        actor.device = dataclasses.replace(actor.device, saves_in_background=in_background)
        return checkpoint.Saver(self.one.run, actor, self.one.prompts, State.fresh())

    def failure(self, save: Callable[[], Any]) -> dict[str, Any]:
        """What a save ends with on this rank, what is left of it, and what a new start would go on from."""
        error = ""
        try:
            save()
        except RuntimeError as raised:
            error = str(raised)
        parallel.barrier()
        left = sorted(path.name for path in self.checkpoints.iterdir())
        return {"error": error, "left": left, "resumed": self.resumed()}

    def resumed(self) -> str:
        actor, prompts = self.one.make_actor(), some_prompts()
        return what(checkpoint.resume(self.one.run, actor, prompts), actor, prompts)

    def now(self) -> str:
        return what(self.one.state, self.one.actor, self.one.prompts)


def what(state: State, actor: Any, prompts: PromptStream) -> str:
    return digest([dataclasses.asdict(state), actor.state(), prompts.position])


@contextmanager
def no_large_files(rank: int, ranks: parallel.Ranks) -> Iterator[None]:
    """On one rank a write beyond 100 kB fails, as on a disk that is full for it alone."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if ranks.rank == rank:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def faults(folder: str, directory: str, is_disk: bool, taken: str) -> dict[str, Any]:
    """Runs on every rank: saves that fail in several ways after one that does not, and saves in the background."""
    from megatron_rl.runtime.sole import only_one

    run = Saving(folder, directory)
    one, at_once = run.one, run.saver(in_background=False)
    one.step()
    at_once.save(one.state)
    found: dict[str, Any] = {"first": run.now()}
    try:
        with only_one(Path(taken), one.ranks):
            pass
    except UserError as error:
        found["taken"] = str(error)
    with only_one(Path(directory), one.ranks):
        found["free"] = True
    one.step()
    with no_large_files(1, one.ranks):
        found["one rank"] = run.failure(lambda: at_once.save(one.state))
    if is_disk:
        found |= on_a_bad_disk(run, at_once)

    behind = run.saver(in_background=True)
    with no_large_files(1, one.ranks):
        behind.save(one.state)
        found["one rank in the background"] = run.failure(behind.finish)
        behind.save(one.state)
        found["at the next save"] = run.failure(lambda: behind.save(one.state))

    (run.checkpoints / "step_000009.partial").mkdir(exist_ok=True)
    parallel.barrier()
    gate = threading.Event()
    behind._writer.submit(gate.wait)  # the thread has something else to do for now
    behind.save(one.state)
    found["second"] = run.now()
    one.step()
    behind.poll()
    found["before it is written"] = {"left": names(run), "resumed": run.resumed(), "now": run.now()}
    gate.set()
    behind.finish()
    found["when it is written"] = {"left": names(run), "resumed": run.resumed()}
    behind.save(one.state)
    while names(run)[-1] != "step_000003":
        behind.poll()
    found["polled"] = {"left": names(run), "resumed": run.resumed(), "now": run.now()}
    return found


def on_a_bad_disk(run: Saving, saver: checkpoint.Saver) -> dict[str, Any]:
    """Saves on a disk that is full, then on one that is read-only, then on one that is neither."""
    disk, state, is_main = run.checkpoints.parent, run.one.state, run.one.ranks.is_main
    filler = disk / "filler"
    if is_main:
        free = os.statvfs(disk)
        filler.write_bytes(bytes(free.f_bavail * free.f_frsize - 200_000))
    parallel.barrier()
    found = {"full": run.failure(lambda: saver.save(state))}
    if is_main:
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    parallel.barrier()
    found["read-only"] = run.failure(lambda: saver.save(state))
    if is_main:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    parallel.barrier()
    return found


def names(run: Saving) -> list[str]:
    parallel.barrier()
    found = sorted(path.name for path in run.checkpoints.iterdir())
    parallel.barrier()
    return found


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of a few megabytes in `folder`; False where this process may not mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    is_mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = make_folder(tmp_path_factory.mktemp("qwen2"), num_hidden_layers=2, hidden_size=64)
    directory, taken = (tmp_path_factory.mktemp("runs") / name for name in ("run", "taken"))
    with rundir.locked(taken), small_disk(directory) as is_disk:
        return run_ranks(
            "tests.test_checkpoint_faults:faults",
            WORLD,
            folder=str(folder),
            directory=str(directory),
            is_disk=is_disk,
            taken=str(taken),
        )


FAULTS = {
    "one rank": "step_000002: rank 1 could not write it (File too large)",
    "one rank in the background": "step_000002: rank 1 could not write it (File too large)",
    "at the next save": "step_000002: rank 1 could not write it (File too large)",
    "full": "could not write it (No space left on device)",
    "read-only": "step_000002: rank 0 could not write it (Read-only file system)",
}


@pytest.mark.ranks
@pytest.mark.parametrize("fault", FAULTS)
def test_a_save_that_fails_ends_every_rank_and_leaves_the_older_checkpoint(
    found: list[dict[str, Any]], fault: str
) -> None:
    if fault not in found[0]:
        pytest.skip("a full and a read-only disk are mounted, which needs root and a kernel that lets it")
    for rank in found:
        assert FAULTS[fault] in rank[fault]["error"]
        assert "mend that and start again, the checkpoints before it are intact" in rank[fault]["error"]
        assert rank[fault]["left"] == ["step_000001"]
        assert rank[fault]["resumed"] == rank["first"]


@pytest.mark.ranks
def test_a_directory_that_another_run_holds_ends_every_rank(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert f"another run is using it (process {os.getpid()} on " in rank["taken"]
        assert rank["free"]


@pytest.mark.ranks
def test_what_is_saved_in_the_background_is_what_was_there_when_the_save_began(found: list[dict[str, Any]]) -> None:
    for rank in found:
        before = rank["before it is written"]
        assert before["resumed"] == rank["first"] != rank["second"]
        assert before["now"] != rank["second"], "the weights did not change while the save was under way"
        assert rank["when it is written"] == {"left": ["step_000001", "step_000002"], "resumed": rank["second"]}


@pytest.mark.ranks
def test_a_checkpoint_is_committed_at_a_later_step_once_all_ranks_have_written(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert rank["polled"] == {
            "left": ["step_000002", "step_000003"],
            "resumed": rank["polled"]["now"],
            "now": rank["polled"]["now"],
        }


@pytest.mark.ranks
def test_what_a_killed_attempt_left_is_removed_at_the_next_save(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert rank["before it is written"]["left"] == ["step_000001", "step_000002.partial"]
