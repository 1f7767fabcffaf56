"""Mismatch: how far the actor's log-probabilities are from those the rollout engine sampled with, and what to do."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from megatron_rl.algorithms.ratios import sequence_log_ratio, with_finite_ratio
from megatron_rl.config.records import Correction


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
    kl = with_finite_ratio(gap).expm1() - gap
    return Mismatch(gap_sum=(gap.abs() * weights).sum(), gap_max=largest, kl_sum=(kl * weights).sum())


class Held(NamedTuple):
    """Two masks [T] over the weighted tokens."""

    low: Tensor  # 1 where the ratio, or its mean over the sequence, lies below the bounds
    high: Tensor  # and above


@torch.no_grad()
def correction_weights(
    actor_logprobs: Tensor, rollout_logprobs: Tensor, weights: Tensor, sequences: Tensor, correction: Correction
) -> Tensor:
    """The factor [T] of each token's policy loss, without gradient; 0 where `weights` [T] is.

    With w = pi_actor / pi_rollout of the token, both of the policy that generated it:

    truncate       clamp(w, low, high)                                       TIS
    icepop         w where low <= w <= high, else 0
    sequence_mask  w where low <= exp(mean over the sequence of log w) <= high, else 0; w itself is not cut

    `sequences` [T] says which sequence a token belongs to; a pack holds whole ones.

    Source: TIS: Yao et al., 2025, named by BroRL arXiv 2510.01180v1. IcePop with [0.5, 5] and the
    sequence mask with [0.999, 1.002]: NeMo-RL's and OpenRLHF's ProRL v2 configurations.

    Ratios 3 and 1/2 in one sequence, 1 in another. The first sequence's geometric mean is sqrt(1.5) = 1.22.

    >>> actor, rollout = torch.tensor([3.0, 0.5, 1.0, 9.0]).log(), torch.zeros(4)
    >>> weights, sequences = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([4, 4, 7, 7])
    >>> def of(method, low, high):
    ...     correction = Correction(method=method, low=low, high=high)
    ...     return [round(w, 4) for w in correction_weights(actor, rollout, weights, sequences, correction).tolist()]
    >>> of("truncate", 0.0, 2.0), of("icepop", 0.5, 2.0)
    ([2.0, 0.5, 1.0, 0.0], [0.0, 0.5, 1.0, 0.0])
    >>> of("sequence_mask", 0.5, 1.3), of("sequence_mask", 0.5, 1.2)
    ([3.0, 0.5, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0])
    """
    ratio = with_finite_ratio(torch.where(weights > 0, actor_logprobs - rollout_logprobs, 0)).exp()
    if correction.method == "truncate":
        ratio = ratio.clamp(correction.low, correction.high)
    else:
        held = held_by_correction(actor_logprobs, rollout_logprobs, weights, sequences, correction)
        ratio = ratio.masked_fill((held.low + held.high) > 0, 0)
    return torch.where(weights > 0, ratio, 0)


@torch.no_grad()
def held_by_correction(
    actor_logprobs: Tensor, rollout_logprobs: Tensor, weights: Tensor, sequences: Tensor, correction: Correction
) -> Held:
    """The tokens whose ratio, or whose sequence's, lies outside the bounds, in the dtype of `weights` [T].

    Their weighted sums over all tokens, divided by the number of tokens, are the fractions that `truncate` cuts and
    the other methods leave out.

    Source: as `correction_weights`.

    The tokens of `correction_weights`, and its bounds: the first is too large, then none, then the first sequence.

    >>> actor, rollout = torch.tensor([3.0, 0.5, 1.0, 9.0]).log(), torch.zeros(4)
    >>> weights, sequences = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([4, 4, 7, 7])
    >>> for method, low, high in (("icepop", 0.5, 2.0), ("sequence_mask", 0.5, 1.3), ("sequence_mask", 0.5, 1.2)):
    ...     correction = Correction(method=method, low=low, high=high)
    ...     held_by_correction(actor, rollout, weights, sequences, correction).high.tolist()
    [1.0, 0.0, 0.0, 0.0]
    [0.0, 0.0, 0.0, 0.0]
    [1.0, 1.0, 0.0, 0.0]
    """
    log_ratio = torch.where(weights > 0, actor_logprobs - rollout_logprobs, 0)
    if correction.method == "sequence_mask":
        log_ratio = sequence_log_ratio(log_ratio.double(), weights, sequences)
    ratio, counted = log_ratio.exp(), weights > 0
    low, high = (ratio < correction.low) & counted, (ratio > correction.high) & counted
    return Held(low.to(weights.dtype), high.to(weights.dtype))
