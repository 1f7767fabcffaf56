"""From names to suites: those of recipes/suites, a file of one's own, or a single benchmark; and what was published."""

from __future__ import annotations

import importlib
import pkgutil
import types
from collections.abc import Iterator, Mapping
from pathlib import Path

from megatron_rl.commands.choose import find_page, recipe_files
from megatron_rl.commands.modules import run_module
from megatron_rl.commands.settings import require_known
from megatron_rl.config.checks import UserError
from megatron_rl.config.publication import Table
from megatron_rl.config.suites import Benchmark, Suite
from recipes import suites

USUAL = "prorl"  # whose way of answering a single benchmark takes
PAPERS = ("prorl_v1", "prorl_v2", "brorl")  # whose figures count where others measured the same policy otherwise
MEANS = {"Math": "mean of math", "Code": "mean of code"}  # first word of a table -> what its column `mean` is
GYM = "Reasoning Gym"
OF_GYM = (GYM, f"{GYM}, categories alike")  # its means


def find_suite(name: str) -> Suite:
    """The suite of that name, or of a file when `name` ends with .py, or of one benchmark. Raises UserError."""
    if name.endswith(".py"):
        found = getattr(run_module("suite", name, Path(name)), "SUITE", None)
        if not isinstance(found, Suite):
            raise UserError(f"suite '{name}': defines no SUITE = Suite(...)")
        return found
    known, single = all_suites(), all_benchmarks()
    require_known(name, [*known, *single], f"suite '{name}': there is none")
    if name in known:
        return known[name]
    return Suite(name=name, title=single[name].title, benchmarks=(single[name],), answering=known[USUAL].answering)


def all_suites() -> dict[str, Suite]:
    """The suites of recipes/suites by name."""
    found = [getattr(module, "SUITE", None) for module in _modules()]
    return {suite.name: suite for suite in found if isinstance(suite, Suite)}


def all_benchmarks() -> dict[str, Benchmark]:
    """Every benchmark of recipes/suites by name."""
    values = [value for module in _modules() for value in vars(module).values()]
    lists = [value if isinstance(value, tuple) else (value,) for value in values]
    lists += [suite.benchmarks for suite in all_suites().values()]
    return {one.name: one for part in lists for one in part if isinstance(one, Benchmark)}


def published_figures() -> dict[str, dict[str, float]]:
    """Model -> column -> the figure in % that a recipe's page reports of it; the first page that has it counts."""
    found: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys((*PAPERS, *recipe_files())):
        page = find_page(name)
        for table in page.results if page is not None else ():
            for model, figures in _rows(table):
                _add(found.setdefault(model, {}), figures)
    return {model: figures for model, figures in found.items() if figures}


def _rows(table: Table) -> Iterator[tuple[str, dict[str, str | float]]]:
    """(model, figures) of a page's table, by the names that benchmarks and means have for its columns.

    A model has its steps in its name where the table has them, for several rows may continue one model.
    """
    if table.title.startswith(f"{GYM} by category"):  # its columns are the models
        categories = [f"{GYM} {row[0]}" for row in table.rows]
        for place, model in enumerate(table.columns[1:], start=1):
            yield model, dict(zip(categories, [row[place] for row in table.rows], strict=True))
        return
    mean = MEANS.get(table.title.partition(",")[0].partition(" ")[0], "")
    columns = [mean if column == "mean" else column for column in table.columns]
    for row in table.rows:
        figures = dict(zip(columns[1:], row[1:], strict=True))
        steps = str(figures.get("steps", ""))
        yield f"{row[0]} {steps}" if steps.startswith("+") else str(row[0]), figures


def _add(figures: dict[str, float], more: Mapping[str, str | float]) -> None:
    known = {benchmark.column for benchmark in all_benchmarks().values()} | {*MEANS.values(), *OF_GYM}
    for column, value in more.items():
        if column in known and column and isinstance(value, int | float):
            figures.setdefault(column, float(value))


def _modules() -> list[types.ModuleType]:
    names = [module.name for module in pkgutil.iter_modules(suites.__path__)]
    return [importlib.import_module(f"recipes.suites.{name}") for name in names]
