"""A run of one's own reward by the command line: it trains, and its files say what it is a variant of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_end_to_end import finished, steps

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DOMAIN = "my_rewards.py:Sum"
SETTINGS = {
    "num_steps": 2,
    "domains": DOMAIN,
    "run.data_folder": Path(__file__).parents[1] / "demo" / "own_reward",
    "run.validate_every_steps": 2,
    "scale.devices_per_node": 1,
}


def test_a_reward_from_a_file_trains_and_the_run_is_a_variant(tmp_path: Path) -> None:
    directory = finished(tmp_path / "own", **SETTINGS).directory
    rows = steps(directory)
    assert sum(row[f"verifier/judged_count/{DOMAIN}"] for row in rows) > 0
    assert sum(row[f"rollout/reward_mean/{DOMAIN}"] for row in rows) > 0
    assert all(row["actor/gradient_norm"] > 0 for row in rows)
    facts = json.loads((directory / "run.json").read_text())
    assert facts["variant_of"] and facts["release"].split()[0].endswith("_variant")
    assert f"domains: math, code, stem, logic, instruct -> {DOMAIN}" in facts["differences"]
    assert len(facts["data"]["rewards"][DOMAIN]) == 64
    assert "a variant of" in (directory / "report.html").read_text()
    lineage = json.loads((directory / "model" / "megatron_rl.json").read_text())
    assert lineage["release"] == facts["release"] and lineage["data_digest"] == facts["data"]["digest"]
