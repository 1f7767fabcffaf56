"""Writes the page of every published recipe, docs/recipes/NAME.md, from the recipe's own source.

python docs/recipes/make.py
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import recipes
from megatron_rl.commands.choose import find_recipe, recipe_files
from megatron_rl.config.publication import Publication
from megatron_rl.config.records import Recipe, Stage, differences
from megatron_rl.config.sources import comments_of, record_in, sourced_values

FOLDER = Path(__file__).parent
AS_REPORTED = "As the sources report it; nothing here was measured with this repository."
NOT_REPORTED = "The sources report nothing of this model, and nothing was measured with this repository."
LEGEND = dict(re.findall(r"^([A-Z][A-Z0-9]+) {2,}(.+)$", recipes.__doc__ or "", re.MULTILINE))


def main() -> None:
    """Writes all pages."""
    for name in published():
        (FOLDER / f"{name}.md").write_text(page(name), encoding="utf-8")


def published() -> list[str]:
    """Names of the recipes that have a page: all but the variants, which stand on the page of what they change."""
    files = recipe_files()
    return [name for name in files if files[name].parent.name == "recipes"]


def page(name: str) -> str:
    """The page of one recipe, in Markdown."""
    module = importlib.import_module(f"recipes.{name}")
    recipe: Recipe = module.RECIPE
    story: Publication = module.PAGE
    source = inspect.getsource(module)
    numbers = [(field, f"`{value}`", tag) for field, value, tag in sourced_values(source)]
    tagged = source + "".join(f"# {comment}\n" for *_, comment in numbers)
    sections = [
        f"# {story.title}",
        f"<!-- Made by docs/recipes/make.py from recipes/{name}.py. Change that, and make it again. -->",
        (module.__doc__ or "").strip(),
        f"`{recipe.release}`, fingerprint `{recipe.fingerprint}`, in [recipes/{name}.py](../../recipes/{name}.py).",
        f"## Lineage\n\n{wrapped(story.lineage)}",
        cost(recipe, story),
        *([stages(recipe)] if recipe.stages else []),
        "## Every number and its source",
        own_choices(numbers),
        markdown(("field", "value", "source"), numbers),
        "\n".join(wrapped(f"- {note}") for note in notes(source)),
        "## Where a choice had to be made\n\n" + "\n".join(wrapped(f"- {text}") for text in story.deviations),
        "## What to expect\n\n" + (AS_REPORTED if story.results else NOT_REPORTED),
        *results(source),
        variants(recipe),
        "## Sources\n\n"
        + markdown(("tag", "source"), [(tag, text) for tag, text in LEGEND.items() if uses(tagged, tag)]),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def own_choices(numbers: Sequence[tuple[str, str, str]]) -> str:
    """How many values no source decides; what every domain has alike is one."""
    chosen = {re.sub(r"^domains\.\w+\.", "", field) for field, _, source in numbers if "chosen:" in source}
    return f"{len(chosen)} of these values are this project's choice, and say why behind `chosen:`."


def notes(source: str) -> list[str]:
    """The comments of RECIPE that have a line of their own."""
    call = record_in(source, "RECIPE")
    lines = source.splitlines()[call.lineno : call.end_lineno]
    return [line.strip().removeprefix("# ") for line in lines if line.strip().startswith("#")]


def cost(recipe: Recipe, story: Publication) -> str:
    """What a run generates, and what the source says it took."""
    steps = [recipe.at_step(step).sampling for step in range(recipe.num_steps)]
    sequences = sum(sampling.prompts_per_step * sampling.samples_per_prompt for sampling in steps)
    prompts = sum(sampling.prompts_per_step for sampling in steps)
    first, updates = steps[0], recipe.algorithm.updates_per_step
    per_step = first.prompts_per_step * first.samples_per_prompt
    more = "; dynamic sampling generates more than that" if recipe.algorithm.dynamic_sampling else ""
    rows = [
        (
            "first step" if recipe.stages else "step",
            f"{first.prompts_per_step:,} prompts x {first.samples_per_prompt} samples = {per_step:,} sequences, in "
            f"{updates} update{'s' * (updates > 1)} of {per_step // updates:,}",
        ),
        ("run", f"{recipe.num_steps:,} steps: {prompts:,} prompts, {sequences:,} sequences trained on{more}"),
        *([("published policy", f"`{story.checkpoint}@{story.branch}`")] if story.checkpoint else []),
        ("hardware, in the source", story.hardware),
        ("cost, in the source", story.cost),
    ]
    return "## Cost\n\n" + markdown(("what", "how much"), rows)


def stages(recipe: Recipe) -> str:
    """The schedule, with what each stage changes."""

    def changes(stage: Stage) -> str:
        values = {
            "domains": stage.domains and ", ".join(stage.domains),
            "samples_per_prompt": stage.samples_per_prompt,
            "max_response_tokens": stage.max_response_tokens,
            "temperature": stage.temperature,
            "truncation": stage.truncation and f"{stage.truncation.how} by {stage.truncation.value:g}",
            "reference": "reset" if stage.resets_reference else None,
        }
        return "; ".join(f"{name}: {value}" for name, value in values.items() if value is not None)

    rows = [(f"{stage.from_step:,}", stage.why, changes(stage)) for stage in recipe.stages]
    return "## Stages\n\n" + markdown(("from step", "why", "what changes"), rows)


def results(source: str) -> list[str]:
    """The tables of the sources with their numbers as written, and the tag of each row, its comment in the recipe."""
    comments = comments_of(source)
    found = []
    for call in ast.walk(record_in(source, "PAGE")):
        if not isinstance(call, ast.Call) or ast.unparse(call.func) != "Table":
            continue
        title, columns, rows = (keyword.value for keyword in call.keywords)
        assert isinstance(rows, ast.Tuple), ast.unparse(rows)
        cells = [
            (*(as_written(cell, source) for cell in row.elts), comments.get(row.end_lineno or 0, ""))
            for row in rows.elts
            if isinstance(row, ast.Tuple)
        ]
        found.append(f"{ast.literal_eval(title)}:\n\n" + markdown((*ast.literal_eval(columns), "source"), cells))
    return found


def as_written(value: ast.expr, source: str) -> str:
    """A text without its quotes, a number with its zeros."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    return ast.get_source_segment(source, value) or ""


