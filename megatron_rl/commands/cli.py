"""The command `megatron-rl`: train, check and doctor, with every error as one line and an exit code."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from megatron_rl.commands import estimate, evaluation, readers
from megatron_rl.commands.data import app as data_app
from megatron_rl.commands.errors import (
    MACHINE_ERROR,
    USER_ERROR,
    OneLineCommand,
    OneLineGroup,
    number_between,
    one_line_errors,
    path_of,
    print_warning,
    say_version,
)
from megatron_rl.commands.recipe import app as recipe_app
from megatron_rl.config.checks import UserError
from megatron_rl.config.words import lack

if TYPE_CHECKING:
    from rich.console import Console

    from megatron_rl.config.run import Run

app = typer.Typer(
    cls=OneLineGroup,
    help="Prolonged reinforcement learning of language models: ProRL v1, ProRL v2 and BroRL on Megatron-core and vLLM.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.add_typer(recipe_app, name="recipe")
command = partial(app.command, cls=OneLineCommand)
RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Name of a recipe, or its file, such as recipes/prorl_v2.py.")
]
ScaleName = Annotated[
    str,
    typer.Option("--scale", metavar="NAME", help="Where it runs: cpu, gpu1, h100x8, ... of recipes/scales.py."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Change one value, as in sampling.temperature=1.2, scale.devices_per_node=4 or run.seed=2; repeatable.",
    ),
]
Version = Annotated[bool, typer.Option("--version", help="Print it and leave.", callback=say_version, is_eager=True)]
Directory = Annotated[
    Path | None,
    typer.Option(
        "--directory",
        parser=path_of,
        metavar="FOLDER",
        help="Where the run lives; runs/RECIPE-SCALE if not given.",
        show_default=False,
    ),
]

ParentRun = Annotated[
    Path | None,
    typer.Option(
        "--parent",
        parser=path_of,
        metavar="RUN",
        help="The run, its exported policy, or the published one to start from.",
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option("--model", metavar="FOLDER|NAME", help="Another Qwen2, Qwen3 or Llama model; makes it a variant."),
]
DomainNames = Annotated[
    str | None,
    typer.Option("--domains", metavar="NAMES", help="Only these: math,logic or math=2,logic=1; makes it a variant."),
]
AllowUnsafeSandbox = Annotated[
    bool, typer.Option("--allow-unsafe-sandbox", help="Run code rewards though a layer of the sandbox is missing.")
]


def main() -> None:
    """Runs the command line."""
    # numpy may be imported before a scale is chosen; with a second thread this process could not be forked into ranks.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        app()
    except SystemExit as ending:
        if "torch" not in sys.modules or not isinstance(ending.code, int):
            raise
        # All is closed by now. Python would take two seconds more to take the engines' modules apart.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ending.code)


@app.callback()
def _options(version: Version = False) -> None:
    """Takes what stands before a command."""


@command()
def train(
    recipe: RecipeName,
    scale: ScaleName,
    settings: Settings = None,
    directory: Directory = None,
    parent: ParentRun = None,
    model: ModelName = None,
    domains: DomainNames = None,
    allow_unsafe_sandbox: AllowUnsafeSandbox = False,
) -> None:
    """Train by a recipe, or continue a run whose directory exists.

    Starts one process per device of a machine by itself; inside srun or torchrun it is one of theirs.
    """
    from megatron_rl.commands.choose import build_run
    from megatron_rl.commands.start import on_every_rank

    settings = [
        *varied(settings, model, domains),
        *(["run.allows_unsafe_sandbox=true"] if allow_unsafe_sandbox else []),
    ]

    def chosen() -> Run:
        return build_run(recipe, scale, settings, directory, needs_files=True, parent=parent)

    def words(run: Run) -> list[str]:
        older = ["--parent", str(parent)] if parent is not None else []
        changes = [word for setting in settings for word in ("--set", setting)]
        return ["train", recipe, "--scale", scale, "--directory", str(run.directory), *older, *changes]

    def action(run: Run) -> None:
        from megatron_rl.train import train as train_run

        train_run(run)

    on_every_rank(chosen, words, action, owns_directory=True)


@command()
def export(
    run: Annotated[Path, typer.Argument(parser=path_of, metavar="RUN", help="Directory of a run.")],
    to: Annotated[Path, typer.Option("--to", parser=path_of, metavar="FOLDER", help="The folder to write.")],
    name: Annotated[
        str | None, typer.Option("--push", metavar="OWNER/NAME", help="Upload it to the Hugging Face hub, too.")
    ] = None,
) -> None:
    """Write the policy of a run's newest checkpoint as a Hugging Face folder with a model card, on the run's own scale.

    On the hub a new model is private. `hf auth login` or HF_TOKEN says whose it is.
    """
    from megatron_rl.commands.choose import rebuild_run
    from megatron_rl.commands.start import check_export, on_every_rank, push_export

    def chosen() -> Run:
        rebuilt = rebuild_run(run)
        check_export(rebuilt, to, name)
        return rebuilt

    def action(rebuilt: Run) -> None:
        from megatron_rl.train import export_run

        export_run(rebuilt, to)
        if name is not None:
            push_export(to, name)

    def words(_: Run) -> list[str]:
        return ["export", str(run), "--to", str(to), *(["--push", name] if name is not None else [])]

    on_every_rank(chosen, words, action, owns_directory=False)


@command()
def campaign(
    scale: ScaleName,
    directory: Annotated[
        Path,
        typer.Option("--directory", parser=path_of, metavar="FOLDER", help="Where the runs live, in numbered folders."),
    ],
    recipes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE]...", help="In order; prorl_v1 prorl_v2_after_v1 brorl if not given."),
    ] = None,
    settings: Settings = None,
) -> None:
    """Train several recipes, each from an earlier one's policy. The same command goes on where it stopped."""
    from megatron_rl.commands.campaign import PUBLISHED, check_campaign
    from megatron_rl.commands.campaign import campaign as run_campaign

    with one_line_errors():
        check_campaign(recipes or PUBLISHED, scale, settings or [], directory)
        code = run_campaign(recipes or PUBLISHED, scale, settings or [], directory)
    raise typer.Exit(code)


