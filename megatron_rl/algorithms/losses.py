"""The policy loss, token by token, and what each token weighs in the loss of an update."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from megatron_rl.config.records import Algorithm


class Clipped(NamedTuple):
    """Three masks [T], 1 where a bound takes a token's gradient away."""

    low: Tensor  # already less likely, and should become less so
    high: Tensor  # already more likely, and should become more so
    dual: Tensor  # much more likely, though it should become less so


def policy_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, algorithm: Algorithm) -> Tensor:
    """Loss [T] of each token: -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A), with r = pi / pi_old.

    With a `dual_clip` c, a token of negative A loses at most -c A. The gradient flows through `logprobs` [T] only; it
    is -r A, and 0 where `clipped` says so. `old_logprobs` [T] are those of the policy that the step began with,
    `advantages` [T] constants.

    Source: ProRL v1 arXiv 2505.24864v1, eq. 1 and 3 (0.2 / 0.4); ProRL v2 blog, 2025-08-13 (0.20 / 0.28); DAPO arXiv
    2503.14476, section 3.1 (decoupled bounds); dual clip: arXiv 1912.09729, on by default in verl.

    Bounds 0.8 and 1.28. Ratio 1 passes: -1 * 2. Ratio 2 is cut at 1.28 where the advantage is 1, and is not where it
    is -1, since the minimum keeps the worse. Ratio 0.5 with advantage -1 is cut at 0.8. With a dual clip of 1.5 the
    third token loses 1.5 instead of 2.

    >>> import dataclasses
    >>> from recipes.prorl_v2 import RECIPE
    >>> logprobs = torch.tensor([1.0, 2.0, 2.0, 0.5]).log()
    >>> advantages = torch.tensor([2.0, 1.0, -1.0, -1.0])
    >>> [round(loss, 6) for loss in policy_loss(logprobs, torch.zeros(4), advantages, RECIPE.algorithm).tolist()]
    [-2.0, -1.28, 2.0, 0.8]
    >>> dual = dataclasses.replace(RECIPE.algorithm, dual_clip=1.5)
    >>> [round(loss, 6) for loss in policy_loss(logprobs, torch.zeros(4), advantages, dual).tolist()]
    [-2.0, -1.28, 1.5, 0.8]
    """
    ratio = (logprobs - old_logprobs).exp()
    bounded = ratio.clamp(1 - algorithm.clip_low, 1 + algorithm.clip_high)
    gain = torch.minimum(ratio * advantages, bounded * advantages)
    if algorithm.dual_clip is not None:
        gain = torch.where(advantages < 0, torch.maximum(gain, algorithm.dual_clip * advantages), gain)
    return -gain


@torch.no_grad()
def clipped(ratio: Tensor, advantages: Tensor, algorithm: Algorithm) -> Clipped:
    """Where the bounds of `policy_loss` hold a token of this `ratio` [T], in the ratio's dtype.

    Source: as `policy_loss`; the regions where the clipped branch is the one taken.

    The four tokens of `policy_loss` with its dual clip: the second is held from above, the third by the dual clip, the
    last from below.

    >>> import dataclasses
    >>> from recipes.prorl_v2 import RECIPE
    >>> ratio, advantages = torch.tensor([1.0, 2.0, 2.0, 0.5]), torch.tensor([2.0, 1.0, -1.0, -1.0])
    >>> [mask.tolist() for mask in clipped(ratio, advantages, dataclasses.replace(RECIPE.algorithm, dual_clip=1.5))]
    [[0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """
    bound = torch.inf if algorithm.dual_clip is None else algorithm.dual_clip
    low = (ratio < 1 - algorithm.clip_low) & (advantages < 0)
    high = (ratio > 1 + algorithm.clip_high) & (advantages > 0)
    dual = (ratio > bound) & (advantages < 0)
    return Clipped(low.to(ratio.dtype), high.to(ratio.dtype), dual.to(ratio.dtype))


def loss_weights(lengths: Tensor, judged: Tensor, aggregation: Literal["token_mean", "sequence_mean"]) -> Tensor:
    """What each token of a sequence weighs in its update's loss: [G, N] float64 for the G groups of the update.

    The loss of the update is the sum over its tokens of weight * token loss, so that any split into microbatches and
    ranks gives the same. token_mean: 1 / all judged tokens of the update. sequence_mean: 1 / (judged sequences *
    length of this one). An unjudged sequence weighs 0.

    Source: DAPO arXiv 2503.14476, section 3.3 (token mean); REINFORCE++ arXiv 2501.03262v9, eq. 1
    (sequence mean).

    Sequences of 1 and 3 judged tokens: a quarter each; or a half, and a sixth for each of the three.

    >>> lengths, judged = torch.tensor([[1, 3, 9]]), torch.tensor([[True, True, False]])
    >>> loss_weights(lengths, judged, "token_mean").tolist()
    [[0.25, 0.25, 0.0]]
    >>> [round(weight, 4) for weight in loss_weights(lengths, judged, "sequence_mean")[0].tolist()]
    [0.5, 0.1667, 0.0]
    """
    counted = judged.double()
    if aggregation == "token_mean":
        return counted / (counted * lengths).sum().clamp(min=1)
    return counted / (counted.sum().clamp(min=1) * lengths.clamp(min=1))
