"""Rounds sized by the model: what is expected against what chance does, and when another round is worth avoiding."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from megatron_rl.commands.choose import build_run
from megatron_rl.estimate.refill import expected_seconds, prompts_for_round, shortage, sizes
from megatron_rl.estimate.step import OURS, generation_seconds, keep_rate_of, prompts_to_try, seconds_of_round


def played(
    wanted: int, keep_rate: float, seconds: Callable[[int], float], tried: Callable[[int], int], seed: int
) -> tuple[float, int]:
    """Seconds and rounds of a step whose groups are kept by chance, at a rate that the last step told with an error."""
    draw = random.Random(seed)
    spread = (keep_rate * (1 - keep_rate) * keep_rate / wanted) ** 0.5
    true_rate = min(1.0, max(0.01, draw.gauss(keep_rate, spread)))
    missing, spent, rounds = wanted, 0.0, 0
    while missing > 0:
        num_prompts = tried(missing)
        spent, rounds = spent + seconds(num_prompts), rounds + 1
        missing -= sum(draw.random() < true_rate for _ in range(num_prompts))
    return spent, rounds


@pytest.mark.parametrize(("rate", "overhead"), [(0.41, 100.0), (0.62, 100.0), (0.41, 10.0), (0.8, 10.0)])
def test_the_chosen_rounds_take_less_than_others_and_about_what_is_expected(rate: float, overhead: float) -> None:
    def seconds(num_prompts: int) -> float:
        return overhead + 0.5 * num_prompts

    def mean(tried: Callable[[int], int]) -> float:
        return sum(played(128, rate, seconds, tried, seed)[0] for seed in range(60)) / 60

    chosen = mean(lambda missing: prompts_for_round(missing, rate, seconds))
    expected = expected_seconds(128, rate, seconds, lambda missing: prompts_for_round(missing, rate, seconds))
    assert chosen == pytest.approx(expected, rel=0.06)
    for share in (0.8, 1.0, 1.3, 1.8):
        assert chosen <= 1.03 * mean(lambda missing, share=share: math.ceil(share * missing / rate)), share


def test_a_second_round_of_16_samples_is_rare_and_one_of_512_is_not_bought_dearly() -> None:
    narrow = build_run("brorl_control_n16", "h100x64", [], None, needs_files=False)
    wide = build_run("brorl", "h100x8", ["sampling.prompts_per_step=16"], None, needs_files=False)
    found = {}
    for run in (narrow, wide):
        recipe = run.at_step(0)
        wanted, rate = recipe.sampling.prompts_per_step, keep_rate_of(recipe, OURS)
        tried = prompts_to_try(wanted, rate, 5600.0, recipe, run.scale)
        found[run.recipe.name] = shortage(tried, wanted, rate)[0], tried * rate / wanted
        ours, before = (generation_seconds(recipe, run.scale, OURS, largest_round=most) for most in (None, 2))
        assert ours <= before
    assert found["brorl_control_n16"][0] < 0.03
    assert found["brorl"][1] < found["brorl_control_n16"][1] < 1.4


def test_nothing_is_left_to_chance_where_all_groups_are_kept() -> None:
    for missing in range(1, 40):
        assert prompts_for_round(missing, 1.0, lambda num: 1.0) == missing


def test_a_round_finds_what_is_missing_and_stays_within_reason() -> None:
    for missing in (1, 2, 7, 64, 512):
        for kept in range(21):
            rate = max(0.25, kept / 20)
            for overhead in (0.0, 1e6):
                tried = prompts_for_round(missing, kept / 20, lambda num, fixed=overhead: fixed + num)
                assert missing / rate <= tried + 1e-9
                assert tried <= sizes(missing, rate)[-1] <= 4 * missing + 60 + 16 * missing**0.5


@pytest.mark.parametrize(("tried", "missing", "rate"), [(300, 128, 0.41), (40, 16, 0.5), (220, 128, 0.62)])
def test_a_shortage_is_as_likely_and_as_large_as_in_draws(tried: int, missing: int, rate: float) -> None:
    draw = random.Random(tried)
    short = []
    for _ in range(20_000):
        kept = round(draw.gauss(tried * rate, (2 * tried * rate * (1 - rate)) ** 0.5))
        short += [missing - kept] if kept < missing else []
    chance, rest = shortage(tried, missing, rate)
    assert chance == pytest.approx(len(short) / 20_000, abs=0.015)
    assert rest == pytest.approx(sum(short) / len(short), abs=1.0)


@pytest.mark.parametrize("missing", [1, 3, 6, 12])
def test_any_layout_of_a_cpu_tries_the_same_prompts(missing: int) -> None:
    runs = [build_run("prorl_v2", scale, [], None, needs_files=False) for scale in ("cpu", "cpu_tp2_pp2")]
    one, other = (prompts_to_try(missing, 0.5, 9.0, run.at_step(0), run.scale) for run in runs)
    assert one == other >= 2 * missing


def test_the_same_numbers_give_the_same_round_and_lengths_count_to_two_digits() -> None:
    run = build_run("prorl_v2", "h100x8", [], None, needs_files=False)
    recipe = run.at_step(0)
    assert prompts_to_try(100, 0.5, 5012.0, recipe, run.scale) == prompts_to_try(100, 0.5, 5049.0, recipe, run.scale)
    seconds = seconds_of_round(recipe, run.scale, OURS)
    assert seconds(10) == seconds(10) < seconds(2000)