@command()
def check(
    recipe: RecipeName,
    scale: Annotated[str | None, typer.Option("--scale", metavar="NAME", help="As for `train`.")] = None,
    settings: Settings = None,
    directory: Directory = None,
    parent: ParentRun = None,
    model: ModelName = None,
    domains: DomainNames = None,
    is_strict: Annotated[
        bool, typer.Option("--strict", help="End with exit code 2 where it warns: `train` would refuse, or no fit.")
    ] = False,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus",
            parser=number_between(1, 100_000, int),
            metavar="NUMBER",
            help="Instead of --scale: propose layouts on so many GPUs of 80 GB, by the memory they need.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Validate a run and show what it would be: recipe, batch algebra, memory. Starts nothing."""
    from megatron_rl.commands.check import show, show_time, warnings
    from megatron_rl.commands.choose import build_run
    from megatron_rl.commands.layouts import proposals, show_proposals
    from megatron_rl.config.checks import require
    from megatron_rl.runtime.preempt import deadline
    from megatron_rl.runtime.ranks import world_from_environment

    with one_line_errors():
        lacking: list[str] = []
        world_from_environment()  # what `train` would read of the environment
        deadline(None, 0.0)
        chosen = varied(settings, model, domains)
        require((scale is None) != (gpus is None), "check: give either --scale NAME, or --gpus NUMBER for proposals")
        if gpus is not None:
            layouts = proposals(recipe, gpus, chosen)
            show_proposals(layouts, recipe, chosen, console())
            is_fine = layouts[0].fits
        else:
            assert scale is not None
            run = build_run(recipe, scale, chosen, directory, needs_files=False, parent=parent, lacking=lacking)
            show(run, console())
            show_time(run, console())
            found = list(warnings(run, lacking))
            for warning in found:
                print_warning(warning)
            is_fine = not (found and is_strict)
    raise typer.Exit(0 if is_fine else USER_ERROR)


@command()
def verify(
    cases: Annotated[
        Path,
        typer.Argument(
            parser=path_of, metavar="CASES.jsonl", help="One {id, domain, response, item} a line; see docs/data.md."
        ),
    ],
    processes: Annotated[
        int,
        typer.Option("--processes", parser=number_between(1, 256, int), metavar="NUMBER", help="That judge."),
    ] = 2,
    timeout_seconds: Annotated[
        float,
        typer.Option(
            "--timeout-seconds",
            parser=number_between(0.1, 3600, float),
            metavar="SECONDS",
            help="For one verdict.",
        ),
    ] = 5.0,
    allow_unsafe_sandbox: AllowUnsafeSandbox = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", parser=path_of, metavar="FILE", help="Write there.", show_default="standard output"),
    ] = None,
) -> None:
    """Judge stored responses: one line {id, score, outcome, detail} for each case, in order. Needs no model."""
    from megatron_rl.rewards.cases import check_cases, score_cases
    from megatron_rl.rewards.score import Scorer

    with one_line_errors():
        own_rewards = check_cases(cases, output)
        with ExitStack() as stack:
            file = sys.stdout if output is None else stack.enter_context(opened(output))
            scorer = Scorer(
                processes, timeout_seconds, allows_unsafe_sandbox=allow_unsafe_sandbox, own_rewards=own_rewards
            )
            for line in score_cases(cases, stack.enter_context(scorer)):
                file.write(line + "\n")


