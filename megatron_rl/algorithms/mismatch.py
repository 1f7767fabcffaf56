"""Mismatch: how far the actor's log-probabilities are from those the rollout engine sampled with."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Mismatch(NamedTuple):
    """Scalars over the weighted tokens: sums, so that packs and ranks add up, and one maximum."""

    gap_sum: Tensor  # sum of |actor - rollout|, nats
    gap_max: Tensor  # largest |actor - rollout|, nats
    kl_sum: Tensor  # sum of the k3 estimate of KL(rollout || actor), nats


@torch.no_grad()
def mismatch(rollout_logprobs: Tensor, actor_logprobs: Tensor, weights: Tensor) -> Mismatch:
    """The mismatch of log-probabilities [T] over the tokens that `weights` [T] counts.

    With d = actor - rollout: sum |d|, max |d|, sum (exp(d) - 1 - d). Wrong weights in the rollout engine show here
    first, for then d is large at every temperature and length.

    Source: REINFORCE++ arXiv 2501.03262v9, section 3.2 (k3), for samples drawn by the rollout engine.

    d is log 2 and 0, and a third token has no weight: k3 of the first is 2 - 1 - 0.6931.

    >>> zero = torch.zeros(3)
    >>> found = mismatch(zero, torch.tensor([2.0, 1.0, 9.0]).log(), torch.tensor([1.0, 1.0, 0.0]))
    >>> [round(value.item(), 4) for value in found]
    [0.6931, 0.6931, 0.3069]
    """
    gap = torch.where(weights > 0, actor_logprobs - rollout_logprobs, 0)
    largest = gap.abs().max() if gap.numel() else gap.new_zeros(())
    return Mismatch(gap_sum=(gap.abs() * weights).sum(), gap_max=largest, kl_sum=((gap.expm1() - gap) * weights).sum())
