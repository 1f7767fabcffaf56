"""The page is whole, needs no network, and says what happened; what a browser makes of it: test_browser.py."""

import dataclasses
import html
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.report import page, sections
from megatron_rl.report.curves import MAX_POINTS, Curves
from megatron_rl.report.ledger import Attempt
from megatron_rl.report.metrics import METRICS
from megatron_rl.report.panels import PANELS, SECTIONS
from megatron_rl.report.plots import write_png
from megatron_rl.report.sections import RunView
from tests.report.records import step_row, validation_row

PARENT = {"release": "prorl_v1 1.0.0", "scale": "cpu", "step": 7, "samples_seen": 9, "fingerprint": "f", "parent": None}
FACTS: dict[str, Any] = {
    "release": "prorl_v2 2.1.0",
    "scale": "cpu",
    "fingerprint": "0123456789abcdef",
    "modified": ["sampling.temperature=<1.2>"],
    "batch": "16 prompts x 16 samples = 256 sequences per step",
    "attempts": [
        {"started": "2026-01-01", "from_step": 0, "python": "3.11", "packages": {"torch": "2"}, "commit": None}
    ],
    "sources": [["sampling.temperature", "0.6", "B2"]],
    "run": {
        "seed": 1,
        "model_folder": "demo/model",
        "parent": PARENT,
        "recipe": {"num_steps": 20, "optimizer": {"max_grad_norm": 1.5}, "sampling": {"temperature": 1.2}},
        "published": {"num_steps": 20, "optimizer": {"max_grad_norm": 1.5}, "sampling": {"temperature": 0.6}},
    },
}
ATTEMPTS = (
    Attempt(number=0, started=0.0, ended=10.0, to_step=9, why="killed", parts={"start": 4.0, "cut_off": 6.0}),
    Attempt(
        number=1,
        started=12.0,
        ended=20.0,
        from_step=8,
        to_step=20,
        why="finished",
        parts={"generate": 8.0, "waiting": 2.0},
    ),
)


def rows(num_steps: int = 20) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for step in range(num_steps + 1):
        if step:
            found.append(dict(step_row(step, step / num_steps, is_reset=step == 10, is_on=step in (4, 5, 6, 15))))
        if step == 10:
            found[-1]["decisions"] = ["reference reset, optimizer kept: </script>", "length term on: 3 steps"]
        if step % 5 == 0:
            found.append(dict(validation_row(step, step / num_steps)))
    return found


def view(found: list[dict[str, Any]] | None = None, **changes: Any) -> RunView:
    run = RunView(name="warm", facts=FACTS, curves=Curves(rows() if found is None else found), attempts=ATTEMPTS)
    return dataclasses.replace(run, **changes)


def data_of(text: str) -> dict[str, Any]:
    """What the page's script reads."""
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    found: dict[str, Any] = json.loads(block)
    return found


@pytest.fixture(scope="module")
def text() -> str:
    return page.page_of([view()])


def test_the_page_says_what_the_run_is_and_where_it_stands(text: str) -> None:
    for part in ("prorl_v2 2.1.0", "0123456789abcdef", "sampling.temperature=&lt;1.2&gt;", "20 of 20", "0.000 → 1.000"):
        assert part in text, part
    assert "finished</p>" in text
    for heading in SECTIONS.values():
        assert f"<h2>{heading}</h2>" in text


def test_the_page_needs_nothing_from_outside(text: str) -> None:
    found: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            assert tag not in ("img", "iframe", "object", "embed"), tag
            found.extend(value or "" for name, value in attributes if name in ("href", "src", "xlink:href"))

    Reader().feed(text)
    assert sorted(found) == ["data:,", "metrics.jsonl", "run.json"]
    assert "default-src 'none'" in text  # the browser itself refuses the rest
    assert "url(http" not in text and "@import" not in text


def test_the_chart_library_comes_with_its_licence(text: str) -> None:
    assert "Copyright (c) 2022 Leon Sorokin" in text and "MIT License" in text


def test_the_script_reads_every_metric_that_a_panel_shows(text: str) -> None:
    (run,) = data_of(text)["runs"]
    assert run["steps"]["metrics"]["rollout/reward_mean"] == [step / 20 for step in range(1, 21)]
    assert run["validations"]["step"] == [0, 5, 10, 15, 20]
    assert run["validations"]["metrics"]["validation/accuracy/math"] == [0, 0.25, 0.5, 0.75, 1]
    assert run["steps"]["samples"][-1] == 256 * 20
    assert run["steps"]["hours"][-1] == pytest.approx(20 * 2 / 3600, rel=1e-3)
    assert run["spans"] == [[4, 6], [15, 15]]


def test_marks_carry_their_reason_and_cannot_end_the_script(text: str) -> None:
    (run,) = data_of(text)["runs"]
    assert run["marks"] == [
        [8, "attempt", "attempt 1 went on; the one before: killed"],
        [10, "reset", "reference reset, optimizer kept: </script>"],
    ]
    assert "length term on: 3 steps" in text
    assert text.count("</script>") == 3


