"""The whole objective of an update: what is minimised, token by token, and what is told about it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_rl.algorithms.kl import kl_estimate
from megatron_rl.algorithms.losses import cispo_loss, clipped, policy_loss
from megatron_rl.algorithms.mismatch import correction_weights, held_by_correction
from megatron_rl.algorithms.ratios import sequence_log_ratio, with_finite_ratio
from megatron_rl.config.records import Algorithm
from megatron_rl.types import Pack


@dataclass(frozen=True, kw_only=True)
class TokenSums:
    """Float64 scalars, summed over the response tokens of a pack; packs and ranks add up."""

    tokens: Tensor
    loss: Tensor  # by loss weight
    clip_low: Tensor  # tokens whose gradient a bound takes away, as `losses.clipped` says
    clip_high: Tensor
    clip_dual: Tensor
    ratio: Tensor  # pi / pi_old, of the whole sequence for GSPO
    kl_reference: Tensor  # nats; 0 without a KL
    corrected: Tensor  # tokens whose ratio to the rollout's probability lies beyond the bounds

    @classmethod
    def of(cls, values: Tensor) -> TokenSums:
        """From a tensor [8] in the order of the fields."""
        return cls(**dict(zip((field.name for field in dataclasses.fields(cls)), values.double(), strict=True)))

    @classmethod
    def zero(cls, device: torch.device | None = None) -> TokenSums:
        """Of no tokens; what is added lies on the same device, which then need not wait for the host."""
        return cls.of(torch.zeros(len(dataclasses.fields(cls)), device=device))

    def __add__(self, other: TokenSums) -> TokenSums:
        return TokenSums.of(self.values + other.values)

    @property
    def values(self) -> Tensor:
        """[8] float64 in the order of the fields."""
        return torch.stack([getattr(self, field.name) for field in dataclasses.fields(self)])


def objective(logprobs: Tensor, pack: Pack, algorithm: Algorithm) -> tuple[Tensor, TokenSums]:
    """The loss of a pack's tokens and its sums: sum_t w_t (c_t L_t + beta KL_t), which the optimizer lowers.

    L is `policy_loss` of `logprobs` [T] against the pack's old ones with its advantages, of the whole sequence's ratio
    for GSPO, or `cispo_loss`; a pack without old ones has its own, as in a step's first update: the ratio is 1 and has
    its gradient; c the correction for the rollout engine's own probabilities, 1 without one; KL the estimate against
    the pack's reference, 0 without one or where it is taken off the reward instead; w the pack's `loss_weights`, by
    which the packs of an update sum to the token mean or the sequence mean. The gradient flows through `logprobs` only.

    Source: ProRL v1 arXiv 2505.24864v1, eq. 1-4; ProRL v2 blog, 2025-08-13; BroRL arXiv 2510.01180v1, section 4.2
    (truncated importance sampling); REINFORCE++ arXiv 2501.03262v9, eq. 8; GSPO arXiv 2507.18071, eq. 5.

    One token of ratio 2 and advantage 1 is held at 1.28; the reference gave it half the policy's probability, so k2 is
    (log 2)^2 / 2 = 0.2402, and beta 0.5. The prompt's token counts for nothing.

    >>> from dataclasses import replace
    >>> from recipes.prorl_v2 import RECIPE
    >>> algorithm = replace(RECIPE.algorithm, kl=replace(RECIPE.algorithm.kl, coefficient=0.5))
    >>> mask, zero, one = torch.tensor([0.0, 1.0]), torch.zeros(2), torch.ones(2, dtype=torch.long)
    >>> pack = Pack(token_ids=one, targets=one, position_ids=one, cumulative_lengths=torch.tensor([0, 2]), longest=2,
    ...             sequences=one, response_mask=mask, loss_weights=mask, rollout_logprobs=zero, old_logprobs=zero,
    ...             reference_logprobs=zero, advantages=mask)
    >>> loss, sums = objective(torch.tensor([9.0, 2.0]).log(), pack, algorithm)
    >>> round(loss.item(), 4), sums.tokens.item(), sums.clip_high.item(), round(sums.kl_reference.item(), 4)
    (-1.1599, 1.0, 1.0, 0.2402)
    """
    assert pack.advantages is not None
    mask, old = pack.response_mask, logprobs.detach() if pack.old_logprobs is None else pack.old_logprobs
    log_ratio = logprobs - old
    if algorithm.policy_loss == "gspo":
        log_ratio = sequence_log_ratio(log_ratio, mask, pack.sequences)
    if algorithm.policy_loss == "cispo":
        loss = cispo_loss(logprobs, old, pack.advantages, algorithm)
    else:
        loss = policy_loss(log_ratio, torch.zeros_like(log_ratio), pack.advantages, algorithm)
    kl = corrected = torch.zeros_like(logprobs)
    if (correction := algorithm.correction) is not None:
        of_rollout = old, pack.rollout_logprobs, mask, pack.sequences, correction
        loss, held = loss * correction_weights(*of_rollout), held_by_correction(*of_rollout)
        corrected = held.low + held.high
    if algorithm.kl is not None:
        assert pack.reference_logprobs is not None
        kl = kl_estimate(logprobs, pack.reference_logprobs, algorithm.kl)
        if algorithm.kl.place == "loss":
            loss = loss + algorithm.kl.coefficient * kl
    total = (loss * pack.loss_weights).sum()
    with torch.no_grad():
        ratio = with_finite_ratio(log_ratio).exp()
        of_tokens = (torch.stack([*clipped(ratio, pack.advantages, algorithm), ratio, kl, corrected]) * mask).sum(1)
        return total, TokenSums.of(torch.cat([mask.sum()[None], total.detach()[None], of_tokens]))
