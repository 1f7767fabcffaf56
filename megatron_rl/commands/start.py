"""From a chosen run to its ranks: the world is found or started; a run that is over, or in use, starts nothing."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

import typer

from megatron_rl.commands.errors import one_line_errors
from megatron_rl.config import lineage
from megatron_rl.config.checks import UserError
from megatron_rl.config.records import Scale
from megatron_rl.config.run import Run
from megatron_rl.runtime import rundir
from megatron_rl.runtime.heartbeat import STARTED_AT, process_start
from megatron_rl.runtime.preempt import listen
from megatron_rl.runtime.ranks import (
    IMPORTED_BEFORE_FORK,
    World,
    launch_ranks,
    process_environment,
    world_from_environment,
)


class HasPlace(Protocol):
    """What ranks are started for: a Run, or an evaluation."""

    @property
    def scale(self) -> Scale: ...

    @property
    def directory(self) -> Path: ...


Placed = TypeVar("Placed", bound=HasPlace)


def on_every_rank(
    choose: Callable[[], Placed],
    words: Callable[[Placed], list[str]],
    action: Callable[[Placed], None],
    *,
    owns_directory: bool,
) -> None:
    """Does `action` in this process if it is one rank of a world, else starts the ranks with `words` as arguments.

    What owns its directory has it to itself.
    """
    with one_line_errors():
        world = world_from_environment()
    is_main = world is None or world.rank == 0
    with one_line_errors(is_main):
        run = choose()
        check_world(run.scale, world)
        is_over = owns_directory and isinstance(run, Run) and is_finished(run)
        if is_over and is_main and isinstance(run, Run):
            show_finished(run)
        if owns_directory and world is None and not is_over:
            option = "--directory" if isinstance(run, Run) else "--to"
            rundir.check_free(run.directory, option)
            with rundir.locked(run.directory, option):  # and, at its end, free again for rank 0
                pass
    if is_over:
        raise typer.Exit(0)
    variables = process_environment(run.scale)

    def work(rank: World | None) -> int:
        os.environ.update(variables | (rank.variables if rank is not None else {}))
        listen()
        failures = run.directory / "logs" / f"failure_rank{rank.rank if rank else 0}.txt"
        gc.disable()  # until all stands that a run needs: imports bring a million objects, and none of them goes
        is_first = rank is None or rank.rank == 0
        try:
            with one_line_errors(
                is_first,
                failures=failures if owns_directory else None,
                is_first_of_machine=rank is None or rank.local_rank == 0,
            ):
                action(run)
        except typer.Exit as ending:
            return ending.exit_code
        finally:
            if owns_directory and is_first:
                note_exit(run)
        return 0

    if world is None and run.scale.num_devices > 1:
        started = {STARTED_AT: str(process_start())}
        module = IMPORTED_BEFORE_FORK[run.scale.device]
        with one_line_errors():
            code = launch_ranks(run.scale.num_devices, words(run), variables | started, module, work)
        if owns_directory:
            remove_leftovers(run)
            note_exit(run)
        raise typer.Exit(code)
    raise typer.Exit(work(world))


def check_world(scale: Scale, world: World | None) -> None:
    """Raises UserError where the processes that were started are not the ones the scale needs."""
    if world is None and scale.num_nodes > 1:
        raise UserError(
            f"scale '{scale.name}': needs {scale.num_nodes} nodes, and this is one plain process; start it with "
            f"srun --nodes={scale.num_nodes} --ntasks-per-node={scale.devices_per_node}, as the scripts in slurm/ do"
        )
    if world is not None and world.size != scale.num_devices:
        raise UserError(
            f"scale '{scale.name}': needs {scale.num_devices} ranks, and {world.size} were started; start "
            f"{scale.num_nodes} x {scale.devices_per_node}, or choose a scale of {world.size}"
        )


def is_finished(run: Run) -> bool:
    """True where the last checkpoint is of the run's last step, and its policy and its page were written after it.

    Raises UserError where that was a run of another seed, data or model: it is over, and not this one.
    """
    model, page = lineage.model_folder_of(run.directory) / lineage.FILE_NAME, run.directory / "report.html"
    found = ((folder, rundir.manifest_of(folder)) for folder in reversed(rundir.checkpoints(run.directory)))
    folder, newest = next((one for one in found if one[1] is not None), (run.directory, None))
    if newest is None or newest["state"].get("step") != run.recipe.num_steps or not page.is_file():
        return False
    try:
        facts = json.loads(model.read_text(encoding="utf-8"))
        is_same = (facts["release"], facts["fingerprint"], facts["step"]) == (
            run.published.release,
            run.recipe.fingerprint,
            run.recipe.num_steps,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
    is_over = is_same and page.stat().st_mtime >= model.stat().st_mtime
    if is_over:
        rundir.check_manifest(folder, newest, run)
    return is_over


def show_finished(run: Run) -> None:
    """Prints what the run came to, as at its end."""
    from megatron_rl.report.journal import read_rows
    from megatron_rl.report.progress import Course, Progress

    progress = Progress(f"{run.published.release} at scale {run.scale.name}", run.recipe.num_steps)
    progress.course = Course(read_rows(run.directory / "metrics.jsonl"))
    progress.summary(run.directory, ("report.html", "model"))


def check_export(run: Run, folder: Path, name: str | None) -> None:
    """Raises UserError where the run has nothing to export, `folder` can hold no export, or the hub no such name."""
    from megatron_rl.report.card import check_name

    if name is not None:
        check_name(name)
    if not rundir.checkpoints(run.directory):
        raise UserError(f"{run.directory}: has no checkpoint yet; wait for the first")
    if lineage.is_taken(folder):
        raise UserError(f"{folder}: is there and is no export of a run; move it away, or export to another folder")
    place = next(path for path in folder.resolve().parents if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written, for {place} is no folder to write in; name another")


def push_export(folder: Path, name: str) -> None:
    """Uploads what was exported, from the first rank, and prints the address."""
    from megatron_rl.report.card import push

    if os.environ.get("RANK", "0") == "0":
        typer.echo(push(folder, name))


def remove_leftovers(run: HasPlace) -> None:
    """Removes the shared memory of ranks that were killed, unless another run has begun in the directory since."""
    with suppress(UserError), rundir.locked(run.directory):
        rundir.remove_shared_memory(run.directory)


def note_exit(run: HasPlace) -> None:
    """Lets the run's ledger know that these processes exit, unless another run has begun in the directory since."""
    from megatron_rl.report import ledger

    with suppress(UserError, OSError), rundir.locked(run.directory):
        ledger.note_exit(run.directory)
