"""Writes docs/metrics.md and docs/settings.md from the declarations of metrics and settings and their own comments.

python docs/make.py
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from pathlib import Path
from typing import Any

from megatron_rl.commands.settings import FIXED, RUN_FIELDS, VARIED, settable
from megatron_rl.config.records import Recipe, Scale
from megatron_rl.config.run import Run
from megatron_rl.config.sources import comments_of
from megatron_rl.report.metrics import MEASURED, METRICS

FOLDER = Path(__file__).parent


def main() -> None:
    """Writes both pages."""
    for name, page in pages().items():
        (FOLDER / name).write_text(page, encoding="utf-8")


def pages() -> dict[str, str]:
    """File name -> its text."""
    return {"metrics.md": metrics_page(), "settings.md": settings_page()}


def metrics_page() -> str:
    """Every metric by its phase, with unit and meaning."""
    phases = list(dict.fromkeys(name.partition("/")[0] for name in METRICS))
    parts = [
        "# Metrics",
        "<!-- Made by docs/make.py from megatron_rl/report/metrics.py. Change that, and make it again. -->",
        "Each line of `metrics.jsonl` is one step or one validation: `step`, these numbers by their names, and under\n"
        "`decisions` what the step did beside training, with its reason. A metric *by domain* is also there as\n"
        "`NAME/DOMAIN`. Those that begin with "
        + ", ".join(f"`{name}`" for name in MEASURED)
        + " are measured and\ndiffer from one time to the next; all others are equal in a run and its repetition. A\n"
        "number that a step does not have, such as an entropy where nothing was trained on, is left out.",
    ]
    for phase in phases:
        rows = [
            (f"`{name}`", metric.unit, "yes" if metric.per_domain else "", metric.meaning)
            for name, metric in METRICS.items()
            if name.startswith(f"{phase}/")
        ]
        parts += [f"## {phase}", table(("metric", "unit", "by domain", "meaning"), rows)]
    return "\n\n".join(parts) + "\n"


def settings_page() -> str:
    """Every value that `--set` changes, with its type, its default and its comment."""
    recipe = {
        name: kind
        for name, kind in settable(Recipe).items()
        if name in VARIED or not any(name == fixed or name.startswith(f"{fixed}.") for fixed in FIXED)
    }
    scale = {name: kind for name, kind in settable(Scale).items() if f"scale.{name}" not in FIXED}
    columns = ("setting", "type", "default", "meaning")
    parts = [
        "# Settings",
        "<!-- Made by docs/make.py from the records in megatron_rl/config. Change those, and make it again. -->",
        "`--set NAME=VALUE` changes one of these, as in `--set sampling.temperature=1.2 --set run.seed=2`; `none`\n"
        "leaves out what may be left out. The values of a recipe stand on [its page](recipes/prorl_v2.md), those\n"
        "of a scale in [recipes/scales.py](../recipes/scales.py). A run with changed values of its recipe says so.",
        "## The run",
        table(columns, rows_of(Run, RUN_FIELDS, "run.")),
        "## The scale",
        table(columns, rows_of(Scale, scale, "scale.")),
        "## The recipe",
        "Values of a recipe have no defaults: each recipe gives all of them, with their sources.",
        table(("setting", "type", "meaning"), [(a, b, d) for a, b, _, d in rows_of(Recipe, recipe, "")]),
    ]
    return "\n\n".join(parts) + "\n"


def rows_of(record: type, names: dict[str, Any], prefix: str) -> list[tuple[str, str, str, str]]:
    """Name, type, default and meaning of settings of a record."""
    found = []
    for name, kind in names.items():
        owner, field = owner_of(record, name)
        given = {one.name: one for one in dataclasses.fields(owner)}[field]
        is_given = given.default is dataclasses.MISSING or dataclasses.is_dataclass(given.default)
        default = "" if is_given else f"`{value_of(given.default)}`"
        meaning = meanings(owner).get(field) or summary(kind)
        found.append((f"`{prefix}{name}`", type_of(kind), default, meaning[:1].upper() + meaning[1:]))
    return found


def owner_of(record: type, name: str) -> tuple[type, str]:
    """The record that a dotted name's last part is a field of, and that part."""
    first, _, rest = name.partition(".")
    if not rest:
        return record, first
    (inner,) = records_in(typing.get_type_hints(record)[first])
    return owner_of(inner, rest)


def records_in(kind: Any) -> list[type]:
    """The records that an annotation allows."""
    return [option for option in (kind, *typing.get_args(kind)) if dataclasses.is_dataclass(option)]


def summary(kind: Any) -> str:
    """What the record that an annotation allows says of itself, without its full stop."""
    return "; ".join((inspect.getdoc(record) or "").partition("\n")[0].removesuffix(".") for record in records_in(kind))


@functools.cache
def meanings(record: type) -> dict[str, str]:
    """Field -> the comment beside it, or on the line above."""
    source = inspect.getsource(record)
    lines = ["", *(line.strip() for line in source.splitlines())]
    found = {}
    for number, comment in comments_of(source).items():
        stands_alone = lines[number].startswith("#")
        field, _, _ = lines[number + stands_alone].partition(":")
        found[field] = comment.removesuffix(".") if stands_alone else comment
    return found


def type_of(kind: Any) -> str:
    """An annotation for reading."""
    options = typing.get_args(kind)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return " or ".join("none" if option is type(None) else type_of(option) for option in options)
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(f"`{option}`" for option in options)
    words = {int: "whole number", float: "number", bool: "`true`, `false`", str: "text", Path: "path"}
    if dataclasses.is_dataclass(kind):
        return "its fields, below"
    return words.get(kind, "not a single value")


def value_of(default: Any) -> str:
    """A default as one would type it."""
    if default is None or isinstance(default, bool):
        return str(default).lower()
    return str(default)


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [columns, tuple("---" for _ in columns), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
