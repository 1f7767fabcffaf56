"""What a run's state counts and keeps from step to step."""

from __future__ import annotations

import dataclasses

from megatron_rl.types import Collected, Scores, State
from tests.report.records import groups, update


def collected(keep_rate: float = 0.5) -> Collected:
    tried = groups(rewards=[[1.0, 0.0], [1.0, 1.0], [0.0, 0.5]], domains=["math", "math", "logic"])
    return Collected(groups=tried.take([0]), tried=tried, rounds=1, keep_rate=keep_rate)


def scores(step: int, accuracy: float) -> Scores:
    return Scores(step=step, accuracy={"math": accuracy})


def test_a_step_counts_all_samples_generated_and_the_tokens_trained_on() -> None:
    state = State.fresh().after(collected(), [update(num_tokens=20), update(num_tokens=10)])
    assert (state.step, state.samples_seen, state.tokens_seen, state.keep_rate) == (1, 6, 30, 0.5)
    assert state.after(collected(0.25), [update()]).keep_rate == 0.25


def test_a_reset_begins_the_history_of_the_kl_anew() -> None:
    state = State.fresh().after(collected(), [update()]).after(collected(), [update()])
    assert len(state.kl_history) == 2
    reset = state.with_reset("period")
    assert (reset.kl_history, reset.last_reset) == ((), 2)
    assert reset.after(collected(), [update()]).with_reset("period").last_reset == 3


def test_validating_a_step_again_replaces_what_was_known_of_it() -> None:
    state = State.fresh().with_scores(scores(0, 0.1)).with_scores(scores(10, 0.3)).with_scores(scores(10, 0.2))
    assert [(one.step, one.mean) for one in state.scores] == [(0, 0.1), (10, 0.2)]


def test_a_policy_is_the_best_where_none_before_it_was_as_good() -> None:
    state = State.fresh().with_scores(scores(0, 0.2))
    assert state.newest_is_best
    assert not state.with_scores(scores(10, 0.2)).newest_is_best
    assert state.with_scores(scores(10, 0.3)).newest_is_best


def test_the_digest_of_a_policy_follows_all_that_the_optimizer_did() -> None:
    one, same, other = (
        State.fresh().after(collected(), [dataclasses.replace(update(), loss=loss)]).policy_digest
        for loss in (0.1, 0.1, 0.2)
    )
    assert one == same != other
