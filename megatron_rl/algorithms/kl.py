"""Estimators of the distance between the policy and its reference, token by token."""

from __future__ import annotations

import torch
from torch import Tensor

from megatron_rl.algorithms.ratios import with_finite_ratio
from megatron_rl.config.records import Kl


def kl_estimate(logprobs: Tensor, reference_logprobs: Tensor, kl: Kl) -> Tensor:
    """The estimate [T] in nats of KL(pi || pi_ref) from tokens of the current policy pi.

    With d = clamp(log(pi_ref / pi), +-log_ratio_clamp), and the result cut to +-value_clamp where there is one:

    k1  -d                gradient grad log pi: averages to 0, no constraint where it is a loss
    k2  d^2 / 2           gradient -d grad log pi, which averages to that of KL(pi || pi_ref)
    k3  exp(d) - 1 - d    gradient (1 - exp(d)) grad log pi, which averages to that of KL(pi_ref || pi)

    None needs a score-function term here; it would make k2 wrong. A token beyond a clamp pulls no more.

    Source: REINFORCE++ arXiv 2501.03262v9, eq. 8 and section 3.2; ProRL v2 blog, 2025-08-13, for k2 and the clamp of
    10. The blog prints pi_old where this has pi; pi_old carries no gradient, and the paper has pi. k3 with clamps of
    20 and 10 is verl's low_var_kl, for ProRL v1.

    Log-ratios 0, -2 and 20, the last clamped to 10. k2: 0, 4 / 2 and 100 / 2. k3: 0, exp(-2) + 1 and exp(10) - 11,
    which the value clamp makes 10.

    >>> policy, reference = torch.tensor([-1.0, -1.0, -21.0]), torch.tensor([-1.0, -3.0, -1.0])
    >>> def of(estimator, value_clamp):
    ...     kl = Kl(estimator=estimator, coefficient=1.0, log_ratio_clamp=10.0, value_clamp=value_clamp, place="loss")
    ...     return [round(value, 4) for value in kl_estimate(policy, reference, kl).tolist()]
    >>> of("k1", None)[1:], of("k2", None), of("k3", 10.0)
    ([2.0, -10.0], [0.0, 2.0, 50.0], [0.0, 1.1353, 10.0])
    """
    log_ratio = (reference_logprobs - logprobs).clamp(-kl.log_ratio_clamp, kl.log_ratio_clamp)
    if kl.estimator == "k1":
        estimate = -log_ratio
    elif kl.estimator == "k2":
        estimate = 0.5 * log_ratio.square()
    else:
        estimate = with_finite_ratio(log_ratio).expm1() - log_ratio
    return estimate if kl.value_clamp is None else estimate.clamp(-kl.value_clamp, kl.value_clamp)


@torch.no_grad()
def kl_per_sequence(estimates: Tensor, weights: Tensor, sequences: Tensor, num_sequences: int) -> Tensor:
    """Sum [S] float64 of the weighted `estimates` [T] over the tokens of each sequence, 0 for one without tokens.

    `sequences` [T] are rows of the step's table, so that the sums of packs and ranks add up. Times the coefficient,
    it is what `place="reward"` takes off the reward of a response.

    Source: REINFORCE++ arXiv 2501.03262v9, eq. 4-5: with gamma = 1 the first token's return holds the whole sum.

    >>> kl_per_sequence(torch.tensor([1., 2., 4., 9.]), torch.tensor([1., 1., 1., 0.]), torch.tensor([2, 2, 0, 0]), 3)
    tensor([4., 0., 3.], dtype=torch.float64)
    """
    sums = torch.zeros(num_sequences, dtype=torch.float64, device=estimates.device)
    return sums.index_add_(0, sequences, torch.where(weights > 0, estimates, 0).double() * weights)
