"""Ratios of probabilities that stay numbers: where a log-ratio is cut before its exponential is taken."""

from __future__ import annotations

from torch import Tensor

LARGEST_LOG_RATIO = 80.0  # nats: the exponential of 89 is no number any more in fp32


def with_finite_ratio(log_ratio: Tensor) -> Tensor:
    """The `log_ratio` of any shape, in nats, cut at 80, so that the ratio and its gradient are finite.

    Beyond, a ratio has no gradient. An infinite one would make NaN of every product with 0: of the loss where the
    advantage is 0, and of the gradient wherever a bound holds the token, which is where nothing should come of it.

    Source: ProRL v1 arXiv 2505.24864v1, eq. 1, for the ratio; the cut is of fp32. verl cuts at 20 nats.

    >>> import torch
    >>> with_finite_ratio(torch.tensor([-200.0, 0.5, 200.0])).tolist()
    [-200.0, 0.5, 80.0]
    """
    return log_ratio.clamp(max=LARGEST_LOG_RATIO)
