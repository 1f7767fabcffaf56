"""Which groups are kept, and how many prompts replace the others."""

import math
from fractions import Fraction

import pytest
import torch

from megatron_rl.algorithms.groups import is_informative, prompts_for_round


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
    found = is_informative(torch.tensor([rewards], dtype=torch.float64), torch.tensor([judged]))
    assert found.tolist() == [expected]


def test_a_round_expects_to_find_what_is_missing() -> None:
    for tried in range(1, 40):
        for kept in range(tried + 1):
            for missing in range(1, 40):
                rate = max(Fraction(kept, tried), Fraction(1, 4))
                assert prompts_for_round(missing, kept / tried, 10_000) == math.ceil(missing / rate)


def test_a_round_is_at_most_two_steps_and_at_least_what_is_missing() -> None:
    for missing in range(1, 17):
        for kept in range(17):
            assert missing <= prompts_for_round(missing, kept / 16, 16) <= 32
