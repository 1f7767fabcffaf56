"""Suites are typed files whose every number has a source, as recipes are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import megatron_rl.evaluation.benchmarks as benchmarks
import recipes
import recipes.suites
from megatron_rl.commands.suites import all_benchmarks, all_suites, published_figures
from megatron_rl.config.suites import Made
from megatron_rl.data.logic_tasks import TASKS
from tests.recipes.test_recipes import untagged_numbers

FOLDER = Path(recipes.suites.__file__).parent
FILES = sorted(path.name for path in FOLDER.glob("*.py"))
OWN_TAGS = re.findall(r"^([A-Z][A-Z0-9]+) {2,}", recipes.suites.__doc__ or "", re.MULTILINE)
TAGS = OWN_TAGS + re.findall(r"^([A-Z][A-Z0-9]+) {2,}", recipes.__doc__ or "", re.MULTILINE)


@pytest.mark.parametrize("name", FILES)
def test_every_number_of_a_suite_has_a_source(name: str) -> None:
    assert untagged_numbers((FOLDER / name).read_text(), TAGS) == []


def test_a_pinned_revision_and_a_window_have_a_source_too() -> None:
    """They are texts, which the test above does not see."""
    for path in FOLDER.glob("*.py"):
        for line in path.read_text().splitlines():
            if re.search(r"^\s*(revision|since|until)=\"[^\"]", line):
                assert re.search(rf"# ({'|'.join(TAGS)})\b|# chosen: \w", line), f"{path.name}: {line.strip()}"


def test_every_tag_of_the_suites_is_used() -> None:
    readers = Path(benchmarks.__file__).parent
    used = "".join(path.read_text() for path in [*FOLDER.glob("[!_]*.py"), *readers.glob("*.py")])
    assert OWN_TAGS and not [tag for tag in OWN_TAGS if not re.search(rf"# {tag}\b|Source: {tag}\b", used)]


def test_prorl_asks_every_column_of_the_papers_tables() -> None:
    asked = {one.column for one in all_suites()["prorl"].benchmarks}
    single = {column for row in published_figures().values() for column in row if not column.startswith("mean of")}
    assert asked - single == set()
    assert single - asked == {"Reasoning Gym", "Reasoning Gym, categories alike"}, "means over what is asked"


def test_a_published_figure_stands_beside_what_it_is_a_figure_of() -> None:
    found = published_figures()
    v2 = found["ProRL v2"]
    assert (v2["Reasoning Gym"], v2["Reasoning Gym, categories alike"]) == (61.29, 62.49)
    assert found["ProRL v1"]["Reasoning Gym arc"] == 2.52 and v2["Reasoning Gym arc"] == 4.98
    assert [found[f"BroRL {steps}"]["Reasoning Gym"] for steps in ("+107", "+134", "+191")] == [62.71, 62.82, 63.09]
    assert found["BroRL +191"]["AIME24"] == 57.50 and found["BroRL +191"]["Reasoning Gym logic"] == 85.56
    assert "BroRL" not in found, "which of them would it be?"
    categories = [v2[f"Reasoning Gym {one}"] for one in TASKS]
    assert sum(categories) / len(categories) == pytest.approx(62.49, abs=0.005), "the model card's mean"


def test_reasoning_gym_asks_a_hundred_of_each_of_the_96_tasks() -> None:
    made = [one.source for one in all_suites()["prorl"].benchmarks if one.name.startswith("gym_")]
    tasks = [task for source in made if isinstance(source, Made) for task in TASKS[source.tasks]]
    assert len(tasks) == len(set(tasks)) == 96
    assert {source.num_per_task for source in made if isinstance(source, Made)} == {100}
    eighteen = all_benchmarks()["gym_eighteen"].source
    assert isinstance(eighteen, Made) and len(set(eighteen.tasks.split())) == 18
