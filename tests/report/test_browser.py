"""The page in a real browser: it draws, complains of nothing, asks for nothing, and fits a telephone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.report.page import read_run, write_page
from tests.report.browser import PROGRAM, open_page
from tests.report.long_run import write_long_run

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(PROGRAM is None, reason="needs Chromium: apt-get install chromium"),
]

READY, CHARTS = "document.documentElement.dataset.ready", "document.querySelectorAll('.uplot canvas').length"
OVERHANG = "document.documentElement.scrollWidth - innerWidth"
MAX_BYTES, MAX_SECONDS = 3_000_000, 2.0


def sample_row(number: int) -> dict[str, Any]:
    """A line of samples.jsonl: every fourth of a validation, with what could break a page in its texts."""
    row: dict[str, Any] = {
        "step": number // 4, "domain": "math", "prompt_id": f"id-{number % 7}", "prompt": "<b>2</b> & 2 </script>",
        "response": "four " * 300 + "\u2028<img src=x onerror=alert(1)>", "answer": "4", "reward": float(number % 2),
        "outcome": "judged", "detail": "", "advantage": 0.5, "length": 300, "truncated": False, "policy_version": 0,
    }  # fmt: skip
    return row | ({"held_out": True, "advantage": None} if number % 4 == 0 else {})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Folders of runs by what is looked at."""
    folder = tmp_path_factory.mktemp("runs")
    long = write_long_run(folder / "long")
    short = write_long_run(folder / "short", num_steps=3, num_resets=1, num_attempts=1)
    resumed = write_long_run(folder / "resumed", num_steps=40, num_resets=3, num_attempts=3)
    (short / "samples.jsonl").write_text("".join(json.dumps(sample_row(i)) + "\n" for i in range(40)))
    killed = write_long_run(folder / "killed", num_steps=3, num_resets=1, num_attempts=1)
    lines = (killed / "ledger.jsonl").read_text().splitlines(keepends=True)
    (killed / "ledger.jsonl").write_text("".join(lines[:-1]))  # it could not say that it ended
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rollout/rew')
    other = write_long_run(folder / "other", num_steps=60, num_resets=1, num_attempts=2)
    facts = json.loads((other / "run.json").read_text())
    facts["run"]["seed"] = 2
    (other / "run.json").write_text(json.dumps(facts))
    compared, many = [resumed, other], [resumed, other] * 4
    return {
        "long": [long],
        "short": [short],
        "killed": [killed],
        "resumed": [resumed],
        "compared": compared,
        "many": many,
    }


@pytest.mark.parametrize("width", [1400, 420])
@pytest.mark.parametrize("which", ["long", "short", "killed", "resumed", "compared", "many"])
def test_a_page_is_drawn_without_a_complaint_or_a_request(
    runs: dict[str, list[Path]], which: str, width: int, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    write_page(path, [read_run(directory) for directory in runs[which]])
    opened = open_page(path, width, READY, CHARTS, OVERHANG)
    assert opened.values[READY] == "yes"
    assert opened.values[CHARTS] >= 25
    assert opened.values[OVERHANG] <= 0  # nothing to scroll to at the side
    assert opened.complaints == [] and opened.requests == []
    assert path.stat().st_size < MAX_BYTES
    assert 0 < opened.computing_seconds < MAX_SECONDS


def drawn(run: Path, page: Path, width: int, *expressions: str) -> dict[str, Any]:
    """What the expressions give, one after the other, on the page of a run, which neither complains nor asks."""
    write_page(page, [read_run(run)])
    opened = open_page(page, width, *expressions)
    assert opened.complaints == [] and opened.requests == []
    return opened.values


def chosen(where: str, value: str, seen: str) -> str:
    """The expression that chooses an entry of a list and gives what is seen then."""
    return (
        f"(() => {{ const list = document.querySelector('{where} select'); list.value = '{value}'; list.onchange();"
        f" return document{seen}; }})()"
    )


def test_the_controls_change_what_is_drawn(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    axis = chosen("#controls", "hours", ".querySelector('.u-legend .u-label').textContent")
    curves = ".querySelectorAll('figure .u-legend')[0].querySelectorAll('.u-series').length"
    domain = chosen("figure", "math", curves)
    swapped = (
        "(() => { for (const box of document.querySelectorAll('#controls input[type=checkbox]')) box.click();"
        " const smooth = document.querySelector('#controls input[type=range]'); smooth.value = 20; smooth.oninput();"
        " document.querySelector('#controls button').click(); return document.querySelectorAll('.uplot').length; })()"
    )
    values = drawn(runs["resumed"][0], tmp_path / "page.html", 1400, CHARTS, axis, domain, swapped)
    assert values[axis] == "hours of training"
    assert values[domain] == 2  # the axis and one curve
    assert values[swapped] == values[CHARTS]


def test_samples_of_validations_are_shown_apart(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    newest, validation = (
        chosen("#samples", value, ".querySelector('#samples .soft').textContent") for value in ("newest", "validation")
    )
    values = drawn(runs["short"][0], tmp_path / "page.html", 420, newest, validation)
    assert (values[newest], values[validation]) == ("30 of 40", "10 of 40")


def test_a_complaint_and_a_request_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    text = "<html data-ready=yes><script>console.error('no'); nowhere()</script><img src='http://localhost:9/x.png'>"
    path.write_text(text)
    opened = open_page(path, 420, "new Promise(done => setTimeout(done, 300))")
    assert any("nowhere is not defined" in one for one in opened.complaints)
    assert any("no" in one for one in opened.complaints)
    assert opened.requests == ["http://localhost:9/x.png"]
