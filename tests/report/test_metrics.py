"""Metrics against counts made by hand."""

import dataclasses
import math
import re

import pytest
import torch

from megatron_rl.config.records import CosineLength
from megatron_rl.report.measures import (
    actor_metrics,
    dynamic_sampling_metrics,
    rollout_metrics,
    step_metrics,
    throughput_metrics,
    validation_metrics,
    verifier_metrics,
)
from megatron_rl.report.metrics import METRICS, checked
from megatron_rl.report.progress import facts_of
from megatron_rl.types import Collected, Scores, State
from recipes.prorl_v2 import RECIPE
from tests.report.records import POLICY, collected, groups, update


def test_names_are_phase_slash_name_and_every_metric_says_what_it_means() -> None:
    for name, metric in METRICS.items():
        assert re.fullmatch(r"[a-z_]+/[a-z0-9_]+", name), name
        assert metric.meaning and metric.unit, name
        if name.startswith("time/"):
            assert name.endswith("_seconds")


@pytest.mark.parametrize("name", ["rollout/reward", "rollout/reward_mean/math/algebra", "actor/loss/math", "loss"])
def test_an_undeclared_name_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(f"'{name}'")):
        checked({name: 1.0})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_an_error_that_names_it(value: float) -> None:
    with pytest.raises(RuntimeError, match="actor/loss"):
        checked({"actor/loss": value})


def test_rollout_metrics_count_judged_samples_of_all_groups_tried() -> None:
    tried = groups(
        rewards=[[1.0, 0.0], [1.0, 1.0], [0.25, 0.0]],
        judged=[[True, True], [True, True], [True, False]],
        domains=["math", "math", "logic"],
        lengths=[[2, 4], [6, 8], [10, 12]],
        truncated=[[False, False], [False, False], [False, True]],
    )
    found = rollout_metrics(tried, RECIPE, 0)
    assert found["rollout/reward_mean"] == pytest.approx((1 + 0 + 1 + 1 + 0.25) / 5)
    assert found["rollout/reward_mean/math"] == pytest.approx(3 / 4)
    assert found["rollout/reward_mean/logic"] == pytest.approx(0.25)
    assert found["rollout/response_tokens_mean"] == 7
    assert found["rollout/response_tokens_max"] == 12
    assert found["rollout/truncated_fraction"] == pytest.approx(1 / 6)
    assert found["rollout/unjudged_fraction"] == pytest.approx(1 / 6)
    assert found["rollout/response_tokens_median"] == 6
    assert found["rollout/response_tokens_p90"] == 12
    assert found["rollout/response_tokens_median/math"] == 4
    assert found["rollout/response_tokens_max/math"] == 8
    assert found["rollout/right_tokens_median"] == 6  # of 2, 6 and 8
    assert found["rollout/wrong_tokens_median"] == 4  # of 4 and 10; the one of 12 was not judged
    assert "rollout/right_tokens_median/logic" not in found
    assert found["rollout/truncated_fraction/logic"] == 0.5


def test_the_shaped_reward_is_the_raw_one_less_what_length_costs() -> None:
    length = CosineLength(eta_max=0.0, eta_min=-1.0, weight=0.5, steps_on=1, steps_off=1, starts_on=True)
    algorithm = dataclasses.replace(RECIPE.algorithm, length=length)
    sampling = dataclasses.replace(RECIPE.sampling, max_response_tokens=8)
    recipe = dataclasses.replace(RECIPE, algorithm=algorithm, sampling=sampling)
    tried = groups(rewards=[[1.0, 0.0]], domains=["math"], lengths=[[4, 8]])
    assert rollout_metrics(tried, recipe, 0)["rollout/reward_shaped_mean"] == pytest.approx((0.75 - 0.5) / 2)
    assert rollout_metrics(tried, recipe, 1)["rollout/reward_shaped_mean"] == pytest.approx(0.5)


def test_a_domain_that_could_not_be_judged_has_no_reward_instead_of_zero() -> None:
    found = rollout_metrics(groups(rewards=[[0.0, 0.0]], judged=[[False, False]], domains=["code"]), RECIPE, 0)
    assert "rollout/reward_mean/code" not in found
    assert found["rollout/unjudged_fraction"] == 1


