"""Advantages of the four kinds against plain Python loops over the formulas."""

import dataclasses
import math
import random

import pytest
import torch
from torch import Tensor

from megatron_rl.algorithms.advantages import advantages
from recipes.prorl_v2 import RECIPE
from tests.samples import columns_of

Table = list[list[float]]
OVER = ("samples", "tokens")
KINDS = ("group_mean_and_std", "group_mean_then_batch", "leave_one_out", "group_mean")


def computed(
    rewards: Table, judged: list[list[bool]], lengths: list[list[int]], over: str, kind: str = "group_mean_then_batch"
) -> Tensor:
    algorithm = dataclasses.replace(RECIPE.algorithm, statistics_over=over, advantage=kind)
    columns = {
        "outcomes": [int(not is_judged) for row in judged for is_judged in row],
        "lengths": [length for row in lengths for length in row],
    }
    return advantages(torch.tensor(rewards), columns_of(len(rewards[0]), **columns), algorithm)


def oracle(rewards: Table, judged: list[list[bool]], lengths: list[list[int]], over: str) -> Table:
    """REINFORCE++ eq. 6-7, with the population's standard deviation."""
    centred: dict[tuple[int, int], float] = {}
    for g, row in enumerate(rewards):
        members = [n for n in range(len(row)) if judged[g][n]]
        for n in members if len(members) > 1 else []:
            centred[g, n] = row[n] - sum(row[m] for m in members) / len(members)
    population = []
    for (g, n), value in centred.items():
        population += [value] * (lengths[g][n] if over == "tokens" else 1)
    if not population:
        return [[0.0] * len(row) for row in rewards]
    mean = sum(population) / len(population)
    std = math.sqrt(sum((value - mean) ** 2 for value in population) / len(population))
    return [
        [(centred[g, n] - mean) / (std + 1e-8) if (g, n) in centred else 0.0 for n in range(len(row))]
        for g, row in enumerate(rewards)
    ]


def group_oracle(rewards: Table, judged: list[list[bool]], kind: str) -> Table:
    """GRPO's (R - mean) / std of the group, Dr. GRPO's R - mean, and RLOO's R - mean of the others."""
    found = [[0.0] * len(row) for row in rewards]
    for g, row in enumerate(rewards):
        members = [n for n in range(len(row)) if judged[g][n]]
        for n in members if len(members) > 1 else []:
            mean = sum(row[m] for m in members) / len(members)
            if kind == "group_mean_and_std":
                variance = sum((row[m] - mean) ** 2 for m in members) / len(members)
                found[g][n] = (row[n] - mean) / (math.sqrt(variance) + 1e-8)
            elif kind == "group_mean":
                found[g][n] = row[n] - mean
            else:
                others = [row[m] for m in members if m != n]
                found[g][n] = row[n] - sum(others) / len(others)
    return found


