"""Which groups are kept, and how many prompts replace the others."""

import random
from fractions import Fraction

import pytest
import torch

from megatron_rl.algorithms import groups
from megatron_rl.algorithms.groups import is_informative


@pytest.mark.parametrize(
    ("rewards", "judged", "expected"),
    [
        ([1.0, 1.0, 1.0], [True, True, True], False),
        ([0.0, 0.0, 0.0], [True, True, True], False),
        ([0.1, 0.1, 0.1], [True, True, True], False),  # a computed deviation is 1e-17 here
        ([0.5, 0.5, 0.25], [True, True, True], True),
        ([1.0, 0.0, 0.0], [True, False, False], False),  # one judged sample has no spread
        ([1.0, 0.0, 0.0], [True, True, False], True),
        ([1.0, 1.0, 0.0], [True, True, False], False),  # a verifier's failure is not a wrong answer
        ([1.0, 0.0, 0.0], [False, False, False], False),
    ],
)
def test_a_group_is_kept_where_its_judged_rewards_differ(
    rewards: list[float], judged: list[bool], expected: bool
) -> None:
    found = is_informative(
        torch.tensor([rewards], dtype=torch.float64), torch.tensor([judged]), "reward_std_above_zero"
    )
    assert found.tolist() == [expected]


def oracle(rewards: list[float], judged: list[bool]) -> dict[str, bool]:
    """The three published tests in exact fractions."""
    values = [Fraction(reward) for reward, is_judged in zip(rewards, judged, strict=True) if is_judged]
    if len(values) < 2:
        return dict.fromkeys(("reward_std_above_zero", "mean_inside_zero_one", "some_but_not_all_correct"), False)
    mean = sum(values) / len(values)
    return {
        "reward_std_above_zero": sum((value - mean) ** 2 for value in values) > 0,
        "mean_inside_zero_one": 0 < mean < 1,
        "some_but_not_all_correct": 0 < values.count(Fraction(1)) < len(values),
    }


@pytest.mark.parametrize("choices", [[0.0, 1.0], [0.0, 0.5, 1.0], [0.1, 0.1, 1.0], [0.5]])
def test_the_three_tests_equal_their_definitions(choices: list[float]) -> None:
    rng = random.Random(1)
    for _ in range(200):
        rewards, judged = [rng.choice(choices) for _ in range(4)], [rng.random() < 0.8 for _ in range(4)]
        found = groups.tests(torch.tensor([rewards], dtype=torch.float64), torch.tensor([judged]))
        assert {name: bool(mask) for name, mask in found.items()} == oracle(rewards, judged)
        for name, mask in found.items():
            assert torch.equal(
                is_informative(torch.tensor([rewards], dtype=torch.float64), torch.tensor([judged]), name), mask
            )
        if set(choices) == {0.0, 1.0}:
            assert len({bool(mask) for mask in found.values()}) == 1
