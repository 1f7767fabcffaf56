"""The pages of metrics and settings are made from what declares them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.report.metrics import METRICS

FOLDER = Path(__file__).parents[2] / "docs"


def load() -> Any:
    specification = importlib.util.spec_from_file_location("make_pages", FOLDER / "make.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


make = load()


@pytest.mark.parametrize("name", ["metrics.md", "settings.md"])
def test_the_page_is_the_one_that_the_declarations_make(name: str) -> None:
    found = (FOLDER / name).read_text(encoding="utf-8")
    assert found == make.pages()[name], "run `python docs/make.py`, and commit what it writes"


def test_every_metric_stands_on_the_page_once() -> None:
    page = make.metrics_page()
    assert all(page.count(f"| `{name}` |") == 1 for name in METRICS)


def test_a_setting_comes_with_type_default_and_meaning() -> None:
    page = make.settings_page()
    assert "| `run.samples_per_domain` | whole number | `2` | So many of each step go to samples.jsonl" in page
    assert "| `run.seed` | whole number | `1` |" in page
    assert "| `optimizer.learning_rate` | number |" in page
    assert "| `algorithm.clip_low` | number | The ratio is held above 1 - this |" in page
    assert "`name`" not in page and "`scale.name`" not in page  # not for a command line


def test_every_setting_has_a_meaning() -> None:
    rows = [line for line in make.settings_page().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert [row for row in rows if row.endswith("|  |")] == []


def test_a_meaning_stands_beside_a_field_or_above_it_or_is_that_of_its_record() -> None:
    page = make.settings_page()
    assert "| What moves to host memory while the engine generates; each includes those before it |" in page
    assert "| `algorithm.kl` | its fields, below or none | Penalty that keeps the policy near the reference |" in page
