"""Commands that read a run's directory, on any machine that sees it, while it trains and after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from megatron_rl.commands.errors import number_between, one_line_errors, path_of
from megatron_rl.config.run import TRACKERS


def tracker_of(text: str) -> str:
    """A word of a command line as the name of a tracker. Raises BadParameter."""
    if text not in TRACKERS:
        raise typer.BadParameter(f"{text}: must be one of {', '.join(TRACKERS)}")
    return text


def steps_of(text: str) -> tuple[int, int]:
    """A word of a command line as first and last step. Raises BadParameter."""
    first, colon, last = text.partition(":")
    last = last if colon else first
    is_a_span = all(one.isascii() and one.isdecimal() for one in (first, last)) and int(first) <= int(last)
    if not is_a_span:
        raise typer.BadParameter(f"{text}: must be a step, as in 12, or the first and the last, as in 12:20")
    return int(first), int(last)


Run = Annotated[Path, typer.Argument(metavar="RUN", parser=path_of, help="Directory of a run.")]


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", parser=path_of, help="Directories of runs; several are compared.")
    ],
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", parser=path_of, help="RUN/report.html, or comparison.html, if not given."),
    ] = None,
) -> None:
    """Draw the page of a run as it stands, or one page that compares several. Needs no network, here or to read it."""
    from megatron_rl.config.checks import UserError
    from megatron_rl.report.page import FILE_NAME, page_of, read_run
    from megatron_rl.runtime.files import write_named

    with one_line_errors():
        found = [read_run(directory) for directory in dict.fromkeys(runs)]
        if not any(len(run.curves) for run in found):
            raise UserError(f"{', '.join(map(str, runs))}: has no step yet; wait for the first")
        path = to or (runs[0] / FILE_NAME if len(found) == 1 else Path("comparison.html"))
        write_named(path, page_of(found).encode(), "--to")
        typer.echo(str(path))


def watch(
    run: Run,
    port: Annotated[
        int | None,
        typer.Option(
            "--serve",
            metavar="PORT",
            parser=number_between(0, 65535, int),
            help="Serve the page, on this machine alone.",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show where it stands, and leave.")] = False,
) -> None:
    """Show where a run stands, live, from its files: on any machine that sees its directory, while it trains."""
    from megatron_rl.config.checks import require
    from megatron_rl.report import watch as watching
    from megatron_rl.runtime.console import Terminal

    with one_line_errors():
        require(
            port is None or not once, "--once: shows where it stands and leaves, and --serve stays; give one of them"
        )
        if port is not None:
            watching.serve(run, port, typer.echo)
        else:
            watching.watch(run, Terminal(highlight=False), stays=not once)


def track(
    run: Run,
    to: Annotated[str, typer.Option("--to", metavar="PLACE", parser=tracker_of, help=f"One of {', '.join(TRACKERS)}.")],
    follows: Annotated[bool, typer.Option("--follow", help="Go on until the run has finished; Ctrl-C leaves.")] = False,
    is_live: Annotated[
        bool, typer.Option("--live", help="Send a step at once, not when a checkpoint after it stands.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="FOLDER", parser=path_of, help="For what is kept in files; RUN/track."),
    ] = None,
) -> None:
    """Send a run's numbers to TensorBoard, W&B or MLflow, each step once, also after a kill and a resume.

    WANDB_MODE=online uploads at once, and MLFLOW_TRACKING_URI names a server; without, all is kept in files.
    """
    from megatron_rl.report import track as tracking

    with one_line_errors():
        num_sent, said = tracking.track(run, to, folder, follows=follows, is_live=is_live)
        typer.echo(f"{num_sent} steps and validations sent; {said}")


def trace(
    run: Run,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", parser=path_of, help="The file to write, .json.")],
    steps: Annotated[
        Any, typer.Option("--steps", metavar="A:B", parser=steps_of, help="From A to B; all recorded if not given.")
    ] = None,
) -> None:
    """Write what every rank did when, step by step, as a trace for ui.perfetto.dev or chrome://tracing."""
    from megatron_rl.report.trace import write_trace

    with one_line_errors():
        num_ranks, num_steps = write_trace(run, to, steps)
        typer.echo(f"{to}: {num_steps} steps of {num_ranks} ranks; open it at ui.perfetto.dev")
