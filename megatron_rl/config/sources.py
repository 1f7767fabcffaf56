"""Sources: what a recipe's file says of each of its numbers, read as text; nothing is imported or run."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "recipes"


def sources_of(recipe: str) -> list[tuple[str, str, str]]:
    """Dotted name, value as written and source of every number of a recipe, given by its name or its file.

    A variant's numbers stand in the place of those of the recipe that it changes. Empty where there is no such file.
    """
    places = [FOLDER / f"{recipe}.py", FOLDER / "variants" / f"{recipe}.py", Path(recipe)]
    path = next((place for place in places if place.suffix == ".py" and place.is_file()), None)
    if path is None:
        return []
    source = path.read_text(encoding="utf-8")
    base = re.search(r"^from recipes\.(\w+) import RECIPE", source, re.MULTILINE)
    found = {name: (value, tag) for name, value, tag in (sources_of(base[1]) if base else [])}
    found |= {name: (value, tag) for name, value, tag in sourced_values(source)}
    return [(name, value, tag) for name, (value, tag) in found.items()]


def tags() -> dict[str, str]:
    """Tag of a source, such as P1 -> what it stands for, as recipes/__init__.py says."""
    path = FOLDER / "__init__.py"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return dict(re.findall(r"^([A-Z][A-Z0-9])   (\S.*)$", text, re.MULTILINE))


def sourced_values(source: str) -> Iterator[tuple[str, str, str]]:
    """Dotted name, value as written and comment of every commented field of RECIPE, in the order of the file.

    A fact that recipes/models.py or recipes/domains.py names is followed there; the recipe's own comment stands first.
    """

    def leaves(call: ast.Call, prefix: str, source: str) -> Iterator[tuple[str, str, str]]:
        comments = comments_of(source)
        for keyword in call.keywords:
            path, value = f"{prefix}{keyword.arg}", keyword.value
            if (comment := comments.get(value.end_lineno or 0)) and not isinstance(value, ast.Call):
                yield path, ast.get_source_segment(source, value) or "", comment
            for part in value.elts if isinstance(value, ast.Tuple) else [value]:
                place = f"{path}." if part is value else None
                if isinstance(part, ast.Name) and part.id in named:
                    fact, where = named[part.id]
                    yield from leaves(fact, place or f"{path}.{label(fact)}.", where)
                elif isinstance(part, ast.Call):
                    yield from leaves(part, place or f"{path}.{label(part)}.", source)

    named = facts()
    yield from leaves(record_in(source, "RECIPE"), "", source)


def facts() -> dict[str, tuple[ast.Call, str]]:
    """Name of a model or a domain -> the call that makes it, and the source that it stands in."""
    sources = [(FOLDER / f"{name}.py").read_text(encoding="utf-8") for name in ("models", "domains")]
    return {
        ast.unparse(node.targets[0]): (node.value, source)
        for source in sources
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
    }


def comments_of(source: str) -> dict[int, str]:
    """Line -> the comment on it."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.removeprefix("#").strip() for token in tokens if token.type == tokenize.COMMENT
    }


def record_in(source: str, name: str) -> ast.Call:
    """The call that makes RECIPE or PAGE."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name and isinstance(node.value, ast.Call):
            return node.value
    raise ValueError(f"the module has no {name} = ...(...)")


def label(call: ast.Call) -> str:
    """What tells a record from its neighbours in a tuple: a domain's name, the run that a stage is."""
    for keyword in call.keywords:
        if keyword.arg in ("name", "why"):
            return str(ast.literal_eval(keyword.value)).partition(":")[0].replace(" ", "_").lower()
    raise ValueError(f"{ast.unparse(call)}: has no name")
