"""Log-probabilities and entropy from logits that are sharded over the vocabulary, without gathering them."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

POSITIONS_AT_ONCE = 2048  # three fp32 copies of so many logits: 3.5 GiB of the papers' vocabulary of 152,000


def log_probabilities(logits: Tensor, targets: Tensor, temperature: float, group: Any) -> Tensor:
    """log softmax(logits / temperature) at the targets: [T, V / ranks] and [T] -> [T] float32, differentiable.

    Collective over the tensor-parallel `group`. The logits are overwritten.
    """
    result: Tensor = _LogProbabilities.apply(logits, targets, temperature, group)
    return result


@torch.no_grad()
def log_probabilities_and_entropy(
    logits: Tensor, targets: Tensor, temperature: float, group: Any
) -> tuple[Tensor, Tensor]:
    """The same log-probabilities, and the entropy of each position's distribution in nats, [T] float32 both.

    Collective over the tensor-parallel `group`. The logits are overwritten. Beside them only blocks of
    POSITIONS_AT_ONCE are in memory.
    """
    blocks = []
    for block, wanted in zip(logits.split(POSITIONS_AT_ONCE), targets.split(POSITIONS_AT_ONCE), strict=True):
        scaled, target_logits, _, _ = _scaled(block, wanted, temperature, group)
        weights = scaled.exp()
        sums = torch.stack([weights.sum(-1), torch.linalg.vecdot(weights, scaled), target_logits])
        _reduce(sums, group)
        log_total = sums[0].log()
        blocks.append(torch.stack([sums[2] - log_total, log_total - sums[1] / sums[0]]))
    logprobs, entropy = torch.cat(blocks, -1)
    return logprobs, entropy


class _LogProbabilities(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, temperature: float, group: Any) -> Tensor:
        scaled, target_logits, index, is_mine = _scaled(logits, targets, temperature, group)
        weights = scaled.exp_()
        sums = torch.stack([weights.sum(-1), target_logits])
        _reduce(sums, group)
        # The one buffer of the size of the logits: it becomes their gradient in the backward pass.
        ctx.save_for_backward(weights, sums[0], index, is_mine)
        ctx.temperature, ctx.dtype = temperature, logits.dtype
        return sums[1] - sums[0].log()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        weights, total, index, is_mine = ctx.saved_tensors
        gradient = gradient / ctx.temperature
        weights.mul_((-gradient / total).unsqueeze(-1))
        weights.scatter_add_(-1, index.unsqueeze(-1), (gradient * is_mine).unsqueeze(-1))
        return weights.to(ctx.dtype), None, None, None


def _scaled(logits: Tensor, targets: Tensor, temperature: float, group: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """logits / temperature less their maximum; that at the targets (0 elsewhere); local targets; which are local."""
    size = logits.size(-1)
    scaled = logits.detach().float()
    if temperature != 1.0:
        scaled.div_(temperature)
    largest = scaled.amax(-1)
    _reduce(largest, group, dist.ReduceOp.MAX)
    scaled.sub_(largest.unsqueeze(-1))
    local = targets - group.rank() * size
    is_mine = (local >= 0) & (local < size)
    index = local.clamp(0, size - 1)
    at_targets = scaled.gather(-1, index.unsqueeze(-1)).squeeze(-1).masked_fill(~is_mine, 0.0)
    return scaled, at_targets, index, is_mine


def _reduce(values: Tensor, group: Any, operation: Any = dist.ReduceOp.SUM) -> None:
    if group.size() > 1:
        dist.all_reduce(values, operation, group=group)