def test_the_clipping_line_stands_at_the_recipes_value(text: str) -> None:
    lines = {panel["title"]: panel["lines"] for panel in data_of(text)["panels"]}
    assert lines["Gradient norm"] == [[1.5, "clipped 1.5"]]
    assert lines["Rounds"] == []  # this recipe has no dynamic sampling


def test_the_ledger_the_recipe_and_the_lineage_stand_in_tables(text: str) -> None:
    assert "40.0% of 20 s led to the policy" in text
    assert all(part in text for part in ("cut off by kills", "waiting between attempts", "attempt 1: step 8 to 20"))
    assert "<td >sampling.temperature</td><td >0.6</td><td >1.2</td>" in text
    assert "<td >sampling.temperature</td><td >0.6</td><td >B2</td>" in text
    assert "<td >prorl_v1 1.0.0</td>" in text


def test_several_runs_are_laid_over_each_other_with_what_differs() -> None:
    other = {**FACTS, "run": {**FACTS["run"], "seed": 2, "recipe": {**FACTS["run"]["recipe"], "num_steps": 10}}}
    text = page.page_of([view(), view(name="cold", facts=other)])
    runs = data_of(text)["runs"]
    assert [run["label"] for run in runs] == ["warm (seed 1)", "cold (seed 2)"]
    assert runs[0]["group"] == runs[1]["group"]  # one recipe, two seeds
    assert "<td >num_steps</td><td >20</td><td >10</td>" in text
    assert "sampling.temperature</td>" not in text


def test_a_campaign_s_page_says_what_each_run_went_on_from_and_came_to() -> None:
    parent = {"release": "prorl_v2 2.1.0", "step": 3000}
    child = {**FACTS, "run": {**FACTS["run"], "parent": parent}}
    found = [dict(step_row(1)), {"step": 0, "validation/accuracy": 0.25, "validation/accuracy/math": 0.25}]
    found += [dict(step_row(2)), {"step": 2, "validation/accuracy": 0.75, "validation/accuracy/math": 0.75}]
    text = page.page_of([view(found, name="brorl", facts=child), view(name="cold")])
    (scores,) = re.findall("<h2>Final scores</h2>(.*?)</div>", text, re.DOTALL)
    rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall("<tr>(.*?)</tr>", scores, re.DOTALL)]
    columns = dict(zip(rows[0], rows[1], strict=True))
    assert (columns["run"], columns["goes on from"]) == ("brorl", "prorl_v2 2.1.0, step 3000")
    assert (columns["accuracy"], columns["gained"], columns["math"]) == ("0.750", "+0.500", "0.750")
    assert {"samples", "tokens", "hours"} <= columns.keys()


def test_every_panel_shows_declared_metrics_of_a_section_that_there_is() -> None:
    for panel in PANELS:
        assert panel.section in SECTIONS and panel.curves.keys() <= METRICS.keys()
        if panel.per_domain:
            assert any(METRICS[name].per_domain for name in panel.curves)


def test_a_long_run_is_thinned_to_a_page_and_keeps_its_largest_values() -> None:
    spike = {"mismatch/max_nats": 7.0}
    long = [dict(step_row(step)) | (spike if step == 5000 else {}) for step in range(1, 10_001)]
    drawn = data_of(page.page_of([view(long)]))["runs"][0]["steps"]
    assert all(len(values) <= MAX_POINTS for values in drawn["metrics"].values())
    assert max(drawn["metrics"]["mismatch/max_nats"]) == 7.0
    assert drawn["step"][0] < 10 and drawn["step"][-1] > 9990


def test_a_metric_that_begins_late_has_gaps_before() -> None:
    found = [dict(step_row(1)), dict(step_row(2)) | {"actor/loss": 1.0}]
    drawn = data_of(page.page_of([view(found)]))["runs"][0]["steps"]["metrics"]
    assert drawn["actor/loss"] == [None, 1.0]


@pytest.mark.parametrize(
    "few", [[validation_row(0, 0.5)], [step_row(1)], [validation_row(0, 0.0), step_row(1, 0.0)]], ids=len
)
def test_a_run_that_has_hardly_begun_has_a_page(tmp_path: Path, few: list[dict[str, float]]) -> None:
    page.write_page(tmp_path / "report.html", [view([dict(row) for row in few], attempts=())])
    assert 'id="plots-learning"' in (tmp_path / "report.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_run_without_a_step_has_none(tmp_path: Path) -> None:
    page.write_page(tmp_path / "report.html", [view([])])
    assert list(tmp_path.iterdir()) == []


def test_a_page_is_the_same_whenever_it_is_drawn() -> None:
    assert page.page_of([view()]) == page.page_of([view()])


def test_the_resolved_run_in_the_page_is_json(text: str) -> None:
    (block,) = re.findall(r"<pre>(.*?)</pre>", text, re.S)
    assert json.loads(html.unescape(block)) == FACTS["run"]


def test_the_picture_is_a_png_of_two_panels(tmp_path: Path) -> None:
    write_png(tmp_path / "report.png", view().curves, "title")
    content = (tmp_path / "report.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    assert width > 2 * height


def test_tables_show_text_as_text() -> None:
    assert "&lt;b&gt;" in sections.table(("a",), [("<b>",)]) and "<b>" not in sections.table(("a",), [("<b>",)])
