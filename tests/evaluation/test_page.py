"""The page and the table hold every policy's figures, the papers' beside them, and no link to a network."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from megatron_rl.commands.suites import published_figures
from megatron_rl.evaluation import store
from megatron_rl.evaluation.figures import CSV_NAME, Figures, read, write
from megatron_rl.evaluation.page import PAGE_NAME
from megatron_rl.evaluation.plan import Evaluation
from megatron_rl.evaluation.store import SAMPLES
from tests.evaluation.stored import RATES, SAMPLES_EACH, write_evaluation


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return write_evaluation(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module")
def figures(evaluation: Evaluation) -> Figures:
    """The figures, of which page and table are written."""
    return write(evaluation, published_figures())


def test_the_page_shows_scores_boundary_and_the_papers_figures(evaluation: Evaluation, figures: Figures) -> None:
    page = (evaluation.directory / PAGE_NAME).read_text()
    assert "48.13" in page and "ProRL v1" in page and "28.54" in page, "AIME24 of ProRL v1 and of its start"
    assert (
        "pass@128" in page
        and "too odd" in page
        and "&lt;b&gt;" in page
        and "<b>step"
        not in page.replace("<b>step 0 &lt;", "").replace("<b>step 100 &lt;", "").replace("<b>step 200 &lt;", "")
    )
    assert page.count("<svg") == 4
    assert "aime24, ifeval" in page, "points that lie on each other share a label"
    assert not re.search(r"(src|href)=\"(https?:)?//", page) and "<script" not in page
    assert len(page) < 3_000_000
    (first, *_) = figures.boundaries
    assert (first.k, first.before, first.after) == (128, pytest.approx(5 / 6), pytest.approx(5 / 6))
    assert first.regime == "diminish"
    assert figures.paired["aime24"].delta == pytest.approx(5 / 6 * (90 - 13) / 128)
    assert figures.novelty["step_000000", "aime24"] == pytest.approx((5 + 7 + 2 / 7) / 2)


def test_a_tokenizer_without_a_chat_template_is_named(evaluation: Evaluation, figures: Figures) -> None:
    note = "the tokenizer has no chat template: prompts were asked as they stand"
    assert note in figures.notes and note in (evaluation.directory / PAGE_NAME).read_text()
    assert note not in dataclasses.replace(figures, has_template=True).notes


def test_a_policy_that_lacks_samples_is_named(evaluation: Evaluation, tmp_path: Path) -> None:
    shutil.copytree(evaluation.directory, tmp_path / "half")
    half = dataclasses.replace(evaluation, directory=tmp_path / "half", corpus=())
    folder = store.folder_of(half.directory, "step_000100", "aime24")
    for what in (SAMPLES, "ours"):
        path = folder / what / "wave_00000.jsonl"
        store.write_lines(path, store.read_lines(path)[: 2 * SAMPLES_EACH])
    assert not any("evaluate it to the end" in note for note in read(evaluation, {}).notes)
    notes = [note for note in read(half, {}).notes if "evaluate it to the end" in note]
    assert notes == ["AIME 2024, step 100 <b>: has 256 of 768 samples; evaluate it to the end to compare it"]


def test_a_model_that_is_no_runs_is_not_what_the_run_came_to(evaluation: Evaluation, tmp_path: Path) -> None:
    shutil.copytree(evaluation.directory, tmp_path / "two")
    two = dataclasses.replace(evaluation, directory=tmp_path / "two", corpus=())
    shutil.copytree(two.directory / "policies" / "step_000000", two.directory / "policies" / "another")
    facts = json.dumps({"title": "another", "step": None, "weights": ""})
    store.write_text(two.directory / "policies" / "another" / "policy.json", facts)
    found, before = read(two, {}), read(evaluation, {})
    assert list(found.titles) == [*before.titles, "another"] and found.compared == before.compared
    assert found.boundaries == before.boundaries and found.paired == before.paired


def test_the_page_and_the_csv_show_the_same_figures(evaluation: Evaluation, figures: Figures) -> None:
    page = (evaluation.directory / PAGE_NAME).read_text()
    rows = list(csv.DictReader((evaluation.directory / CSV_NAME).read_text().splitlines()))
    scores = page[page.index("<h2>Scores</h2>") : page.index("<h2>pass@k</h2>")]
    of_page = re.findall(r"<td class=number>(?:(-?[\d.]+)<small>\[([\d.]+), ([\d.]+)\]</small>|([\d.]+))</td>", scores)
    shown = [tuple(float(one) for one in cells if one) for cells in of_page]
    estimates = [one for one in shown if len(one) == 3]
    assert len(estimates) == len([row for row in rows if row["figure"] == "pass@1"]) == 2 * len(RATES)
    assert sorted(estimates) == sorted(
        tuple(round(100 * float(row[name]), 2) for name in ("value", "low", "high"))
        for row in rows
        if row["figure"] == "pass@1"
    )
    papers = {float(row[model]) for row in rows for model in figures.published if row[model]}
    assert {one[0] for one in shown if len(one) == 1} == papers and 48.13 in papers


@pytest.mark.usefixtures("figures")
def test_the_table_has_every_figure_and_is_the_same_when_written_again(evaluation: Evaluation) -> None:
    path = evaluation.directory / CSV_NAME
    first = path.read_bytes()
    rows = list(csv.reader(first.decode().splitlines()))
    found = {(row[0], row[1], row[3]): row for row in rows}
    row = found["aime24", "step_000200", "pass@1"]
    assert float(row[4]) == pytest.approx(5 / 6 * 90 / 128) and "48.13" in row
    assert float(found["aime24", "step_000200", "pass@128 (unbiased)"][4]) == pytest.approx(5 / 6)
    assert found["ifeval", "step_000100", "tokens, mean"][4] == "10.0"
    path.unlink()
    write(evaluation, published_figures())
    assert path.read_bytes() == first
