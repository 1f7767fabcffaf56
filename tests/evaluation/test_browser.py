"""The page of an evaluation in a real browser: it complains of nothing, asks for nothing, and fits a telephone."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_rl.commands.suites import published_figures
from megatron_rl.evaluation.figures import write
from megatron_rl.evaluation.page import PAGE_NAME
from tests.evaluation.stored import write_evaluation
from tests.report.browser import LOADED, PROGRAM, open_page

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(PROGRAM is None, reason="needs Chromium: apt-get install chromium"),
]

OVERHANG = "document.documentElement.scrollWidth - innerWidth"
PLOTS = "[...document.querySelectorAll('svg')].filter(one => one.getBoundingClientRect().width > 200).length"
SMALLEST = "Math.min(...[...document.querySelectorAll('svg text')].map(one => one.getBoundingClientRect().height))"
PAPER = "[...document.querySelectorAll('th')].filter(one => one.textContent == 'ProRL v1').length"
MAX_BYTES, MAX_SECONDS, MIN_PIXELS = 3_000_000, 2.0, 6.0


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    evaluation = write_evaluation(tmp_path_factory.mktemp("evaluation"))
    write(evaluation, published_figures())
    return evaluation.directory / PAGE_NAME


@pytest.mark.parametrize("width", [1400, 420])
def test_the_page_is_drawn_without_a_complaint_or_a_request(page: Path, width: int) -> None:
    asked = (OVERHANG, PLOTS, SMALLEST, PAPER)
    opened = open_page(page, width, *asked, ready=LOADED)
    assert opened.complaints == [] and opened.requests == []
    assert opened.values[OVERHANG] <= 0  # nothing to scroll to at the side
    assert opened.values[PLOTS] == 4 and opened.values[PAPER] == 1
    assert opened.values[SMALLEST] >= MIN_PIXELS, "the plots' words can be read"
    assert page.stat().st_size < MAX_BYTES
    assert 0 < opened.computing_seconds < MAX_SECONDS