def random_case(seed: int) -> tuple[Table, list[list[bool]], list[list[int]]]:
    rng = random.Random(seed)
    groups, samples = rng.randint(1, 6), rng.randint(2, 5)
    rewards = [[rng.choice([0.0, 0.25, 1.0, rng.random()]) for _ in range(samples)] for _ in range(groups)]
    judged = [[rng.random() < 0.8 for _ in range(samples)] for _ in range(groups)]
    lengths = [[rng.randint(1, 30) for _ in range(samples)] for _ in range(groups)]
    return rewards, judged, lengths


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("seed", range(20))
def test_advantages_equal_the_papers_formula(seed: int, over: str) -> None:
    # Rewards reach `advantages` as float32 here, as float64 in the oracle; 0/1 rewards would not tell.
    rewards, judged, lengths = random_case(seed)
    rewards = [[float(torch.tensor(value)) for value in row] for row in rewards]
    torch.testing.assert_close(
        computed(rewards, judged, lengths, over),
        torch.tensor(oracle(rewards, judged, lengths, over), dtype=torch.float64),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("kind", ["group_mean_and_std", "leave_one_out", "group_mean"])
@pytest.mark.parametrize("seed", range(20))
def test_advantages_within_a_group_equal_the_papers_formula(seed: int, kind: str) -> None:
    rewards, judged, lengths = random_case(seed)
    rewards = [[float(torch.tensor(value)) for value in row] for row in rewards]
    expected = torch.tensor(group_oracle(rewards, judged, kind), dtype=torch.float64)
    # A group of equal rewards leaves rounding / 1e-8.
    torch.testing.assert_close(computed(rewards, judged, lengths, "samples", kind), expected, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_with_fewer_than_two_judged_samples_gets_zeros_and_changes_no_other(kind: str) -> None:
    judged = [[True, False, False], [True, True, True], [False] * 3]
    rewards, lengths = [[1.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 1.0]], [[9, 1, 1], [2, 3, 4], [1, 1, 1]]
    for over in OVER if kind == "group_mean_then_batch" else ("samples",):
        found = computed(rewards, judged, lengths, over, kind)
        assert found[[0, 2]].abs().max() == 0
        alone = computed(rewards[1:2], judged[1:2], lengths[1:2], over, kind)
        torch.testing.assert_close(found[1:2], alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unjudged_reward_may_be_no_number(kind: str) -> None:
    found = computed([[1.0, 0.0, math.nan]], [[True, True, False]], [[2, 3, 4]], "samples", kind)
    assert torch.equal(found, computed([[1.0, 0.0, 7.0]], [[True, True, False]], [[2, 3, 4]], "samples", kind))
    assert found.isfinite().all()


def test_batch_statistics_are_those_of_the_whole_step() -> None:
    # An easy and a hard half: taken alone, each would be scaled by its own spread.
    rewards, judged, lengths = [[1.0, 0.0], [0.6, 0.5]], [[True] * 2] * 2, [[1, 1]] * 2
    whole = computed(rewards, judged, lengths, "samples")
    halves = torch.cat([computed(rewards[g : g + 1], judged[:1], lengths[:1], "samples") for g in range(2)])
    torch.testing.assert_close(whole[0] / whole[1], torch.tensor([10.0, 10.0], dtype=torch.float64), rtol=1e-5, atol=0)
    assert not torch.allclose(whole, halves)


def test_token_statistics_let_long_answers_weigh_more() -> None:
    rewards, judged = [[1.0, 0.0]], [[True, True]]
    # R~ is 1/2 for one token and -1/2 for three: mean -1/4, std sqrt(3)/4.
    found = computed(rewards, judged, [[1, 3]], "tokens")
    torch.testing.assert_close(
        found, torch.tensor([[math.sqrt(3), -1 / math.sqrt(3)]], dtype=torch.float64), rtol=1e-6, atol=0
    )
    even = computed(rewards, judged, [[1, 3]], "samples")
    torch.testing.assert_close(even, torch.tensor([[1.0, -1.0]], dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("over", OVER)
def test_token_and_sample_statistics_agree_where_all_lengths_are_equal(over: str) -> None:
    rewards, judged, lengths = random_case(3)
    equal = [[7] * len(row) for row in lengths]
    torch.testing.assert_close(computed(rewards, judged, equal, over), computed(rewards, judged, equal, "samples"))


@pytest.mark.parametrize("over", OVER)
def test_advantages_follow_their_group_when_groups_are_permuted(over: str) -> None:
    rewards, judged, lengths = random_case(11)
    order = list(range(len(rewards)))
    random.Random(1).shuffle(order)
    assert order != sorted(order)
    permuted = computed([rewards[i] for i in order], [judged[i] for i in order], [lengths[i] for i in order], over)
    torch.testing.assert_close(permuted, computed(rewards, judged, lengths, over)[order], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("over", OVER)
def test_a_batch_without_spread_gets_zeros(over: str) -> None:
    # Three times 0.1 sums to a mean that is not exactly 0.1.
    found = computed([[0.1, 0.1, 0.1], [0.7, 0.7, 0.7]], [[True] * 3] * 2, [[5, 1, 2]] * 2, over)
    assert found.abs().max() < 1e-6


@pytest.mark.parametrize("over", OVER)
def test_nothing_judged_gets_zeros(over: str) -> None:
    assert computed([[1.0, 0.0]], [[False, False]], [[5, 1]], over).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("over", OVER)
def test_an_unjudged_sample_changes_nothing_whatever_its_reward_and_length(over: str) -> None:
    judged = [[True, True, False], [True, True, True]]
    some = computed([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], judged, [[3, 4, 1], [2, 2, 2]], over)
    other = computed([[1.0, 0.0, 99.0], [1.0, 0.0, 0.0]], judged, [[3, 4, 900], [2, 2, 2]], over)
    assert torch.equal(some, other)
    assert some[0, 2] == 0


@pytest.mark.parametrize("over", OVER)
def test_a_constant_and_a_factor_on_all_rewards_cancel(over: str) -> None:
    rewards, judged, lengths = random_case(5)
    moved = [[3 * value - 2 for value in row] for row in rewards]
    torch.testing.assert_close(
        computed(moved, judged, lengths, over), computed(rewards, judged, lengths, over), rtol=1e-5, atol=1e-5
    )
