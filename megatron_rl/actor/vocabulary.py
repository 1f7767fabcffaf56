"""Log-probabilities and entropy straight from hidden states and the head's weights, which may be sharded over the
vocabulary. The logits are made a block of the vocabulary at a time, and once more for the gradient: whole they would be
the largest tensor there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

VOCABULARY_AT_ONCE = 4096  # columns of logits that are in memory at a time
MAX_LOGITS_KEPT = 2**26  # so many, a quarter of a GiB, are kept for the gradient instead of made again


@dataclass(frozen=True, kw_only=True)
class Head:
    """The logits hidden @ weight.T, before they are made."""

    hidden: Tensor  # [T, hidden]
    weight: Tensor  # [V / ranks, hidden]
    product: Callable[[Tensor, Tensor], Tensor]  # of two matrices, in fp32 or above
    rounds_logits: bool = False  # to the precision of the weight, as a product in that precision does

    def blocks(self, temperature: float) -> Iterator[Tensor]:
        """logits / temperature in fp32 or above, one block [T, VOCABULARY_AT_ONCE] after the other."""
        hidden = self.hidden.to(self.weight.dtype)
        for rows in self.weight.split(VOCABULARY_AT_ONCE):
            yield self._block(hidden, rows, temperature)  # by no name: it would be held while the next one is made

    def _block(self, hidden: Tensor, rows: Tensor, temperature: float) -> Tensor:
        logits = self.product(hidden, rows.t())
        if self.rounds_logits:
            logits = logits.to(rows.dtype).to(logits.dtype)
        return logits.div_(temperature) if temperature != 1.0 else logits


def log_probabilities(head: Head, targets: Tensor, temperature: float, group: Any) -> Tensor:
    """log softmax(logits / temperature) at the targets: [T] -> [T] float32, differentiable.

    Collective over the tensor-parallel `group`.
    """
    result: Tensor = _LogProbabilities.apply(head.hidden, head.weight, head, targets, temperature, group, False)[0]
    return result


def log_probabilities_and_entropy(head: Head, targets: Tensor, temperature: float, group: Any) -> tuple[Tensor, Tensor]:
    """The same log-probabilities, and the entropy of each position's distribution in nats, [T] float32 both.

    The entropy has no gradient. Collective over the tensor-parallel `group`.
    """
    found: tuple[Tensor, Tensor] = _LogProbabilities.apply(
        head.hidden, head.weight, head, targets, temperature, group, True
    )
    return found


class _LogProbabilities(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        head: Head,
        targets: Tensor,
        temperature: float,
        group: Any,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        head = replace(head, hidden=hidden, weight=weight)
        local = targets - group.rank() * len(weight)
        keeps = len(targets) * len(weight) <= MAX_LOGITS_KEPT and (ctx.needs_input_grad[0] or ctx.needs_input_grad[1])
        kept = list(head.blocks(temperature)) if keeps else []
        log_total, at_targets, mean = _sums(kept or head.blocks(temperature), local, group, with_mean=with_entropy)
        ctx.save_for_backward(hidden, weight, local, log_total, *kept)
        ctx.head, ctx.temperature = replace(head, hidden=hidden.detach(), weight=weight.detach()), temperature
        entropy = log_total - mean
        ctx.mark_non_differentiable(entropy)
        return at_targets - log_total, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """(one at the target - softmax) x gradient / temperature is what a position gives each of its logits."""
        hidden, weight, local, log_total, *kept = ctx.saved_tensors
        gradient = (gradients[0] / ctx.temperature).unsqueeze(-1)
        inputs, of_hidden = (
            hidden.to(weight.dtype),
            torch.zeros(hidden.shape, dtype=gradient.dtype, device=hidden.device),
        )
        of_weight = torch.empty_like(weight)
        first = 0
        for logits in kept or ctx.head.blocks(ctx.temperature):
            rows = slice(first, first + logits.size(-1))
            of_logits = logits.sub_(log_total.unsqueeze(-1)).exp_().mul_(-gradient)
            index, is_here = _within(local - first, logits)
            of_logits.scatter_add_(-1, index, gradient * is_here)
            of_logits = of_logits.to(weight.dtype)
            of_hidden += ctx.head.product(of_logits, weight[rows])
            torch.mm(of_logits.t(), inputs, out=of_weight[rows])  # each row is complete: rounded once
            first = rows.stop
            del logits, of_logits  # before the next block is made
        return of_hidden.to(hidden.dtype), of_weight, None, None, None, None, None


def _sums(blocks: Iterable[Tensor], local: Tensor, group: Any, *, with_mean: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Log of the sum of exp(logit) over the vocabulary of all ranks, the targets' logits, the mean logit; [T] each.

    `local` are the targets, counted from this rank's first. The mean is zero unless it is asked for. One pass: what
    was added up so far is scaled down whenever a larger logit is met.
    """
    largest = total = mean = at_targets = torch.empty(0)
    first = 0
    for logits in blocks:
        if first == 0:
            total, mean, at_targets = torch.zeros(3, len(local), dtype=logits.dtype, device=logits.device)
            largest = torch.full_like(total, torch.finfo(total.dtype).min / 4)
        above = torch.maximum(largest, logits.amax(-1))
        total, mean = _lowered(total, mean, above - largest)
        largest = above
        index, is_here = _within(local - first, logits)
        at_targets = at_targets + (logits.gather(-1, index) * is_here).squeeze(-1)
        below = logits - largest.unsqueeze(-1)
        if with_mean:
            weights = below.exp()
            mean = mean + below.mul_(weights).sum(-1)
        else:
            weights = below.exp_()
        total = total + weights.sum(-1)
        first += logits.size(-1)
        del logits, below, weights  # before the next block is made
    above = largest.clone()
    _reduce(above, group, dist.ReduceOp.MAX)
    sums = torch.stack([*_lowered(total, mean, above - largest), at_targets])
    _reduce(sums, group)
    total, mean, at_targets = sums
    return total.log() + above, at_targets, mean / total + above


def _lowered(total: Tensor, mean: Tensor, rise: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of w and of w x below, with w = exp(below), after the level that `below` is counted from has risen."""
    factor = (-rise).exp()
    return total * factor, (mean - total * rise) * factor


def _within(local: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The columns of the targets in a block [T, 1], and which of them are in it."""
    is_here = (local >= 0) & (local < logits.size(-1))
    return local.clamp(0, logits.size(-1) - 1).unsqueeze(-1), is_here.unsqueeze(-1)


def _reduce(values: Tensor, group: Any, operation: Any = dist.ReduceOp.SUM) -> None:
    if group.size() > 1:
        dist.all_reduce(values, operation, group=group)
