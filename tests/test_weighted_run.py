"""A run with weights of domains and difficulty, by the command line: its checkpoint and metrics have what it met."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_end_to_end import finished, steps

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SETTINGS = {
    "num_steps": 2,
    "domains": "instruct=3,stem=1",
    "sampling.difficulty.memory": 0.5,
    "sampling.difficulty.easy_rate": 0.9,
    "sampling.difficulty.min_probability": 0.25,
    "run.data_folder": Path(__file__).parent / "data" / "five_domains",
    "run.validate_every_steps": 2,
    "scale.devices_per_node": 1,
}


def test_a_run_meets_domains_by_weight_and_keeps_the_pass_rates_of_what_it_met(tmp_path: Path) -> None:
    directory = finished(tmp_path / "weighted", **SETTINGS).directory
    counts = {
        domain: sum(row.get(f"verifier/judged_count/{domain}", 0.0) for row in steps(directory))
        for domain in ("instruct", "stem", "math")
    }
    assert counts["instruct"] > counts["stem"] > 0 == counts["math"]
    (checkpoint,) = (directory / "checkpoints").iterdir()
    rates = json.loads((checkpoint / "pass_rates.json").read_text())
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    assert 0 < len(rates) <= manifest["prompt_position"] and all(0 <= rate <= 1 for rate in rates.values())
    assert set(manifest["pass_rates"]) == {"bytes", "sha256"}
    facts = json.loads((directory / "run.json").read_text())
    assert any(line.endswith("-> instruct=3, stem=1") for line in facts["differences"])
