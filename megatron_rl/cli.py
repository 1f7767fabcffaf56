"""The command `megatron-rl`: train, check and doctor, with every error as one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from megatron_rl.config import Run, Scale
    from megatron_rl.launch import World

USER_ERROR, MACHINE_ERROR, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    help="Prolonged reinforcement learning of language models: ProRL v1, ProRL v2 and BroRL on Megatron-core and vLLM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Name of a recipe, or its file, such as recipes/prorl_v2.py.")
]
ScaleName = Annotated[
    str,
    typer.Option("--scale", metavar="NAME", help="Where it runs: cpu, cpu_tp2_pp2, gpu1, h100x8, h100x32 or h100x64."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Change one value, as in sampling.temperature=1.2, scale.devices_per_node=4 or run.seed=2; repeatable.",
    ),
]
Directory = Annotated[
    Path | None,
    typer.Option("--directory", help="Where the run lives; runs/RECIPE-SCALE if not given.", show_default=False),
]


def main() -> None:
    """Runs the command line."""
    app(prog_name="megatron-rl")


@app.command()
def train(recipe: RecipeName, scale: ScaleName, settings: Settings = None, directory: Directory = None) -> None:
    """Train by a recipe, or continue a run whose directory exists.

    Starts one process per device of a machine by itself; inside srun or torchrun it is one of theirs.
    """
    from megatron_rl.choose import build_run
    from megatron_rl.launch import launch_ranks, process_environment, world_from_environment
    from megatron_rl.rundir import remove_shared_memory

    with one_line_errors():
        world = world_from_environment()
    is_main = world is None or world.rank == 0
    with one_line_errors(is_main):
        run = build_run(recipe, scale, settings or [], directory, needs_files=True)
        check_world(run.scale, world)
    variables = process_environment(run.scale)
    if world is None and run.scale.num_devices > 1:
        arguments = ["train", recipe, "--scale", scale, "--directory", str(run.directory)]
        arguments += [word for setting in settings or [] for word in ("--set", setting)]
        code = launch_ranks(run.scale.num_devices, arguments, variables)
        remove_shared_memory(run.directory)  # of ranks that were killed
        raise typer.Exit(code)
    os.environ.update(variables | (world.variables if world is not None else {}))
    with one_line_errors(is_main, failures=run.directory / "logs" / f"failure_rank{world.rank if world else 0}.txt"):
        from megatron_rl.train import train as train_run

        train_run(run)


@app.command()
def check(recipe: RecipeName, scale: ScaleName, settings: Settings = None, directory: Directory = None) -> None:
    """Validate a run and show what it would be: recipe, batch algebra, memory. Starts nothing."""
    from megatron_rl.choose import build_run

    with one_line_errors():
        show(build_run(recipe, scale, settings or [], directory, needs_files=False))


@app.command()
def doctor() -> None:
    """Show what this machine has and lacks, and how to get it. Exits with 1 when a run could not start."""
    from rich.table import Table

    from megatron_rl.doctor import examine

    findings = examine()
    table = Table(box=None, pad_edge=False)
    for column in ("", "found", "remedy"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        style = "" if finding.found else "red" if finding.needed else "dim"
        table.add_row(finding.name, finding.found or "missing", "" if finding.found else finding.remedy, style=style)
    console().print(table)
    raise typer.Exit(MACHINE_ERROR if any(finding.blocks for finding in findings) else 0)


def show(run: Run) -> None:
    """Prints the resolved run: recipe, scale, batch algebra, memory, fingerprint."""
    import dataclasses

    from rich.table import Table

    from megatron_rl.config import batch_algebra
    from megatron_rl.memory import estimate

    out = console()
    out.print(f"{run.published.release} at scale {run.scale.name} in {run.directory}", style="bold", soft_wrap=True)
    table = Table(box=None, pad_edge=False, show_header=True)
    for column in ("recipe", "value", "published", "changed by"):
        table.add_column(column, overflow="fold")
    names = [setting.partition("=")[0].strip() for setting in run.modified]
    published = dict(leaves(dataclasses.asdict(run.published)))
    for name, value in leaves(dataclasses.asdict(run.recipe)):
        changed = value != published.get(name)
        by_setting = any(name == given or name.startswith(f"{given}.") for given in names)
        cause = "--set" if by_setting else f"scale {run.scale.name}" if changed else ""
        row = (name, str(value), str(published.get(name, "-")) if changed else "", cause)
        table.add_row(*row, style="yellow" if changed else "")
    out.print(table)
    out.print()
    out.print(", ".join(f"{name}={value}" for name, value in placement(run.scale)), style="dim", soft_wrap=True)
    out.print(batch_algebra(run), soft_wrap=True)
    memory = estimate(run)
    parts = [f"{name} {gib(num_bytes)}" for name, num_bytes in dataclasses.asdict(memory).items()]
    out.print(f"memory per device, estimated: {', '.join(parts)} (reference in host memory)", soft_wrap=True)
    out.print(
        f"  while training {gib(memory.training)}, while generating {gib(memory.generation)}, "
        f"all at once {gib(memory.everything)}"
    )
    for kind, folder in (("model", run.model_folder), ("data", run.data_folder)):
        out.print(f"{kind}: {folder}" + ("" if folder.is_dir() else " (not on this machine; `train` needs it)"))
    out.print(f"recipe fingerprint {run.published.fingerprint}: {release_status(run)}")
    out.print(f"run fingerprint    {run.recipe.fingerprint}" + (f", modified: {', '.join(run.modified)}" * bool(names)))


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every leaf of nested dictionaries; a record of a tuple goes by its own name or place.

    >>> list(leaves({"a": {"b": 1}, "c": ({"name": "x", "d": 2},), "e": (), "f": ("y", "z")}))
    [('a.b', 1), ('c.x.d', 2), ('e', ()), ('f', ('y', 'z'))]
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, tuple | list) and value and isinstance(value[0], dict):
        for place, inner in enumerate(value):
            inner = dict(inner)
            yield from leaves(inner, f"{name}.{inner.pop('name', place)}")
    else:
        yield name, value


def placement(scale: Scale) -> list[tuple[str, Any]]:
    """Name and value of what a scale says about hardware and layout."""
    import dataclasses

    return [
        (field.name, getattr(scale, field.name))
        for field in dataclasses.fields(scale)
        if field.name not in ("name", "caps", "miniature")
    ]


def release_status(run: Run) -> str:
    """What tests/recipes/released.json says about the published recipe."""
    import json

    from megatron_rl.choose import REPOSITORY

    path = REPOSITORY / "tests" / "recipes" / "released.json"
    if not path.is_file():
        return "nothing to compare it with, for this is no checkout of the repository"
    released = json.loads(path.read_text(encoding="utf-8")).get(run.published.release)
    if released is None:
        return f"{run.published.release} is not a released recipe"
    same = released == run.published.fingerprint
    return f"is the released {run.published.release}" if same else f"DIFFERS from the released one, {released}"


def gib(num_bytes: int) -> str:
    """Bytes for reading.

    >>> gib(3 * 2**30), gib(2**20)
    ('3.0 GiB', '1 MiB')
    """
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**29 else f"{num_bytes / 2**20:.0f} MiB"


def check_world(scale: Scale, world: World | None) -> None:
    """Raises ValueError where the processes that were started are not the ones the scale needs."""
    if world is None and scale.num_nodes > 1:
        raise ValueError(
            f"scale '{scale.name}': needs {scale.num_nodes} nodes, and this is one plain process; start it with "
            f"srun --nodes={scale.num_nodes} --ntasks-per-node={scale.devices_per_node}, as the scripts in slurm/ do"
        )
    if world is not None and world.size != scale.num_devices:
        raise ValueError(
            f"scale '{scale.name}': needs {scale.num_devices} ranks, and {world.size} were started; start "
            f"{scale.num_nodes} x {scale.devices_per_node}, or choose a scale of {world.size}"
        )


@contextmanager
def one_line_errors(prints_user_errors: bool = True, failures: Path | None = None) -> Iterator[None]:
    """Turns the errors a user or the machine makes into one line and an exit code.

    Every rank sees the same user's errors, so that one rank is enough to print them. The traceback goes to the file
    `failures`. Anything else is a fault of this program and keeps its traceback.
    """
    try:
        yield
    except ValueError as error:
        _keep_traceback(failures)
        if prints_user_errors:
            print_error(str(error))
        raise typer.Exit(USER_ERROR) from None
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("megatron_rl"):
            raise
        print_error(f"package {error.name} is not installed; run `make setup`, and `megatron-rl doctor` to see what is")
        raise typer.Exit(MACHINE_ERROR) from None
    except (RuntimeError, OSError) as error:
        kept = _keep_traceback(failures)
        print_error(f"{type(error).__name__}: {error}" + (f" (traceback: {kept})" if kept else ""))
        raise typer.Exit(MACHINE_ERROR) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _keep_traceback(path: Path | None) -> Path | None:
    if path is None or not path.parent.parent.is_dir():
        return None
    path.parent.mkdir(exist_ok=True)
    path.write_text(traceback.format_exc(), encoding="utf-8")
    return path


def print_error(message: str) -> None:
    """Writes one red line to standard error."""
    line = "error: " + " ".join(message.split())
    typer.echo(typer.style(line, fg="red") if sys.stderr.isatty() else line, err=True)


def console() -> Console:
    """A console that does not fold lines to 80 columns when the output is no terminal."""
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 140)
