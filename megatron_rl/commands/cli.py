"""The command `megatron-rl`: train, check and doctor, with every error as one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from megatron_rl.config.checks import UserError
from megatron_rl.runtime.preempt import REQUEUE_EXIT_CODE, Preempted, listen

if TYPE_CHECKING:
    from rich.console import Console

    from megatron_rl.config.records import Scale
    from megatron_rl.config.run import Run
    from megatron_rl.runtime.ranks import World

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

ParentRun = Annotated[
    Path | None,
    typer.Option("--parent", help="The run, its exported policy, or the published one to start from."),
]
AllowUnsafeSandbox = Annotated[
    bool, typer.Option("--allow-unsafe-sandbox", help="Run code rewards though a layer of the sandbox is missing.")
]


def main() -> None:
    """Runs the command line."""
    try:
        app(prog_name="megatron-rl")
    except SystemExit as ending:
        if "torch" not in sys.modules or not isinstance(ending.code, int):
            raise
        # All is closed by now. Python would take two seconds more to take the engines' modules apart.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ending.code)


@app.command()
def train(
    recipe: RecipeName,
    scale: ScaleName,
    settings: Settings = None,
    directory: Directory = None,
    parent: ParentRun = None,
    allow_unsafe_sandbox: AllowUnsafeSandbox = False,
) -> None:
    """Train by a recipe, or continue a run whose directory exists.

    Starts one process per device of a machine by itself; inside srun or torchrun it is one of theirs.
    """
    from megatron_rl.commands.choose import build_run

    settings = [*(settings or []), *(["run.allows_unsafe_sandbox=true"] if allow_unsafe_sandbox else [])]

    def chosen() -> Run:
        return build_run(recipe, scale, settings, directory, needs_files=True, parent=parent)

    def words(run: Run) -> list[str]:
        older = ["--parent", str(parent)] if parent is not None else []
        changes = [word for setting in settings for word in ("--set", setting)]
        return ["train", recipe, "--scale", scale, "--directory", str(run.directory), *older, *changes]

    def action(run: Run) -> None:
        from megatron_rl.train import train as train_run

        train_run(run)

    on_every_rank(chosen, words, action)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="The folder to write.")],
) -> None:
    """Write the policy of a run's newest checkpoint as a Hugging Face folder, on the run's own scale."""
    from megatron_rl.commands.choose import rebuild_run

    def action(rebuilt: Run) -> None:
        from megatron_rl.train import export_run

        export_run(rebuilt, to)

    on_every_rank(lambda: rebuild_run(run), lambda _: ["export", str(run), "--to", str(to)], action)


@app.command()
def campaign(
    scale: ScaleName,
    directory: Annotated[Path, typer.Option("--directory", help="Where the runs live, in numbered folders.")],
    recipes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE]...", help="In order; prorl_v1 prorl_v2_after_v1 brorl if not given."),
    ] = None,
    settings: Settings = None,
) -> None:
    """Train several recipes, each from the policy of the one before. The same command goes on where it stopped."""
    from megatron_rl.commands.campaign import PUBLISHED, check_campaign
    from megatron_rl.commands.campaign import campaign as run_campaign

    with one_line_errors():
        check_campaign(recipes or PUBLISHED, scale, settings or [])
        code = run_campaign(recipes or PUBLISHED, scale, settings or [], directory)
    raise typer.Exit(code)


@app.command()
def check(
    recipe: RecipeName,
    scale: ScaleName,
    settings: Settings = None,
    directory: Directory = None,
    parent: ParentRun = None,
) -> None:
    """Validate a run and show what it would be: recipe, batch algebra, memory. Starts nothing."""
    from megatron_rl.commands.check import show
    from megatron_rl.commands.choose import build_run

    with one_line_errors():
        show(build_run(recipe, scale, settings or [], directory, needs_files=False, parent=parent), console())


def on_every_rank(choose: Callable[[], Run], words: Callable[[Run], list[str]], action: Callable[[Run], None]) -> None:
    """Does `action` in this process if it is one rank of a world, else starts the ranks with `words` as arguments."""
    from megatron_rl.runtime.ranks import launch_ranks, process_environment, world_from_environment
    from megatron_rl.runtime.rundir import remove_shared_memory

    with one_line_errors():
        world = world_from_environment()
    is_main = world is None or world.rank == 0
    with one_line_errors(is_main):
        run = choose()
        check_world(run.scale, world)
    variables = process_environment(run.scale)
    if world is None and run.scale.num_devices > 1:
        code = launch_ranks(run.scale.num_devices, words(run), variables)
        remove_shared_memory(run.directory)  # of ranks that were killed
        raise typer.Exit(code)
    os.environ.update(variables | (world.variables if world is not None else {}))
    listen()
    with one_line_errors(is_main, failures=run.directory / "logs" / f"failure_rank{world.rank if world else 0}.txt"):
        action(run)


@app.command()
def verify(
    cases: Annotated[
        Path, typer.Argument(metavar="CASES.jsonl", help="One {id, domain, response, item} a line; see docs/data.md.")
    ],
    processes: Annotated[int, typer.Option("--processes", min=1, max=256, help="That judge.")] = 2,
    timeout_seconds: Annotated[
        float, typer.Option("--timeout-seconds", min=0.1, max=3600.0, help="For one verdict.")
    ] = 5.0,
    allow_unsafe_sandbox: AllowUnsafeSandbox = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write there.", show_default="standard output")
    ] = None,
) -> None:
    """Judge stored responses: one line {id, score, outcome, detail} for each case, in order. Needs no model."""
    from megatron_rl.rewards.cases import check_cases, score_cases
    from megatron_rl.rewards.score import Scorer

    with one_line_errors():
        check_cases(cases, output)
        with ExitStack() as stack:
            file = sys.stdout if output is None else stack.enter_context(output.open("w", encoding="utf-8"))
            scorer = Scorer(processes, timeout_seconds, allows_unsafe_sandbox=allow_unsafe_sandbox)
            for line in score_cases(cases, stack.enter_context(scorer)):
                file.write(line + "\n")


@app.command()
def theory(
    directory: Annotated[Path, typer.Option("--directory", help="Where theory.png goes.")] = Path("runs/theory"),
    with_variants: Annotated[
        bool, typer.Option("--variants", help="Also without weight decay, and with an incorrect anchor.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32, help="Of the draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Reproduce BroRL's theory and its Figure 3. Half a minute on a CPU."""
    import json

    from rich.console import Console
    from rich.progress import track

    from megatron_rl.commands.theory import reproduce, show, simulations

    with one_line_errors():
        chosen = simulations(with_variants=with_variants, seed=seed)
        figures = reproduce(directory, track(chosen, "simulating", console=Console(stderr=True), transient=True))
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
    else:
        show(figures, console())


