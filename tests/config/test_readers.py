"""Every field that a user can set is read by somebody: a setting that nothing obeys is a lie."""

from __future__ import annotations

import ast
import dataclasses
import functools
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import megatron_rl
from megatron_rl.config.records import Recipe, Scale
from megatron_rl.config.run import Run

PACKAGE = Path(megatron_rl.__file__).parent
# What only checks or shows a value does not obey it.
NO_READERS = ("config/checks.py", "config/recipe_checks.py", "commands/check.py")
# Read, but by another name than the field's.
READ_OTHERWISE = {
    "Domain.source": "the page of the recipe, for people",
    "Domain.num_prompts": "the page of the recipe, for people",
    "Parent.data_mixture": "what `check` says of a parent, for people",
    "Parent.weights_digest": "the lineage beside the weights and in run.json, for people",
    "Run.asked_for": "from run.json, by what goes on with the run",
}


def records(record: type, seen: frozenset[type] = frozenset()) -> Iterator[type]:
    """The record and all records in its fields."""
    yield record
    for annotation in typing.get_type_hints(record).values():
        for part in (annotation, *typing.get_args(annotation)):
            if dataclasses.is_dataclass(part) and part not in seen | {record}:
                yield from records(typing.cast(type, part), seen | {record})


@functools.cache
def attributes_read(root: Path) -> set[str]:
    """Names that are read as an attribute, or by getattr, anywhere in the files that obey values."""
    names: set[str] = set()
    for path in root.rglob("*.py"):
        if path.relative_to(root).as_posix() in NO_READERS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                names.add(node.attr)
    return names


def unread(of: type, root: Path) -> list[str]:
    names = attributes_read(root)
    return sorted(
        f"{record.__name__}.{field.name}"
        for record in set(records(of))
        for field in dataclasses.fields(typing.cast(Any, record))
        if field.name not in names
    )


def test_every_field_of_a_run_has_a_reader() -> None:
    found = [name for record in (Recipe, Scale, Run) for name in unread(record, PACKAGE)]
    assert [name for name in found if name not in READ_OTHERWISE] == []


def test_a_field_that_nobody_reads_is_found(tmp_path: Path) -> None:
    @dataclasses.dataclass
    class Planted:
        nobody: int
        somebody: int

    (tmp_path / "reader.py").write_text("def f(x):\n    x.nobody = 1\n    return x.somebody\n")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "checks.py").write_text("def f(x):\n    return x.nobody\n")
    assert unread(Planted, tmp_path) == ["Planted.nobody"]
