"""The commands `megatron-rl data ...`: from a clone to the prompts that a recipe trains on."""

from __future__ import annotations

import os
import pkgutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import recipes.mixtures
from megatron_rl.commands import settings
from megatron_rl.commands.errors import OneLineCommand, number_between, one_line_errors, path_of
from megatron_rl.commands.modules import run_module
from megatron_rl.commands.settings import require_known
from megatron_rl.config.checks import UserError, require
from megatron_rl.config.mixture import Mixture
from megatron_rl.config.words import check_folder, lack
from megatron_rl.data.files import alike_files, missing_parts

if TYPE_CHECKING:
    from megatron_rl.config.records import Recipe

app = typer.Typer(help="Make the prompts that a recipe trains on.", no_args_is_help=True)
command = partial(app.command, cls=OneLineCommand)
MAX_PROCESSES = 256
ALIKE_REMEDY = "its files are called train.jsonl and validation.jsonl, or with .zst behind that, packed by zstd"
LOG_SECONDS = 30.0  # between two lines of progress where there is no terminal


@command()
def prepare(
    mixture: Annotated[str, typer.Argument(metavar="MIXTURE", help="Name of a mixture, such as prorl, or its file.")],
    to: Annotated[Path, typer.Option("--to", parser=path_of, metavar="FOLDER", help="The data folder to write.")],
    mirror: Annotated[
        Path | None,
        typer.Option("--mirror", parser=path_of, metavar="FOLDER", help="Downloads as OWNER/NAME/FILE; else the hub."),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="SOURCE=PATH", help="Files of one source in place of its own; repeatable."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", metavar="SOURCE", help="Leave a source out; repeatable.")
    ] = None,
    evaluation: Annotated[
        list[str] | None,
        typer.Option("--evaluation", metavar="PATH", help="Problems never to train on, as JSON lines; repeatable."),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option("--tokenizer", parser=path_of, metavar="FOLDER", help="Model whose tokens are counted."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option("--processes", parser=number_between(1, MAX_PROCESSES, int), metavar="NUMBER", help="All cores."),
    ] = None,
    packs: Annotated[bool, typer.Option("--zstd", help="Pack the files; ranks then hold them in memory.")] = False,
    allow_unsafe_sandbox: Annotated[
        bool, typer.Option("--allow-unsafe-sandbox", help="Run solutions though a layer of the sandbox is missing.")
    ] = False,
) -> None:
    """Write a data folder: train and validation files, what was dropped and why, and a manifest.

    Started again after a kill it goes on where it was, to the same bytes.
    """
    from megatron_rl.data.prepare import Order
    from megatron_rl.data.prepare import prepare as prepare_folder

    with one_line_errors():
        if tokenizer is not None:
            check_folder("--tokenizer", tokenizer, "that of a model, with its tokenizer.json")
        if mirror is not None:
            check_folder("--mirror", mirror, "that of the downloads, OWNER/NAME/FILE")
        order = Order(
            mixture=find_mixture(mixture),
            folder=to,
            mirror=mirror,
            given=_given(given or []),
            without=tuple(without or ()),
            evaluation=tuple(_existing("--evaluation", text) for text in evaluation or ()),
            tokenizer=tokenizer,
            processes=processes or min(MAX_PROCESSES, os.cpu_count() or 1),
            packs=packs,
            allows_unsafe_sandbox=allow_unsafe_sandbox,
        )
        with going_on_later(to), Bar() as bar:
            manifest = prepare_folder(order, bar)
        show(manifest, to)


@contextmanager
def going_on_later(folder: Path) -> Iterator[None]:
    """Says of what stops a preparation that the same command goes on from there. Raises RuntimeError for the disk."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped: start the same command again to go on", err=True)
        raise
    except OSError as error:
        where, why = error.filename or folder, error.strerror or str(error)
        raise RuntimeError(f"{where}: {why}; mend that, and start the same command again to go on") from None


@app.callback()
def _group() -> None:
    """Make the prompts that a recipe trains on."""


def check_whole(folder: Path, recipe: Recipe) -> None:
    """Raises UserError where a folder lacks files of prompts: which, and what makes them."""
    missing = missing_parts(folder)
    if not missing:
        return
    files = " and no ".join(f"{part}.jsonl" for part in missing)
    if alike := alike_files(folder, missing):
        raise UserError(f"data folder {folder}: has no {files}, but {', '.join(alike)}; {ALIKE_REMEDY}")
    others = [str(path) for path in sorted(folder.iterdir()) if path.is_dir() and not missing_parts(path)]
    known = f"{' and '.join(others)} has them, for --set run.data_folder={others[0]}; " if others else ""
    remedy = f"{making(folder, recipe)} makes them, or give another folder with --set run.data_folder=FOLDER"
    raise UserError(f"data folder {folder}: has no {files}; {known}{remedy}")


def making(folder: Path, recipe: Recipe) -> str:
    """The command that writes a recipe's prompts to a folder; that of ProRL's where no mixture has its sources."""
    sources = {domain.source for domain in recipe.domains}
    of_recipe = [
        name
        for name in sorted(_mixture_files(), reverse=True)
        if sources.intersection(source.repository for source in find_mixture(name).train)
    ]
    return f"`megatron-rl data prepare {(of_recipe or ['prorl'])[0]} --to {folder}`"


def _mixture_files() -> dict[str, Path]:
    folder = Path(recipes.mixtures.__file__).parent
    return {module.name: folder / f"{module.name}.py" for module in pkgutil.iter_modules([str(folder)])}


def find_mixture(name: str) -> Mixture:
    """The MIXTURE of a module of `recipes.mixtures`, or of a file when `name` ends with .py. Raises UserError."""
    known = _mixture_files()
    if not name.endswith(".py"):
        require_known(name, known, f"mixture '{name}': there is none")
    mixture = getattr(run_module("mixture", name, known.get(name, Path(name))), "MIXTURE", None)
    if not isinstance(mixture, Mixture):
        raise UserError(f"mixture '{name}': defines no MIXTURE = Mixture(...)")
    return mixture


def _given(words: Sequence[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for word in words:
        name, equals, path = word.partition("=")
        require(bool(equals and name and path), f"--from {word}: write it as SOURCE=PATH")
        found.setdefault(name, []).append(_existing("--from", path))
    return found


def _existing(option: str, text: str) -> Path:
    require(bool(text.strip()), f"{option}: must not be empty; give a file or a folder")
    path = settings.path_of(f"{option} {text}", text)
    require(path.exists(), f"{option} {text}: {lack(path, 'file')}, and no such folder; name another")
    return path


class Bar:
    """A progress bar on standard error, with the time that is left; in a log a line now and then."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task: Any = None
        self._told = time.monotonic()

    def begin(self, what: str, total: int) -> None:
        self._task = self._progress.add_task(what, total=max(1, total))

    def advance(self, amount: int) -> None:
        self._progress.advance(self._task, amount)
        if not self._console.is_terminal and time.monotonic() - self._told >= LOG_SECONDS:
            self._told = time.monotonic()
            task = self._progress.tasks[self._task]
            left = "" if task.time_remaining is None else f", {timedelta(seconds=int(task.time_remaining))} left"
            self._console.print(f"{task.description}: {task.percentage:.0f} %{left}")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()


def show(manifest: Mapping[str, Any], folder: Path) -> None:
    """Prints what was kept of each source, and what most of the others were dropped for."""
    from rich.table import Table

    from megatron_rl.data.origins import moves
    from megatron_rl.runtime.console import Terminal

    out = Terminal(highlight=False, markup=False)
    table = Table(box=None, pad_edge=False)
    for column in ("part", "domain", "source", "rows", "kept", "published", "dropped"):
        table.add_column(
            column, overflow="fold", justify="right" if column in ("rows", "kept", "published") else "left"
        )
    for name, source in manifest["sources"].items():
        dropped = ", ".join(f"{rule} {count:,}" for rule, count in source["dropped"].items())
        published = "-" if source["published"] is None else f"{source['published']:,}"
        counts = (f"{source['rows']:,}", f"{source['kept']:,}", published)
        table.add_row(source["part"], source["domain"], name, *counts, dropped)
    out.print(table)
    for name, source in manifest["sources"].items():
        if source["files"] and moves(source["revision"]):
            read = "another day's files may differ" if source["commit"] is None else f"read at {source['commit']}"
            told = f"source '{name}': revision '{source['revision']}' of {source['repository']} moves; {read}"
            out.print(f"{told}; the checksums are in manifest.json", style="yellow", soft_wrap=True)
    for missing in manifest["not_checked"]:
        out.print(f"not checked: {missing}", style="yellow", soft_wrap=True)
    out.print(f"{manifest['mixture']} is in {folder}; manifest.json and dropped.jsonl say the rest", soft_wrap=True)