def test_the_three_published_filter_rules_are_told_apart() -> None:
    tried = groups(
        rewards=[[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.5, 0.25]],
        domains=["logic"] * 5,
    )
    found = dynamic_sampling_metrics(dataclasses.replace(collected(), tried=tried, groups=tried.take([2, 4]), rounds=2))
    assert found["dynamic_sampling/keep_rate"] == pytest.approx(2 / 5)  # the spread: groups 2 and 4
    assert found["dynamic_sampling/keep_rate_by_mean"] == pytest.approx(3 / 5)  # 2, 3 and 4
    assert found["dynamic_sampling/keep_rate_by_correct"] == pytest.approx(1 / 5)  # 2
    assert found["dynamic_sampling/all_right_fraction"] == pytest.approx(1 / 5)  # 0
    assert found["dynamic_sampling/all_wrong_fraction"] == pytest.approx(1 / 5)  # 1
    assert found["dynamic_sampling/keep_rate/logic"] == pytest.approx(2 / 5)
    assert found["dynamic_sampling/tried_count/logic"] == 5
    assert found["dynamic_sampling/tried_count"] == 5
    assert found["dynamic_sampling/trained_count"] == 2
    assert found["dynamic_sampling/rounds_count"] == 2


def test_actor_metrics_are_token_means_over_updates_of_unequal_size() -> None:
    found = actor_metrics([update(num_tokens=100, loss=1.0, norm=3.0), update(num_tokens=300, loss=2.0, norm=1.0)])
    assert found["actor/loss"] == pytest.approx((100 * 1.0 + 300 * 2.0) / 400)
    assert found["actor/gradient_norm"] == 2.0
    assert found["actor/gradient_norm_max"] == 3.0


def test_validation_metrics_count_every_domain_the_same() -> None:
    scores = Scores(step=4, accuracy={"math": 0.5, "logic": 1.0})
    assert validation_metrics(scores) == {
        "validation/accuracy": 0.75,
        "validation/accuracy/math": 0.5,
        "validation/accuracy/logic": 1.0,
        "validation/unjudged_fraction": 0.0,
    }


def test_a_validation_that_lacks_a_domain_has_no_accuracy_of_the_whole() -> None:
    scores = Scores(step=4, accuracy={"math": 0.5}, unjudged={"math": 0.1, "logic": 0.7})
    assert validation_metrics(scores) == {
        "validation/accuracy/math": 0.5,
        "validation/unjudged_fraction": pytest.approx(0.4),
        "validation/unjudged_fraction/math": 0.1,
        "validation/unjudged_fraction/logic": 0.7,
    }


def test_verdicts_that_took_the_whole_time_limit_are_counted_by_domain() -> None:
    tried = groups(rewards=[[1.0, 0.0], [0.0, 0.0]], judged=[[True, True], [True, False]], domains=["math", "logic"])
    counts = {limit: verifier_metrics(tried, limit) for limit in (0.5, 0.6)}  # each took 0.5 s
    assert [counts[0.5][f"verifier/overtime_count{of}"] for of in ("", "/math", "/logic")] == [3, 2, 1]
    assert [counts[0.6][f"verifier/overtime_count{of}"] for of in ("", "/math", "/logic")] == [0, 0, 0]