@app.command()
def doctor() -> None:
    """Show what this machine has and lacks, and how to get it. Exits with 1 when a run could not start."""
    from rich.table import Table

    from megatron_rl.commands.doctor import examine

    findings = examine()
    table = Table(box=None, pad_edge=False)
    for column in ("", "found", "remedy"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        style = "" if finding.found else "red" if finding.needed else "dim"
        table.add_row(finding.name, finding.found or "missing", "" if finding.found else finding.remedy, style=style)
    console().print(table)
    raise typer.Exit(MACHINE_ERROR if any(finding.blocks for finding in findings) else 0)


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


@contextmanager
def one_line_errors(prints_user_errors: bool = True, failures: Path | None = None) -> Iterator[None]:
    """Turns the errors a user or the machine makes into one line and an exit code.

    Every rank sees the same user's errors, so that one rank is enough to print them. The traceback goes to the file
    `failures`. Anything else is a fault of this program and keeps its traceback.
    """
    try:
        yield
    except UserError as error:
        _keep_traceback(failures)
        if prints_user_errors:
            print_error(str(error))
        raise typer.Exit(USER_ERROR) from None
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("megatron_rl"):
            raise
        print_error(f"package {error.name} is not installed; run `make setup`, and `megatron-rl doctor` to see what is")
        raise typer.Exit(MACHINE_ERROR) from None
    except BrokenPipeError:  # `... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except (RuntimeError, OSError) as error:
        kept = _keep_traceback(failures)
        print_error(f"{type(error).__name__}: {error}" + (f" (traceback: {kept})" if kept else ""))
        raise typer.Exit(MACHINE_ERROR) from None
    except Preempted as reason:
        typer.echo(f"{reason}: start the same command again to go on", err=True)
        raise typer.Exit(REQUEUE_EXIT_CODE) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _keep_traceback(path: Path | None) -> Path | None:
    if path is None or not path.parent.parent.is_dir():
        return None
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(traceback.format_exc(), encoding="utf-8")
    except OSError:  # a disk that is full or read-only may be what the error is about
        return None
    return path


def print_error(message: str) -> None:
    """Writes one red line to standard error."""
    line = "error: " + " ".join(message.split())
    typer.echo(typer.style(line, fg="red") if sys.stderr.isatty() else line, err=True)


def console() -> Console:
    """A console that does not fold lines to 80 columns when the output is no terminal."""
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 140)
