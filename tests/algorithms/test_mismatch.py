"""The mismatch against plain Python."""

import math

import pytest
import torch

from megatron_rl.algorithms.mismatch import mismatch


def test_sums_equal_the_formulas_over_the_weighted_tokens() -> None:
    rollout, actor, weights = [-1.0, -2.0, -3.0, 0.0], [-1.1, -2.0, -2.5, -50.0], [1.0, 1.0, 1.0, 0.0]
    tensors = [torch.tensor(values, dtype=torch.float64) for values in (rollout, actor, weights)]
    found = mismatch(*tensors)
    gaps = [a - r for r, a, w in zip(rollout, actor, weights, strict=True) if w]
    assert found.gap_sum.item() == pytest.approx(sum(map(abs, gaps)))
    assert found.gap_max.item() == pytest.approx(max(map(abs, gaps)))
    assert found.kl_sum.item() == pytest.approx(sum(math.exp(gap) - 1 - gap for gap in gaps))


def test_a_token_without_weight_may_hold_anything() -> None:
    weights = torch.tensor([1.0, 0.0])
    found = mismatch(torch.zeros(2), torch.tensor([0.0, torch.nan]), weights)
    assert [value.item() for value in found] == [0.0, 0.0, 0.0]


def test_nothing_weighted_is_no_mismatch() -> None:
    empty = torch.zeros(0)
    assert [value.item() for value in mismatch(empty, empty, empty)] == [0.0, 0.0, 0.0]


def test_the_estimate_averages_to_the_divergence_of_the_rollout_from_the_actor() -> None:
    # Over a whole vocabulary the expectation under the rollout's distribution is a sum.
    torch.manual_seed(0)
    rollout, actor = (torch.randn(13, dtype=torch.float64).log_softmax(0) for _ in range(2))
    found = mismatch(rollout, actor, rollout.exp())
    torch.testing.assert_close(found.kl_sum, (rollout.exp() * (rollout - actor)).sum())
