"""pass@k: how likely one of k responses is right, estimated from n of them, and how far it can go."""

from __future__ import annotations

import math

from torch import Tensor


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """The unbiased estimate of pass@k from `num_samples` responses to a prompt: 1 - C(n - c, k) / C(n, k).

    It is the fraction of the ways to choose k of the n that hold a right one. 1 - (1 - c/n)^k would be too low.
    Computed in integers and rounded once. Raises ValueError where k is not in 1..n, or c not in 0..n.

    Source: Chen et al. arXiv 2107.03374, eq. 1; ProRL v1 arXiv 2505.24864v1, section 4, uses n = 256.

    Of 4 responses 1 is right: 3 of the 6 pairs hold it, and 3 of the 4 triples.

    >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 2), pass_at_k(4, 1, 3), pass_at_k(256, 0, 128)
    (0.25, 0.5, 0.75, 0.0)
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass@k: k={k} is not in 1..{num_samples}, the number of samples; take more samples")
    if not 0 <= num_correct <= num_samples:
        raise ValueError(f"pass@k: num_correct={num_correct} is not in 0..{num_samples}, the number of samples")
    choices = math.comb(num_samples, k)
    return (choices - math.comb(num_samples - num_correct, k)) / choices


def pass_at_k_of_probability(probability: Tensor, k: int) -> Tensor:
    """pass@k = 1 - (1 - p)^k of k independent responses, each right with `probability` [...].

    It rises with p for every k, so that what raises the correct mass Q_pos raises every pass@k.

    Source: BroRL arXiv 2510.01180, section 2.

    1 - (3/4)^2 = 7/16, certainty either way, and 4 times what 1 - p would round away.

    >>> import torch
    >>> probabilities = torch.tensor([0.25, 1.0, 0.0, 1e-20], dtype=torch.float64)
    >>> [round(value, 9) for value in pass_at_k_of_probability(probabilities, 2).tolist()]
    [0.4375, 1.0, 0.0, 0.0]
    >>> pass_at_k_of_probability(probabilities[3], 4).item()
    4e-20
    """
    return -(k * (-probability).log1p()).expm1()


def pass_at_k_bound(pass_at_1: Tensor, k: int, weights: Tensor | None = None) -> Tensor:
    """The most that the mean pass@k can be, given mean and variance of pass@1 [problems]; a scalar.

    E[pass@k] <= 1 - ((1 - E[rho])^2 + Var(rho))^(k/2), rho the pass@1 of a problem, the variance the population's.
    Problems count alike, or by `weights` [problems] where their mean pass@k does.

    It says why a model that solves some problems always and others never gains little from more tries. By Jensen's
    inequality for x^(k/2), so for k >= 2 only: at k = 1 the formula lies below the mean. Raises ValueError there.

    Source: ProRL v1 arXiv 2505.24864v1, eq. 5, after Dang et al. arXiv 2504.10478.

    Pass@1 of 1/2 and 1: mean 3/4, variance 1/16, so 1 - (1/16 + 1/16)^1 at k = 2, where it equals the mean of 3/4 and
    1. Were both 3/4, it would be 1 - 1/16.

    >>> import torch
    >>> pass_at_k_bound(torch.tensor([0.5, 1.0]), 2).item(), pass_at_k_bound(torch.tensor([0.75, 0.75]), 2).item()
    (0.875, 0.9375)
    """
    if k < 2:
        raise ValueError(f"bound of pass@k: k={k}; it holds for k >= 2, and pass@1 is the mean itself")
    if weights is None:
        return 1 - ((1 - pass_at_1.mean()) ** 2 + pass_at_1.var(correction=0)) ** (k / 2)
    shares = weights / weights.sum()
    mean = (shares * pass_at_1).sum()
    return 1 - ((1 - mean) ** 2 + (shares * (pass_at_1 - mean) ** 2).sum()) ** (k / 2)
