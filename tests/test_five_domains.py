"""A run over problems of all five domains by the command line: each is judged, counted apart, and trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_rl.rewards.score import VERIFIERS
from tests.test_end_to_end import Row, finished, steps, validations

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

NUM_STEPS = 3
SETTINGS = {
    "num_steps": NUM_STEPS,
    "run.data_folder": Path(__file__).parent / "data" / "five_domains",
    "run.validate_every_steps": NUM_STEPS,
    "scale.devices_per_node": 1,
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("runs") / "five", **SETTINGS).directory


def total(rows: list[Row], name: str) -> float:
    return sum(row.get(name, 0.0) for row in rows)


def test_every_domain_is_judged_and_counted_apart(directory: Path) -> None:
    rows = steps(directory)
    assert [row["step"] for row in rows] == [1, 2, 3]
    judged = {domain: total(rows, f"verifier/judged_count/{domain}") for domain in VERIFIERS}
    assert min(judged.values()) >= 16, f"{judged}: a group of each"
    assert sum(judged.values()) == total(rows, "verifier/judged_count")
    for domain in VERIFIERS:
        for outcome in ("timeout", "crashed", "sandbox_failed"):
            assert total(rows, f"verifier/{outcome}_count/{domain}") == 0
        assert total(rows, f"time/verifier_seconds/{domain}") > 0
        assert 0 <= total(rows, f"rollout/reward_mean/{domain}") <= NUM_STEPS
    seconds = sum(total(rows, f"time/verifier_seconds/{domain}") for domain in VERIFIERS)
    assert seconds == pytest.approx(total(rows, "time/verifier_seconds"))


def test_other_domains_than_the_demos_have_rewards_and_train_the_policy(directory: Path) -> None:
    rows = steps(directory)
    assert total(rows, "rollout/reward_mean/instruct") > 0
    assert total(rows, "rollout/reward_mean/stem") > 0
    assert all(row["dynamic_sampling/trained_count"] > 0 and row["actor/gradient_norm"] > 0 for row in rows)


def test_validation_has_an_accuracy_of_each_domain(directory: Path) -> None:
    for row in validations(directory):
        assert {f"validation/accuracy/{domain}" for domain in VERIFIERS} <= row.keys()
    assert [row["step"] for row in validations(directory)] == [0, NUM_STEPS]
