"""Which groups are kept, and how many prompts replace the others."""

import math

import pytest
import torch

from megatron_rl.algorithms.groups import is_informative, prompts_for_next_round


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


def test_the_next_round_expects_to_find_what_is_missing() -> None:
    for tried in range(1, 40):
        for kept in range(tried + 1):
            for missing in range(1, 40):
                rate = max(kept / tried, 0.25)
                expected = math.ceil(missing / rate - 1e-9)
                assert prompts_for_next_round(missing, tried, kept, 10_000) == expected, (missing, tried, kept)


def test_a_round_is_never_larger_than_a_step_nor_smaller_than_what_is_missing() -> None:
    for missing in range(1, 17):
        for tried in range(0, 64, 4):
            for kept in range(0, tried + 1, 3):
                assert missing <= prompts_for_next_round(missing, tried, kept, 16) <= 16


def test_before_anything_was_tried_a_round_is_what_is_missing_or_more() -> None:
    assert prompts_for_next_round(16, 0, 0, 16) == 16
