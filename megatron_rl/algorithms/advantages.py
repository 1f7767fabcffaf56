"""Advantages: how much better than its group a response was, in units of the batch's spread."""

from __future__ import annotations

from torch import Tensor

from megatron_rl.config import Algorithm

EPSILON = 1e-8  # REINFORCE++ eq. 7 names it without a value; a batch without spread then gets zeros, not noise


def advantages(rewards: Tensor, judged: Tensor, lengths: Tensor, algorithm: Algorithm) -> Tensor:
    """Advantages [G, N] float64 of `rewards` [G, N], each for every token of its response.

    R~ = R - mean over the group,  A = (R~ - mean over the batch) / (std over the batch + 1e-8).

    The group mean is over samples. The batch statistics count each sample once (`statistics_over="samples"`, as the
    papers write) or once per token of its length (`"tokens"`, as OpenRLHF, NeMo-RL and verl do, which lets long
    answers weigh more). The standard deviation is the population's: with thousands of samples the choice is
    invisible, and it is defined for one. Only `judged` [G, N] samples enter a statistic; the others get 0.

    Source: REINFORCE++ arXiv 2501.03262v9, eq. 6-7, App. B.2; ProRL v2 blog, 2025-08-13. The advantage goes
    to every token (eq. 4), not to the last one only (App. B.2).

    >>> import torch
    >>> from recipes.prorl_v2 import RECIPE
    >>> rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0]])
    >>> judged = torch.tensor([[True, True, False, False], [True, True, True, True]])
    >>> lengths = torch.full((2, 4), 7)

    The group means are 1/2 (of two judged) and 3/4, so R~ is (1/2, -1/2) and (1/4, -3/4, 1/4, 1/4). Its mean is 0, its
    variance (2/4 + 3/16 + 9/16) / 6 = 5/24, its standard deviation 0.4564.

    >>> advantages(rewards, judged, lengths, RECIPE.algorithm).mul(1e4).round().div(1e4).tolist()
    [[1.0954, -1.0954, 0.0, 0.0], [0.5477, -1.6432, 0.5477, 0.5477]]
    """
    assert algorithm.advantage == "group_mean_then_batch", algorithm.advantage
    rewards, counted = rewards.double(), judged.double()
    means = (rewards * counted).sum(1, keepdim=True) / counted.sum(1, keepdim=True).clamp(min=1)
    centred = rewards - means
    weights = counted * lengths if algorithm.statistics_over == "tokens" else counted
    total = weights.sum().clamp(min=1)
    offsets = centred - (centred * weights).sum() / total
    std = ((offsets.square() * weights).sum() / total).sqrt()
    return (offsets / (std + EPSILON)).masked_fill(~judged, 0)
