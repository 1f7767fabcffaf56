"""When the reference is reset, and which reason is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from megatron_rl.algorithms.reference import reset_reason, spike, stall
from megatron_rl.config.records import KlSpike, ReferenceReset, Stage, Stall
from megatron_rl.types import Reset, Scores, State
from recipes.prorl_v2 import RECIPE

PERIODIC = ReferenceReset(
    period_steps=300, kl_spike=None, stall=None, min_steps_between=200, target="current", clears_optimizer=False
)
NO_RULE = dataclasses.replace(PERIODIC, period_steps=None)
SPIKE = KlSpike(ratio=5.0, window_steps=100, min_history_steps=50)
STALL = Stall(patience_validations=3, min_gain=0.01, drop=0.1)


def reason(
    reset: ReferenceReset,
    step: int,
    last_reset: int = 0,
    *,
    stage: Stage | None = None,
    kl_history: Sequence[float] = (),
    scores: Sequence[Scores] = (),
) -> str | None:
    state = dataclasses.replace(
        State.fresh(),
        step=step,
        reference_resets=(Reset(step=last_reset, reason="an older one"),) if last_reset else (),
        kl_history=tuple(kl_history),
        scores=tuple(scores),
    )
    algorithm = dataclasses.replace(RECIPE.algorithm, reference_reset=reset)
    stages = (stage,) if stage is not None else ()
    return reset_reason(state, dataclasses.replace(RECIPE, algorithm=algorithm, stages=stages))


def validations(*accuracies: float, every: int = 10) -> list[Scores]:
    return [Scores(step=every * i, accuracy={"math": value}) for i, value in enumerate(accuracies)]


def resets(reset: ReferenceReset, num_steps: int, kl: Sequence[float]) -> list[int]:
    """The steps after which a run of these KLs resets its reference."""
    found = [0]
    for step in range(1, num_steps + 1):
        if reason(reset, step, found[-1], kl_history=kl[found[-1] : step]):
            found.append(step)
    return found[1:]


def test_a_period_is_counted_from_the_last_reset() -> None:
    assert resets(PERIODIC, 1000, [0.0] * 1000) == [300, 600, 900]
    assert reason(PERIODIC, 599, 300) is None
    assert reason(PERIODIC, 600, 300) == "period: 300 steps since step 300"


def test_without_a_rule_nothing_is_reset() -> None:
    assert reason(NO_RULE, 300) is None


def test_a_steady_drift_is_no_spike() -> None:
    # k2 of a policy that moves by the same amount each step grows with the square of the steps.
    history = [1e-6 * step**2 for step in range(1, 1000)]
    assert [step for step in range(1, 1000) if spike(history[:step], SPIKE)] == []


@pytest.mark.parametrize("level", [1e-5, 0.1])
def test_a_spike_is_relative_to_the_median_before_it(level: float) -> None:
    assert spike([level] * 60 + [4.9 * level], SPIKE) is None
    assert spike([level] * 60 + [5.1 * level], SPIKE) is not None
    assert spike([level] * 49 + [99 * level], SPIKE) is None  # too short a history
    # The window forgets: 100 high steps make a high step usual.
    assert spike([level] * 500 + [10 * level] * 100 + [20 * level], SPIKE) is None


def test_a_reference_that_is_the_policy_gives_no_spike() -> None:
    assert spike([0.0] * 60 + [1e-9], SPIKE) is None


def test_a_spike_waits_until_the_last_reset_is_far_enough() -> None:
    reset = dataclasses.replace(PERIODIC, kl_spike=SPIKE)
    history = [0.1] * 199 + [9.0]
    assert reason(reset, 199, kl_history=history[-199:]) is None
    assert reason(reset, 200, kl_history=history) == "KL spike: 9 nats is 90 times the median of 100 steps, 0.1"
    assert resets(reset, 250, [0.1] * 219 + [9.0] * 31) == [220]


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.5], None),
        ([0.5, 0.5, 0.5], None),  # two without a gain: patience is three
        ([0.5, 0.5, 0.5, 0.5], "validation stalled: 3 validations without a gain of 0.01 over 0.5000"),
        ([0.5, 0.509, 0.5, 0.505], "validation stalled: 3 validations without a gain of 0.01 over 0.5000"),
        ([0.5, 0.52, 0.5, 0.5], None),
        ([0.5, 0.6, 0.51], None),  # 0.09 below the best
        ([0.5, 0.6, 0.49], "validation degraded: 0.4900 is 0.1100 below the best, 0.6000"),
        ([0.5, 0.6, 0.7, 0.8, 0.9], None),
        ([0.5, 0.507, 0.514, 0.521], None),  # slow, but within the patience a gain
    ],
)
def test_validation_decides_by_the_best_before(accuracies: list[float], expected: str | None) -> None:
    assert stall(validations(*accuracies), 0, STALL) == expected


def test_without_any_gain_asked_for_standing_still_is_a_stall() -> None:
    strict = dataclasses.replace(STALL, min_gain=0.0)
    assert stall(validations(0.5, 0.5, 0.5, 0.5), 0, strict) is not None
    assert stall(validations(0.5, 0.5, 0.5, 0.5001), 0, strict) is None


def test_validations_before_the_last_reset_do_not_count() -> None:
    reset = dataclasses.replace(PERIODIC, period_steps=None, stall=STALL, min_steps_between=1)
    scores = validations(0.9, 0.5, 0.5, 0.5, 0.5)
    assert reason(reset, 41, 0, scores=scores) is not None
    assert reason(reset, 41, 11, scores=scores) is None  # three validations since
    assert reason(reset, 41, 10, scores=scores) is not None  # four


def test_domains_count_the_same() -> None:
    scores = [Scores(step=i, accuracy={"math": 0.9 - 0.1 * i, "logic": 0.1 + 0.1 * i}) for i in range(2)]
    assert stall(scores, 0, Stall(patience_validations=9, min_gain=0.0, drop=0.01)) is None


def test_a_stage_resets_once_at_its_start_however_short_ago_the_last_was() -> None:
    stage = Stage(from_step=500, why="Run 6", resets_reference=True)
    assert [step for step in (499, 500, 501) if reason(NO_RULE, step, 498, stage=stage)] == [500]
    assert reason(PERIODIC, 500, 498, stage=stage) == "stage: Run 6"
    assert reason(PERIODIC, 500, 498, stage=dataclasses.replace(stage, resets_reference=False)) is None


def test_the_newest_window_of_kls_is_all_that_a_state_must_keep() -> None:
    reset = dataclasses.replace(PERIODIC, kl_spike=SPIKE, min_steps_between=50)
    kl = [0.1 * (9 if step in (120, 250, 251) else 1) + 1e-4 * step for step in range(1, 600)]
    whole = resets(reset, 599, kl)
    assert whole == [120, 250, 550]
    for step in range(1, 600):
        last = max([0, *(found for found in whole if found < step)])
        newest = kl[last:step][-(SPIKE.window_steps + 1) :]
        assert (reason(reset, step, last, kl_history=newest) is not None) == (step in whole)