@command()
def theory(
    directory: Annotated[
        Path, typer.Option("--directory", parser=path_of, metavar="FOLDER", help="Where theory.png goes.")
    ] = Path("runs/theory"),
    with_variants: Annotated[
        bool, typer.Option("--variants", help="Also without weight decay, and with an incorrect anchor.")
    ] = False,
    seed: Annotated[
        int,
        typer.Option("--seed", parser=number_between(0, 2**32 - 1, int), metavar="NUMBER", help="Of the draws."),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Reproduce BroRL's theory and its Figure 3. Half a minute on a CPU."""
    import json

    from rich.console import Console
    from rich.progress import track

    from megatron_rl.commands.theory import reproduce, show, simulations

    with one_line_errors():
        chosen = simulations(with_variants=with_variants, seed=seed)
        made(directory)
        to_terminal = Console(stderr=True)
        progress = partial(track, description="simulating", total=len(chosen), console=to_terminal, transient=True)
        figures = reproduce(directory, chosen, progress=progress)
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
    else:
        show(figures, console())


@command()
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


command()(evaluation.evaluate)
command()(estimate.estimate)
command()(readers.report)
command()(readers.watch)
command()(readers.track)
command()(readers.trace)


def varied(settings: list[str] | None, model: str | None, domains: str | None) -> list[str]:
    """The settings with those that `--model` and `--domains` stand for: what a run records and its ranks are told."""
    given = {"model": model, "domains": domains}
    return [*(settings or []), *(f"{name}={text}" for name, text in given.items() if text is not None)]


def opened(path: Path) -> TextIO:
    """A file to write. Raises UserError where it cannot be."""
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {path}: cannot be written ({error.strerror}); name another") from None


def made(folder: Path) -> None:
    """Makes a folder unless it is there. Raises UserError where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = lack(folder, "folder") if isinstance(error, FileExistsError) else error.strerror
        raise UserError(f"--directory {folder}: cannot be made ({why}); name another") from None


def console() -> Console:
    """A console that does not fold lines to 80 columns when the output is no terminal."""
    from megatron_rl.runtime.console import Terminal

    return Terminal(highlight=False, markup=False, width=None if sys.stdout.isatty() else 140)
