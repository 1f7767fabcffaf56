"""The policy loss, token by token; who calls it decides the denominator."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """Loss [T] of each token: -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A), with r = pi / pi_old.

    The gradient flows through `logprobs` [T] only; it is -r A, and 0 where `held_by_clip` says so. `old_logprobs` [T]
    are those of the policy that the step began with, `advantages` [T] constants.

    Source: ProRL v2 blog, 2025-08-13 (clip 0.20 / 0.28); DAPO arXiv 2503.14476, section 3.1 (decoupled bounds). The
    mean over all tokens of an update is DAPO's section 3.3.

    Bounds 0.8 and 1.28. Ratio 1 passes: -1 * 2. Ratio 2 is cut at 1.28 where the advantage is 1, and is not where it
    is -1, since the minimum keeps the worse. Ratio 0.5 with advantage -1 is cut at 0.8.

    >>> logprobs = torch.tensor([1.0, 2.0, 2.0, 0.5]).log()
    >>> advantages = torch.tensor([2.0, 1.0, -1.0, -1.0])
    >>> [round(loss, 6) for loss in clipped_policy_loss(logprobs, torch.zeros(4), advantages, 0.2, 0.28).tolist()]
    [-2.0, -1.28, 2.0, 0.8]
    """
    ratio = (logprobs - old_logprobs).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)


@torch.no_grad()
def held_by_clip(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> tuple[Tensor, Tensor]:
    """Two masks [T] in the ratio's dtype: 1 where the lower, and where the upper bound takes a token's gradient away.

    The lower bound holds a token that is already less likely and should become less so (A < 0); the upper bound one
    that is already more likely and should become more so (A > 0).

    Source: ProRL v2 blog, 2025-08-13; the region where the clipped branch is the minimum.

    The four tokens of `clipped_policy_loss`: only the second is held from above, only the last from below.

    >>> ratio, advantages = torch.tensor([1.0, 2.0, 2.0, 0.5]), torch.tensor([2.0, 1.0, -1.0, -1.0])
    >>> [mask.tolist() for mask in held_by_clip(ratio, advantages, 0.2, 0.28)]
    [[0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]]
    """
    low = (ratio < 1 - clip_low) & (advantages < 0)
    high = (ratio > 1 + clip_high) & (advantages > 0)
    return low.to(ratio.dtype), high.to(ratio.dtype)
