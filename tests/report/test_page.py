"""The page is whole, needs no network, and shows what happened."""

import html.parser
import json
import re
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.report import page
from megatron_rl.report.plots import INK, MAX_POINTS, PLOTS, events_of, svg_of
from tests.report.records import step_row, validation_row

FACTS: dict[str, Any] = {
    "release": "prorl_v2 2.1.0",
    "scale": "cpu",
    "fingerprint": "0123456789abcdef",
    "modified": ["sampling.temperature=<1.2>"],
    "batch": "16 prompts x 16 samples = 256 sequences per step",
    "attempts": [
        {"started": "2026-01-01", "from_step": 0, "python": "3.11", "packages": {"torch": "2"}, "commit": None}
    ],
    "run": {"seed": 1, "recipe": {"num_steps": 20}},
}


def rows(num_steps: int = 20) -> list[dict[str, float]]:
    found = []
    for step in range(num_steps + 1):
        if step:
            found.append(step_row(step, step / num_steps, is_reset=step == 10, is_on=step in (4, 5, 6, 15)))
        if step % 5 == 0:
            found.append(validation_row(step, step / num_steps))
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    page.write_page(folder, rows(), FACTS)
    return folder


def test_the_page_holds_header_and_a_panel_for_everything_measured(written: Path) -> None:
    text = (written / "report.html").read_text()
    for part in ("prorl_v2 2.1.0", "0123456789abcdef", "sampling.temperature=&lt;1.2&gt;", "20 of 20", "0.000 → 1.000"):
        assert part in text, part
    for title in ("Validation accuracy", "Reward", "Response length", "Entropy", "KL to reference", "Dynamic sampling"):
        assert f"<h2>{title}</h2>" in text, title
    assert "<h2>Clipping</h2>" not in text  # nothing was measured, so there is no empty panel


def test_the_page_needs_nothing_from_outside(written: Path) -> None:
    text = (written / "report.html").read_text()
    found: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "link", "img", "iframe"), tag
            found.extend(value or "" for name, value in attributes if name in ("href", "src", "xlink:href"))

    Reader().feed(text)
    assert all(value.startswith("#") or re.fullmatch(r"[a-z.]+", value) for value in found), found
    assert "url(http" not in text and "@import" not in text


def test_the_page_takes_its_colours_from_the_readers_light_or_dark(written: Path) -> None:
    text = (written / "report.html").read_text()
    assert "prefers-color-scheme: dark" in text
    assert "currentColor" in text and INK not in text.partition("</style>")[2]


def test_the_picture_is_a_png_of_two_panels(written: Path) -> None:
    content = (written / "report.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    assert width > 2 * height


def test_nothing_but_the_two_files_is_left(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == ["report.html", "report.png"]


def test_resets_and_length_term_spans_are_read_from_the_journal() -> None:
    events = events_of(rows())
    assert events.resets == (10,)
    assert events.shaped == ((4, 6), (15, 15))


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.title)
def test_every_plot_is_well_formed_and_bounded_on_a_long_run(plot: Any) -> None:
    long = [step_row(step) | dict.fromkeys(plot.curves, 0.25 + 0.1 * (step % 3)) for step in range(1, 10 * MAX_POINTS)]
    text = svg_of(long, plot, events_of(long))
    xml.etree.ElementTree.fromstring(text)
    assert len(text) < 400_000


def test_ids_of_panels_in_one_page_do_not_collide() -> None:
    # A clip path of one panel must not cut the curves of another; ids of groups are referred to by nobody.
    texts = [svg_of(rows(), plot, events_of(rows())) for plot in PLOTS[:4]]
    referred = [set(re.findall(r"url\(#([^)]+)\)", text)) for text in texts]
    assert all(referred)
    assert sum(map(len, referred)) == len(set().union(*referred))


def test_a_page_is_the_same_whenever_it_is_drawn() -> None:
    assert page.page_of(rows(), FACTS) == page.page_of(rows(), FACTS)


@pytest.mark.parametrize(
    "few", [[validation_row(0, 0.5)], [step_row(1)], [validation_row(0, 0.0), step_row(1, 0.0)]], ids=len
)
def test_a_run_that_has_hardly_begun_has_a_page(tmp_path: Path, few: list[dict[str, float]]) -> None:
    page.write_page(tmp_path, few, FACTS)
    assert "<svg" in (tmp_path / "report.html").read_text()


def test_a_run_without_a_step_has_none(tmp_path: Path) -> None:
    page.write_page(tmp_path, [], FACTS)
    assert list(tmp_path.iterdir()) == []


def test_the_resolved_run_in_the_page_is_json(written: Path) -> None:
    text = (written / "report.html").read_text()
    (block,) = re.findall(r"<pre>(.*?)</pre>", text, re.S)
    assert json.loads(html.unescape(block))["seed"] == 1
