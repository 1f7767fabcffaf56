"""The page and the table hold every policy's figures, the papers' beside them, and no link to a network."""

from __future__ import annotations

import csv
import json
import re

import pytest

from megatron_rl.commands.suites import all_benchmarks, published_figures
from megatron_rl.config.suites import Answering
from megatron_rl.evaluation import store
from megatron_rl.evaluation.figures import write
from megatron_rl.evaluation.page import PAGE_NAME
from megatron_rl.evaluation.plan import Ask, Evaluation, Policy
from megatron_rl.evaluation.store import SAMPLES
from recipes.scales import SCALES
from tests.folders import write_model

PROBLEMS, SAMPLES_EACH = 6, 128
RATES = {"step_000000": 0.1, "step_000100": 0.4, "step_000200": 0.7}  # policy -> how often it is right


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Three policies on AIME 2024 and IFEval, whose samples and verdicts were written by hand."""
    folder = tmp_path_factory.mktemp("evaluation")
    model = write_model(folder / "model")
    answering = Answering(
        samples_per_problem=SAMPLES_EACH, temperature=0.6, top_p=0.95, max_prompt_tokens=32, max_response_tokens=32
    )
    asks = tuple(Ask(benchmark=all_benchmarks()[name], answering=answering) for name in ("aime24", "ifeval"))
    for ask in asks:
        rows = [{"id": str(i), "domain": "math", "prompt": "?", "item": {"answer": "1"}} for i in range(PROBLEMS)]
        store.write_lines(store.problems_folder(folder) / f"{ask.name}.jsonl", rows)
        facts = json.dumps({"left_out": {"too odd": 2}})
        store.write_text(store.problems_folder(folder) / f"{ask.name}.json", facts)
        for place, (policy, rate) in enumerate(RATES.items()):
            samples, verdicts = [], []
            for i in range(PROBLEMS):
                for j in range(SAMPLES_EACH):
                    is_right = i > 0 and j < rate * SAMPLES_EACH
                    samples.append(
                        {"id": str(i), "sample": j, "tokens": 10, "finish": "stop", "response": f"a b c d e {i % 2} g"}
                    )
                    verdicts.append({"id": str(i), "sample": j, "score": float(is_right), "outcome": "judged"})
            place_of = store.folder_of(folder, policy, ask.name)
            store.write_lines(place_of / SAMPLES / "wave_00000.jsonl", samples)
            store.write_lines(place_of / "ours" / "wave_00000.jsonl", verdicts)
            facts = json.dumps({"title": f"step {100 * place} <b>", "step": 100 * place, "weights": ""})
            store.write_text(folder / "policies" / policy / "policy.json", facts)
    (folder / "corpus.txt").write_text("a b c d e 0 g\n")
    policy = Policy(name="step_000000", title="start", folder=model, step=0, shape_folder=model)
    return Evaluation(
        directory=folder, policies=(policy,), asks=asks, scale=SCALES["cpu"], corpus=(folder / "corpus.txt",)
    )


def test_the_page_shows_scores_boundary_and_the_papers_figures(evaluation: Evaluation) -> None:
    figures = write(evaluation, published_figures())
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
    assert not re.search(r"(src|href)=\"(https?:)?//", page) and "<script" not in page
    assert len(page) < 3_000_000
    (first, *_) = figures.boundaries
    assert (first.k, first.before, first.after) == (128, pytest.approx(5 / 6), pytest.approx(5 / 6))
    assert first.regime == "diminish"
    assert figures.paired["aime24"].delta == pytest.approx(5 / 6 * (90 - 13) / 128)
    assert figures.novelty["step_000000", "aime24"] == pytest.approx((5 + 7 + 2 / 7) / 2)


def test_the_table_has_every_figure_and_is_the_same_when_written_again(evaluation: Evaluation) -> None:
    write(evaluation, published_figures())
    path = evaluation.directory / "table.csv"
    first = path.read_bytes()
    rows = list(csv.reader(first.decode().splitlines()))
    found = {(row[0], row[1], row[3]): row for row in rows}
    row = found["aime24", "step_000200", "pass@1"]
    assert float(row[4]) == pytest.approx(5 / 6 * 90 / 128) and "48.13" in row
    assert float(found["aime24", "step_000200", "pass@128 (unbiased)"][4]) == pytest.approx(5 / 6)
    assert found["ifeval", "step_000100", "tokens, mean"][4] == "10.0"
    write(evaluation, published_figures())
    assert path.read_bytes() == first