def variants(recipe: Recipe) -> str:
    """The variants of this recipe, with what each changes."""
    rows = []
    for name in recipe_files():
        variant = find_recipe(name)
        if name not in published() and base_of(name) == recipe.name:
            lines = differences(named(recipe), named(variant))
            changed = [line for line in lines if line.partition(":")[0] not in ("name", "version")]
            rows.append((f"`{variant.release}`", "; ".join(f"`{line}`" for line in changed)))
    return "## Variants\n\n" + markdown(("variant", "what it changes"), rows) if rows else ""


def named(recipe: Recipe) -> dict[str, Any]:
    """A recipe's values by name, each stage under its own, so that a line says which value of which one differs."""
    values = dataclasses.asdict(recipe)
    stages = {stage.why.partition(":")[0].lower().replace(" ", "_"): stage for stage in recipe.stages}
    return values | {"stages": {name: dataclasses.asdict(stage) for name, stage in stages.items()}}


def base_of(variant: str) -> str:
    """The recipe that a variant is named after: the longest name that its own begins with."""
    return max((name for name in published() if variant.startswith(f"{name}_")), key=len)


def uses(source: str, tag: str) -> bool:
    """True where the recipe's comments or its page name the source."""
    return re.search(rf"\b{tag}\b", source) is not None


def wrapped(text: str) -> str:
    """A paragraph or an entry of a list in lines of at most 120 characters."""
    indent = "  " * text.startswith("- ")
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def markdown(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A table."""
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    main()