def test_step_metrics_hold_every_declared_metric_of_a_step() -> None:
    phases = [name[5:-8] for name in METRICS if name.startswith("time/") and name[5:-8] not in ("step", "other")]
    found = step_metrics(
        recipe=RECIPE,
        state=dataclasses.replace(State.fresh(), step=501, samples_seen=40, tokens_seen=400).with_reset("period"),
        collected=collected(),
        policy=POLICY,
        updates=[dataclasses.replace(update(), loss_scale=2.0**10, num_overflows=1)] * 2,
        phase_seconds=dict.fromkeys(phases, 0.5),
        step_seconds=10.0,
        verifier_timeout_seconds=5.0,
        num_devices=2,
        memory={"host": 3, "device": 4},
    )
    assert {name for name in METRICS if not name.startswith("validation/")} <= found.keys()
    assert all(type(value) is float for value in found.values())
    assert found["length_term/is_on"] == 1  # the step that led to 501 was step 500, the first of the shaped ones
    assert found["reference/reset"] == 1
    assert found["run/samples_count"] == 40
    assert sum(found[f"time/{name}_seconds"] for name in [*phases, "other"]) == pytest.approx(10.0)
    samples = collected().groups.rewards.numel()
    assert found["throughput/samples_per_second"] == pytest.approx(samples / (10.0 - 3 * 0.5))
    assert found["throughput/updated_samples_per_second"] == pytest.approx(samples / 0.5)
    assert found["throughput/generated_samples_per_second"] == pytest.approx(collected().tried.rewards.numel() / 1.0)
    assert (found["rollout/idle_tail_seconds"], found["rollout/idle_tail_seconds_max"]) == (1.5, 3.0)
    assert found["throughput/prefix_hit_fraction"] == 0.5
    assert found["throughput/updated_tokens_per_second_per_device"] == pytest.approx(2 * 20 / 0.5 / 2)
    assert found["memory/device_bytes"] == 4
    assert (found["actor/loss_scale"], found["actor/overflows_count"]) == (1024, 2)


def test_what_lay_on_the_disk_was_not_generated_and_what_was_not_judged_is_not_trained_on() -> None:
    tried = groups(rewards=[[1.0, 0.0]], judged=[[True, False]], domains=["math"], lengths=[[2, 4]])
    part = Collected(groups=tried, tried=tried, rounds=1, keep_rate=1.0, stored_samples=1, stored_tokens=4)
    found = throughput_metrics(part, [update()], {"generate": 2.0, "update": 4.0}, 10.0, 1)
    assert found["throughput/generated_tokens_per_second"] == found["throughput/generated_samples_per_second"] * 2 == 1
    assert found["throughput/updated_samples_per_second"] == 1 / 4 and found["throughput/samples_per_second"] == 1 / 10
    whole = dataclasses.replace(part, stored_samples=2, stored_tokens=6)
    found = throughput_metrics(whole, [update()], {"generate": 0.001, "update": 4.0}, 10.0, 1)
    assert not [name for name in found if "generated" in name]


def test_a_step_that_found_no_group_leaves_no_kl_behind() -> None:
    state = State.fresh().after(collected(), [update()])
    assert state.kl_history == (0.001,)
    assert state.after(collected(), []).kl_history == (0.001,)


def test_a_step_that_found_no_group_still_has_its_metrics() -> None:
    empty = dataclasses.replace(collected(), groups=collected().tried.take([]))
    found = step_metrics(
        recipe=RECIPE,
        state=dataclasses.replace(State.fresh(), step=1),
        collected=empty,
        policy=POLICY,
        updates=[],
        phase_seconds={},
        step_seconds=1.0,
        verifier_timeout_seconds=5.0,
        num_devices=2,
        memory={},
    )
    assert found["dynamic_sampling/trained_count"] == 0
    assert "actor/loss" not in found
    assert torch.tensor(list(found.values())).isfinite().all()


def test_a_step_without_an_update_has_no_entropy_and_is_counted() -> None:
    state = dataclasses.replace(State.fresh(), step=2, idle_steps=2, idle_streak=2)
    found = step_metrics(
        recipe=RECIPE,
        state=state,
        collected=collected(),
        policy=dataclasses.replace(POLICY, entropy_nats=0.0, mismatch_mean_nats=0.0),
        updates=[],
        phase_seconds={},
        step_seconds=1.0,
        verifier_timeout_seconds=5.0,
        num_devices=2,
        memory={},
    )
    assert found["run/idle_steps_count"] == 2
    assert not [name for name in found if name.startswith(("actor/", "mismatch/"))]
    assert "no update" in facts_of(found) and not [fact for fact in facts_of(found) if "entropy" in fact]
