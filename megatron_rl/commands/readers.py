"""Commands that read a run's directory, on any machine that sees it, while it trains and after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from megatron_rl.commands.errors import one_line_errors, path_of

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
