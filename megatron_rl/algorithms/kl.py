"""Estimators of the distance between the policy and its reference, token by token."""

from __future__ import annotations

from torch import Tensor


def k2(logprobs: Tensor, reference_logprobs: Tensor, log_ratio_clamp: float) -> Tensor:
    """k2 [T] nats: 0.5 * clamp(log(pi_ref / pi), -c, c)^2, with the current policy pi.

    Its gradient, log(pi / pi_ref) * grad log pi, is that of KL(pi || pi_ref) in expectation over pi. It needs no
    further score-function term, which would make it wrong. A token beyond the clamp pulls no more.

    Source: REINFORCE++ arXiv 2501.03262v9, eq. 8 and section 3.2; ProRL v2 blog, 2025-08-13, for the clamp of 10. The
    blog prints pi_old where this has pi; pi_old carries no gradient, and the paper has pi.

    Log-ratios 0, -2 and 20, the last clamped to 10: 0, 0.5 * 4 and 0.5 * 100.

    >>> import torch
    >>> k2(torch.tensor([-1.0, -1.0, -21.0]), torch.tensor([-1.0, -3.0, -1.0]), 10.0).tolist()
    [0.0, 2.0, 50.0]
    """
    return 0.5 * (reference_logprobs - logprobs).clamp(-log_ratio_clamp, log_ratio_clamp).square()
