"""Every loss, mean and shaping that a recipe may choose, on the real engines: two or three steps each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_rl.commands.choose import find_recipe
from tests.test_end_to_end import finished, steps
from tests.test_recipes_run import decisions, saved

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SHORT = {
    "num_steps": 2,
    "sampling.prompts_per_step": 4,
    "sampling.max_response_tokens": 12,
    "scale.caps.samples_per_prompt": 8,
    "algorithm.updates_per_step": 2,
    "run.validate_every_steps": 100,
    "run.max_validation_prompts": 8,
}
NO_RESETS = {"algorithm.reference_reset": "none"}
ON_AT_ONCE = {"algorithm.length.starts_on": "true"}
# Two options a run, so that all of them take a minute.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gspo_two_cosines": (
        "prorl_v2_two_cosines",
        NO_RESETS
        | ON_AT_ONCE
        | {
            "algorithm.policy_loss": "gspo",
            "algorithm.loss_aggregation": "sequence_mean",
            "algorithm.clip_low": 3e-4,
            "algorithm.clip_high": 4e-4,
        },
    ),
    "cispo_prompt_mean_signed_rewards": (
        "prorl_v2_signed_rewards",
        NO_RESETS
        | {"algorithm.length": "none", "algorithm.policy_loss": "cispo", "algorithm.loss_aggregation": "prompt_mean"},
    ),
    "dr_grpo_of_justrl": (
        "justrl",
        {
            "algorithm.advantage": "group_mean",
            "algorithm.loss_aggregation": "constant_length",
            "algorithm.loss_divisor_tokens": 12,
        },
    ),
    "olmo3_rl_zero": ("olmo3_rl_zero", {}),
    "fp16": ("prorl_v2_reference_free", {"scale.precision": "fp16"}),
}
WARMER = """
from dataclasses import replace

from megatron_rl.config.records import Stage
from recipes.variants.prorl_v2_reference_free import RECIPE as BASE

RECIPE = replace(BASE, name="warmer", stages=(Stage(from_step=20, why="as Polaris has it", temperature=1.4),))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("options")
    (folder / "warmer.py").write_text(WARMER)
    cases = CASES | {"warmer": (str(folder / "warmer.py"), {})}
    return {
        name: finished(folder / name, recipe=recipe, **SHORT, **changes).directory
        for name, (recipe, changes) in cases.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_it_trains_by_what_was_asked_for(found: dict[str, Path], name: str) -> None:
    rows = steps(found[name])
    assert len(rows) == 2 and all(row["actor/gradient_norm"] > 0 for row in rows)
    run = json.loads((found[name] / "run.json").read_text())["run"]
    for setting, value in CASES[name][1].items():
        place, _, field = setting.partition(".")
        held = run["scale"] if place == "scale" else run["recipe"][place]
        if "." not in field:
            assert held[field] == (None if value == "none" else value)


def test_gspo_holds_whole_responses_and_two_cosines_pay_wrong_answers_less(found: dict[str, Path]) -> None:
    rows = steps(found["gspo_two_cosines"])
    assert decisions(found["gspo_two_cosines"])[1][0].startswith("length term on: ")
    assert all(row["length_term/is_on"] == 1 for row in rows)
    assert rows[0]["actor/clip_low_fraction"] + rows[0]["actor/clip_high_fraction"] > 0
    for row in rows:
        paid, cut = row["rollout/reward_shaped_mean"] - row["rollout/reward_mean"], row["rollout/truncated_fraction"]
        assert -5 <= paid <= (1 - cut) - 5 * cut and paid != 0  # 1 to 1/2 for right, -5 to 0 for wrong, -5 beyond


def test_signed_rewards_are_paid(found: dict[str, Path]) -> None:
    for row in steps(found["cispo_prompt_mean_signed_rewards"]):
        raw, paid = row["rollout/reward_mean"], row["rollout/reward_shaped_mean"]
        # Between all wrong ones answered and none: -1 or -1/2 each.
        assert raw - (1 - raw) - 1e-9 <= paid <= raw - (1 - raw) / 2 + 1e-9


def test_both_engines_compute_in_fp16_and_round_finer_than_bf16_would(found: dict[str, Path]) -> None:
    """bf16 rounds to 2^-9 of a number, which alone is 1e-3 nats at log-probabilities of a few nats: fp16 to 2^-12."""
    for row in steps(found["fp16"]):
        assert 1e-6 < row["mismatch/mean_nats"] < 2e-3  # in fp32 below 1e-6
        assert row["actor/loss_scale"] >= 1 and row["actor/overflows_count"] >= 0
    weights = [weight for weight in saved(found["fp16"], 2)["weights"] if weight.is_floating_point()]
    assert {weight.dtype for weight in weights} == {torch.float16}


@pytest.mark.parametrize("name", ["dr_grpo_of_justrl", "olmo3_rl_zero", "warmer"])
def test_without_a_kl_no_reference_is_held(found: dict[str, Path], name: str) -> None:
    assert all(row["actor/kl_reference_nats"] == 0 for row in steps(found[name]))
    assert saved(found[name], 2)["reference"] is None


def test_olmo3_s_importance_sampling_and_refill_are_there(found: dict[str, Path]) -> None:
    for row in steps(found["olmo3_rl_zero"]):
        assert row["mismatch/corrected_fraction"] == 0  # on one machine's fp32 the engines agree
        assert row["dynamic_sampling/trained_count"] == 4


def test_a_stage_s_temperature_reaches_engine_and_actor(found: dict[str, Path]) -> None:
    """At another temperature than the engine's, the actor would be some tenths of a nat off."""
    rows = steps(found["warmer"])
    assert decisions(found["warmer"])[2][0] == "stage from step 1: as Polaris has it"
    assert [row["mismatch/mean_nats"] < 1e-4 for row in rows] == [True, True]
    assert rows[1]["actor/entropy_nats"] > rows[0]["actor/entropy_nats"]
    assert find_recipe("prorl_v2_reference_free").sampling.temperature == 1.0
