"""The page of a recipe is made from the recipe."""

import importlib
import importlib.util
import re
from collections.abc import Sequence
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


def test_what_a_variant_changes_of_the_stages_is_told_stage_by_stage() -> None:
    page = (FOLDER / "prorl_v1.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith("| `prorl_v1_reference_free")]
    told = re.findall(r"`stages\.(.+?)`", line)
    assert told == [f"run_{number}.resets_reference: True -> False" for number in (2, 6, 7)]
    assert all(len(line) < 1000 for line in page.splitlines())


def mean(row: Sequence[Any]) -> float:
    return sum(row) / len(row)


@pytest.mark.parametrize("name", make.published())
def test_the_papers_means_are_those_of_their_rows(name: str) -> None:
    """A digit that was copied wrong would show: 0.01 is the papers' rounding."""
    tables = importlib.import_module(f"recipes.{name}").PAGE.results
    for table in tables:
        for row in table.rows if table.columns[-1] == "mean" else ():
            assert mean(row[1:-1]) == pytest.approx(row[-1], abs=0.01), row
    scores = {row[2]: row for table in tables if table.columns[:2] == ("method", "samples each") for row in table.rows}
    for table in tables:
        column = {"Math": 5, "Code": 6}.get(table.title.split()[0].strip(","), 0)
        for row in table.rows if scores and table.columns[0] == "steps" else ():
            label = row[0].rpartition(" ")[2]
            printed = scores[label if label.startswith("+") else 3000][column]
            assert mean(row[1:]) == pytest.approx(printed, abs=0.01), row


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


IN_VERL = ("Norms and biases are not decayed", "within each microbatch and averages those")
# What is not as published -> the pages that have to say so.
NAMED: dict[str, tuple[str, ...]] = {
    "prorl_v1": (
        *IN_VERL,
        "divides by n - 1",
        "own verifiers",
        "section 3.2 prints 8096",
        "without a warm-up",
        "adds at most one more in the median",
        "second-hand (SU)",
        "`nvidia/Nemotron-Research-Reasoning-Qwen-1.5B@v1`",
    ),
    "prorl_v2": (
        *IN_VERL,
        "own verifiers",
        "has two pairs",
        "counted in steps",
        "limit of response tokens",
        "fresh moments",
        "26 days on 32 GPUs",
        "48,000 GPU-hours",
        "-17.54",
        "A branch may move",
        "`nvidia/Nemotron-Research-Reasoning-Qwen-1.5B@main`",
    ),
    "brorl": (
        *IN_VERL,
        "own verifiers",
        "fresh moments",
        "| math | 16506 | 15760 | BB |",
        "| code | 26808 | 26090 | BB |",
        "| BroRL +191 | 61.59 | 56.62 | 60.86 | 37.74 | BR Table 4 |",
        "| ProRL v1, blog | 16 | 2000 |",
        "`nvidia/Nemotron-Research-Reasoning-Qwen-1.5B@brorl`",
    ),
    "brorl_control_n16": (
        "What BroRL's page says",
        "fresh moments, the decay of norms, the loss's mean and verifiers holds here too",
        "133.8 hours",
    ),
    "dler": (*IN_VERL, "own verifiers", "fresh moments", "Confidence: high", "| DLER | -70 | DL |"),
    "grpo_control": (*IN_VERL, "divides by n - 1", "begins with a tenth of the learning rate"),
    "justrl": (
        *IN_VERL,
        "divides a group's deviation by n - 1",
        "Confidence: high",
        "math verifier",
        "begins with a tenth",
    ),
    "olmo3_rl_zero": (
        "Confidence: low to medium",
        "Another model",
        "Other problems",
        "1,024 prompt tokens instead",
        "math verifier",
        "The sources report nothing of this model",
    ),
}


@pytest.mark.parametrize("name", make.published())
def test_what_is_not_as_published_stands_on_the_page(name: str) -> None:
    page = " ".join((FOLDER / f"{name}.md").read_text(encoding="utf-8").split())
    for phrase in NAMED[name]:
        assert phrase in page, phrase


@pytest.mark.parametrize("name", make.published())
def test_every_tag_on_a_page_is_in_its_glossary_with_a_link(name: str) -> None:
    text, glossary = (FOLDER / f"{name}.md").read_text(encoding="utf-8").split("## Sources\n\n")
    explained = dict(re.findall(r"^\| (\w+) \| (.*) \|$", glossary, re.MULTILINE))
    used = {tag for tag in make.LEGEND if re.search(rf"(?<![\w`]){tag}(?![\w`])", text)}
    assert used and used <= explained.keys()
    assert all("https://" in explained[tag] for tag in used)


def test_the_readme_counts_the_values_of_prorl_v2_that_are_chosen() -> None:
    readme = (FOLDER.parents[1] / "README.md").read_text(encoding="utf-8")
    page = (FOLDER / "prorl_v2.md").read_text(encoding="utf-8")
    assert readme.startswith("# megatron-rl: prolonged RL of language models, as published, with every gap named\n")
    (told,) = re.findall(r"\((\d+) values of ProRL v2\)", readme)
    chosen = re.findall(r"^\| ([\w.]+) \| .* \| .*chosen:", page, re.MULTILINE)
    shared = [field for field in chosen if re.fullmatch(r"domains\.\w+\.weight", field)]
    assert int(told) == len(chosen) - len(shared) + 1 and len(shared) == 5  # one choice for all domains
    assert f"\n{told} of these " in page
