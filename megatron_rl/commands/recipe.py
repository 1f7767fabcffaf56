"""The commands `megatron-rl recipe ...`: the file of a recipe of one's own, begun from a published one."""

from __future__ import annotations

import dataclasses
import keyword
import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from megatron_rl.commands.errors import OneLineCommand, one_line_errors, path_of
from megatron_rl.config.checks import require
from megatron_rl.config.records import Model, Recipe
from megatron_rl.config.words import lack

app = typer.Typer(help="Write a recipe of one's own.", no_args_is_help=True)
command = partial(app.command, cls=OneLineCommand)


@command()
def new(
    base: Annotated[str, typer.Option("--from", metavar="RECIPE", help="The published recipe, or a variant, by name.")],
    model: Annotated[
        str | None, typer.Option("--model", metavar="FOLDER|NAME", help="A Qwen2, Qwen3 or Llama model.")
    ] = None,
    domains: Annotated[
        str | None, typer.Option("--domains", metavar="NAMES", help="Only these, as in math,logic or math=2,logic=1.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", parser=path_of, metavar="FILE.py", help="The file to write; RECIPE_mine.py if not given."),
    ] = None,
) -> None:
    """Write a recipe file that replaces the model or the domains of a published recipe; its other numbers stay."""
    from megatron_rl.commands.choose import find_model, find_recipe, recipe_files
    from megatron_rl.config.draws import check_draws
    from megatron_rl.config.pretrained import read_model
    from megatron_rl.config.variant import domains_of, variant_of
    from megatron_rl.runtime.files import write_named

    with one_line_errors():
        recipe = find_recipe(base)
        require(base in recipe_files(), f"--from {base}: give a recipe of this repository by its name")
        path = to or Path(f"{base}_mine.py")
        name = path.stem
        fits = path.suffix == ".py" and name.isidentifier() and not keyword.iskeyword(name)
        require(fits, f"--to {path}: name it as a Python module, such as {base}_mine.py")
        require(not os.path.lexists(path), f"--to {path}: is there already; name another")
        require(path.parent.is_dir(), f"--to {path}: {path.parent}: {lack(path.parent, 'folder')}; make it first")
        shape = None
        if model is not None and (folder := find_model(model, None)) is not None:
            shape = dataclasses.replace(read_model(folder), name=model)
        wanted = domains_of(domains) if domains is not None else None
        varied = variant_of(recipe, shape, wanted)
        check_draws(varied)
        text = recipe_text(base, name, recipe, varied, recipe_files()[base])
        write_named(path, text.encode(), "--to")
    typer.echo(f"{path}: change what you like; `megatron-rl check {path} --scale NAME` says what it would be")


def recipe_text(base: str, name: str, recipe: Recipe, varied: Recipe, file: Path) -> str:
    """The source of a recipe that is `varied`, as what it replaces of `recipe`."""
    module = f"recipes.variants.{base}" if file.parent.name == "variants" else f"recipes.{base}"
    changes = [f'    name="{name}",', '    version="0.1.0",']
    imports = ["from dataclasses import replace", "", f"from {module} import RECIPE as PUBLISHED"]
    is_own = not {domain.name for domain in varied.domains} <= {domain.name for domain in recipe.domains}
    records = ["Domain"] * is_own + ["Model"] * (varied.model != recipe.model)
    if records:
        imports.insert(2, f"from megatron_rl.config.records import {', '.join(records)}")
    if varied.model != recipe.model:
        changes.append(f"    model={_source(varied.model)},")
    if varied.domains != recipe.domains:
        known = {domain.name for domain in recipe.domains}
        weights = {domain.name: domain.weight for domain in varied.domains if domain.name in known}
        changes.append("    domains=(")
        if any(weight is not None for weight in weights.values()):
            changes.append(f"        *(replace(domain, weight={weights!r}[domain.name])")
            changes.append(f"          for domain in PUBLISHED.domains if domain.name in {tuple(weights)!r}),")
        elif weights:
            changes.append(f"        *(domain for domain in PUBLISHED.domains if domain.name in {tuple(weights)!r}),")
        changes += [f"        {domain!r}," for domain in varied.domains if domain.name not in known]
        changes.append("    ),")
    if varied.stages != recipe.stages:
        changes.append("    stages=tuple(")
        changes.append("        replace(stage, domains=names)")
        wanted = [stage.domains for stage in varied.stages]
        changes.append(f"        for stage, names in zip(PUBLISHED.stages, {wanted!r}, strict=True)")
        changes.append("    ),")
    head = f'"""{recipe.release}, changed: a recipe of one\'s own, which never counts as published."""'
    return "\n".join([head, "", *imports, "", "RECIPE = replace(", "    PUBLISHED,", *changes, ")", ""])


def _source(model: Model) -> str:
    fields = (f"        {field.name}={getattr(model, field.name)!r}," for field in dataclasses.fields(model))
    return "\n".join(["Model(", *fields, "    )"])


@app.callback()
def _group() -> None:
    """Write a recipe of one's own."""
