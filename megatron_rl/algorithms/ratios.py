"""Ratios of probabilities: of a whole sequence, and cut before an exponential of theirs is no number any more."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST_LOG_RATIO = 80.0  # nats: the exponential of 89 is no number any more in fp32


def with_finite_ratio(log_ratio: Tensor) -> Tensor:
    """The `log_ratio` of any shape, in nats, cut at 80, so that the ratio and its gradient are finite.

    Beyond, a ratio has no gradient. An infinite one would make NaN of every product with 0: of the loss where the
    advantage is 0, and of the gradient wherever a bound holds the token, which is where nothing should come of it.

    Source: ProRL v1 arXiv 2505.24864v1, eq. 1, for the ratio; the cut is of fp32. verl cuts at 20 nats.

    >>> with_finite_ratio(torch.tensor([-200.0, 0.5, 200.0])).tolist()
    [-200.0, 0.5, 80.0]
    """
    return log_ratio.clamp(max=LARGEST_LOG_RATIO)


def sequence_log_ratio(log_ratio: Tensor, weights: Tensor, sequences: Tensor) -> Tensor:
    """log s [T] of the sequence of each token: the mean of `log_ratio` [T] over its tokens that `weights` [T] counts.

    0 for a sequence without any. `sequences` [T] says which one a token belongs to; a pack holds whole ones. The
    gradient of s reaches each of n tokens as s / n.

    Source: GSPO arXiv 2507.18071, eq. 7: s = (pi(y) / pi_old(y)) ^ (1 / |y|).

    Log-ratios 0.3 and 0.1 in one sequence, 0.5 in another, whose second token does not count.

    >>> log_ratio, weights = torch.tensor([0.3, 0.1, 0.5, 9.0]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    >>> [round(value, 4) for value in sequence_log_ratio(log_ratio, weights, torch.tensor([4, 4, 7, 7])).tolist()]
    [0.2, 0.2, 0.5, 0.5]
    """
    num_rows = int(sequences.max()) + 1 if len(sequences) else 0
    empty = torch.zeros(num_rows, dtype=torch.float64, device=sequences.device)
    # A token that does not count may have any ratio; it must not reach a sum.
    counted = torch.where(weights > 0, log_ratio, 0) * weights
    # Not index_add, which adds up in any order on a GPU: one run would not be like another.
    sums = empty.index_put((sequences,), counted.double(), accumulate=True)
    counts = empty.index_put((sequences,), weights.double(), accumulate=True)
    return (sums / counts.clamp(min=1))[sequences].to(log_ratio.dtype)
