"""The page of a recipe is made from the recipe."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.commands.choose import find_recipe, recipe_files
from megatron_rl.config.sources import sourced_values

FOLDER = Path(__file__).parents[2] / "docs" / "recipes"


def load() -> Any:
    specification = importlib.util.spec_from_file_location("make_recipe_pages", FOLDER / "make.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


make = load()
SOURCE = """
RECIPE = Recipe(
    name="x",
    # A line of its own.
    algorithm=Algorithm(
        clip_low=0.20,  # B2
        kl=None,  # JR
    ),
    stages=(
        Stage(
            from_step=1_000,  # chosen: late
            why="Run 2: more",
        ),
    ),
)
PAGE = Publication(
    results=(
        Table(title="Scores", columns=("a", "b"), rows=(
            ("one", 1.50),  # P1
        )),
    ),
)
"""


@pytest.mark.parametrize("name", make.published())
def test_the_page_is_the_one_that_the_recipe_makes(name: str) -> None:
    found = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert found == make.page(name), "run `python docs/recipes/make.py`, and commit what it writes"


def test_every_published_recipe_has_a_page_and_every_page_a_recipe() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == set(make.published())


def test_every_variant_stands_on_one_page() -> None:
    pages = [(FOLDER / f"{name}.md").read_text(encoding="utf-8") for name in make.published()]
    for name in set(recipe_files()) - set(make.published()):
        assert sum(f"`{find_recipe(name).release}`" in page for page in pages) == 1


def test_values_and_sources_are_read_as_they_are_written() -> None:
    assert list(sourced_values(SOURCE)) == [
        ("algorithm.clip_low", "0.20", "B2"),
        ("algorithm.kl", "None", "JR"),
        ("stages.run_2.from_step", "1_000", "chosen: late"),
    ]
    assert make.notes(SOURCE) == ["A line of its own."]
    assert make.results(SOURCE) == ["Scores:\n\n| a | b | source |\n| --- | --- | --- |\n| one | 1.50 | P1 |"]


def test_a_page_names_every_field_with_a_source() -> None:
    page = (FOLDER / "brorl.md").read_text(encoding="utf-8")
    for field in ("algorithm.correction.high", "sampling.samples_per_prompt", "optimizer.learning_rate", "num_steps"):
        assert page.count(f"| {field} |") == 1
