"""Commands that read a run's directory, on any machine that sees it, while it trains and after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from megatron_rl.commands.errors import number_between, one_line_errors, path_of

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
    from megatron_rl.report.page import FILE_NAME, read_run, write_page

    with one_line_errors():
        found = [read_run(directory) for directory in dict.fromkeys(runs)]
        if not any(len(run.curves) for run in found):
            raise UserError(f"{', '.join(map(str, runs))}: has no step yet; wait for the first")
        path = to or (runs[0] / FILE_NAME if len(found) == 1 else Path("comparison.html"))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_page(path, found)
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
    from rich.console import Console

    from megatron_rl.report import watch as watching

    with one_line_errors():
        if port is not None:
            watching.serve(run, port, typer.echo)
        else:
            watching.watch(run, Console(highlight=False), stays=not once)
