"""A run that has nothing to learn from ends, and says so; it is no success."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from megatron_rl.config.run import Run
from megatron_rl.train import check_learning
from megatron_rl.types import State
from recipes.prorl_v2 import RECIPE
from recipes.scales import H100X32
from tests.report.records import collected, update


def run_of(num_steps: int = 100, limit: int = 3) -> Run:
    recipe = dataclasses.replace(RECIPE, num_steps=num_steps)
    place = Path("x")
    return Run(
        recipe=recipe, published=RECIPE, scale=H100X32, directory=place, model_folder=place, data_folder=place,
        max_steps_without_update=limit,
    )  # fmt: skip


def test_steps_without_an_update_are_counted_in_all_and_in_a_row() -> None:
    state, seen = State.fresh(), []
    for updates in ([], [], [update()], []):
        state = state.after(collected(), updates)
        seen.append((state.idle_steps, state.idle_streak))
    assert seen == [(1, 1), (2, 2), (2, 0), (3, 1)]


def test_an_update_without_a_judged_token_is_none() -> None:
    assert State.fresh().after(collected(), [update(num_tokens=0)]).idle_streak == 1


@pytest.mark.parametrize(("num_steps", "limit", "streak", "ends"), [
    (100, 3, 2, False), (100, 3, 3, True), (2, 10, 1, False), (2, 10, 2, True), (100, 3, 0, False),
])  # fmt: skip
def test_so_many_idle_steps_in_a_row_or_a_whole_short_run_end_it(
    num_steps: int, limit: int, streak: int, ends: bool
) -> None:
    state = dataclasses.replace(State.fresh(), step=7, idle_steps=streak, idle_streak=streak)
    if not ends:
        check_learning(run_of(num_steps, limit), state)
        return
    with pytest.raises(ValueError, match=f"step 7: no update in {streak} steps in a row.*run.max_steps_without_update"):
        check_learning(run_of(num_steps, limit), state)
