"""When the reference policy is replaced, and why: pure functions of a run's record, so that a resume replays them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from megatron_rl.config.records import KlSpike, Recipe, Stall
from megatron_rl.types import Scores, State


def reset_reason(state: State, recipe: Recipe) -> str | None:
    """Why the reference is reset after the steps that led to `state`, for the log; None where it is not.

    A stage's own reset comes first. The others keep `min_steps_between` from the last reset: the period, then a spike
    of the KL, then validation.

    Source: ProRL v2 blog, 2025-08-13: every 200 to 500 steps, on a KL spike or when validation stalls; ProRL v1 arXiv
    2505.24864v1, section 2.3.1: when validation degrades or plateaus, and App. E: at the start of Runs 2, 6 and 7.
    Neither says what a spike, a stall or a plateau is.

    >>> from dataclasses import replace
    >>> from megatron_rl.config.records import ReferenceReset, Stage
    >>> from megatron_rl.types import Reset
    >>> from recipes.prorl_v2 import RECIPE
    >>> reset = ReferenceReset(period_steps=3, kl_spike=None, stall=None, min_steps_between=1, target="current",
    ...                        clears_optimizer=False)
    >>> recipe = replace(RECIPE, algorithm=replace(RECIPE.algorithm, reference_reset=reset))
    >>> def reason(step, last_reset, *stages):
    ...     state = replace(State.fresh(), step=step, reference_resets=(Reset(step=last_reset, reason=""),))
    ...     return reset_reason(state, replace(recipe, stages=stages))
    >>> reason(2, 0), reason(3, 0), reason(5, 3)
    (None, 'period: 3 steps since step 0', None)
    >>> reason(5, 3, Stage(from_step=5, why="Run 2", resets_reference=True))
    'stage: Run 2'
    """
    reset, stage = recipe.algorithm.reference_reset, recipe.stage_at(state.step)
    if reset is None:
        return None
    if stage is not None and stage.resets_reference and stage.from_step == state.step:
        return f"stage: {stage.why}"
    passed = state.step - state.last_reset
    if passed < reset.min_steps_between:
        return None
    if reset.period_steps is not None and passed >= reset.period_steps:
        return f"period: {passed} steps since step {state.last_reset}"
    if reset.kl_spike is not None and (found := spike(state.kl_history, reset.kl_spike)):
        return found
    return None if reset.stall is None else stall(state.scores, state.last_reset, reset.stall)


def spike(kl_history: Sequence[float], limits: KlSpike) -> str | None:
    """Why the newest KL is a spike: more than `ratio` times the median of the `window_steps` before it.

    There is no median before `min_history_steps`, and none to exceed while it is 0.

    Source: ProRL v2 blog, 2025-08-13, which names KL spikes and no threshold.

    >>> limits = KlSpike(ratio=3.0, window_steps=3, min_history_steps=2)
    >>> spike([0.1, 0.9], limits), spike([0.1, 0.3, 0.9], limits)
    (None, 'KL spike: 0.9 nats is 4.5 times the median of 2 steps, 0.2')
    """
    before = kl_history[:-1][-limits.window_steps :]
    if len(before) < limits.min_history_steps or (usual := median(before)) <= 0:
        return None
    newest = kl_history[-1]
    if newest <= limits.ratio * usual:
        return None
    times = f"{newest:.4g} nats is {newest / usual:.4g} times the median of {len(before)} steps"
    return f"KL spike: {times}, {usual:.4g}"


def stall(scores: Sequence[Scores], since_step: int, limits: Stall) -> str | None:
    """Why validation degraded or stalled, by the mean accuracies of the validations from `since_step` on.

    Degraded: the newest lies `drop` or more below the best before it. Stalled: none of the newest
    `patience_validations` is above the best before them by `min_gain`. A validation that lacks a domain does not count.

    Source: ProRL v1 arXiv 2505.24864v1, section 2.3.1, and ProRL v2 blog, 2025-08-13; neither has a threshold.

    >>> def reason(*accuracies):
    ...     scores = [Scores(step=10 * i, accuracy={"math": value}) for i, value in enumerate(accuracies)]
    ...     return stall(scores, 10, Stall(patience_validations=2, min_gain=0.01, drop=0.1))

    The first is from before step 10, and does not count.

    >>> reason(0.9, 0.5, 0.6), reason(0.9, 0.5, 0.505)
    (None, None)
    >>> reason(0.9, 0.5, 0.505, 0.509)
    'validation stalled: 2 validations without a gain of 0.01 over 0.5000'
    >>> reason(0.9, 0.5, 0.39)
    'validation degraded: 0.3900 is 0.1100 below the best, 0.5000'
    """
    means = [score.mean for score in scores if score.step >= since_step and score.is_complete]
    if len(means) < 2:
        return None
    newest, best = means[-1], max(means[:-1])
    if best - newest >= limits.drop:
        return f"validation degraded: {newest:.4f} is {best - newest:.4f} below the best, {best:.4f}"
    patience = limits.patience_validations
    if len(means) <= patience:
        return None
    best = max(means[:-patience])
    if max(means[-patience:]) - best >= limits.min_gain and max(means[-patience:]) > best:
        return None
    return f"validation stalled: {patience} validations without a gain of {limits.min_gain:g} over {best:.4f}"
