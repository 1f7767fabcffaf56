"""Advantages: how much better than the other answers to its prompt a response was."""

from __future__ import annotations

from torch import Tensor

from megatron_rl.config.records import Algorithm
from megatron_rl.types import Columns

EPSILON = 1e-8  # REINFORCE++ eq. 7 names it without a value; no spread then gives zeros, not noise


def advantages(rewards: Tensor, groups: Columns, algorithm: Algorithm) -> Tensor:
    """Advantages [G, N] float64 of `rewards` [G, N], each for every token of its response.

    With R~ = R - mean over the group, `algorithm.advantage` says

    group_mean_and_std     A = R~ / (std over the group + 1e-8)                                GRPO, ProRL v1
    group_mean_then_batch  A = (R~ - mean over the batch) / (std over the batch + 1e-8)        ProRL v2, BroRL
    leave_one_out          A = R - mean over the others of the group = R~ n / (n - 1)          RLOO
    group_mean             A = R~                                                              Dr. GRPO

    The batch is all groups of the step, so that nothing depends on the layout. Its statistics count each sample once
    (`statistics_over="samples"`, as the papers write) or once per token of its length (`"tokens"`, as OpenRLHF,
    NeMo-RL and verl do, which lets long answers weigh more). Standard deviations are the population's; verl divides
    a group's by n - 1, which makes all advantages smaller by one factor.

    Only the judged samples of `groups` enter a statistic; the others get 0. So do all of a group with fewer than two
    judged samples: there is nothing to compare with.

    Source: ProRL v1 arXiv 2505.24864v1, eq. 2; REINFORCE++ arXiv 2501.03262v9, eq. 6-7, App. B.2; ProRL v2 blog,
    2025-08-13; RLOO arXiv 2402.14740; Dr. GRPO arXiv 2503.20783, section 3.2. The advantage goes to every token
    (REINFORCE++ eq. 4), not to the last one only (App. B.2).

    >>> import dataclasses, torch
    >>> from recipes.prorl_v2 import RECIPE
    >>> rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0]])
    >>> groups = Columns(**Columns.tables(4, outcomes=[0, 0, 1, 1, 0, 0, 0, 0], lengths=[7] * 8))
    >>> def of(kind):
    ...     algorithm = dataclasses.replace(RECIPE.algorithm, advantage=kind)
    ...     return advantages(rewards, groups, algorithm).mul(1e4).round().div(1e4).tolist()

    The group means are 1/2 (of two judged) and 3/4, so R~ is (1/2, -1/2) and (1/4, -3/4, 1/4, 1/4). Its mean is 0, its
    variance (2/4 + 3/16 + 9/16) / 6 = 5/24, its standard deviation 0.4564.

    >>> of("group_mean_then_batch")
    [[1.0954, -1.0954, 0.0, 0.0], [0.5477, -1.6432, 0.5477, 0.5477]]

    The groups' own deviations are 1/2 and sqrt(3)/4 = 0.4330; and n / (n - 1) is 2 and 4/3.

    >>> of("group_mean_and_std")
    [[1.0, -1.0, 0.0, 0.0], [0.5774, -1.7321, 0.5774, 0.5774]]
    >>> of("leave_one_out"), of("group_mean")[1]
    ([[1.0, -1.0, 0.0, 0.0], [0.3333, -1.0, 0.3333, 0.3333]], [0.25, -0.75, 0.25, 0.25])
    """
    num_judged = groups.judged.sum(1, keepdim=True)
    judged = groups.judged & (num_judged >= 2)
    counted, sizes = judged.double(), num_judged.clamp(min=2).double()
    # An unjudged reward may be anything; it must not reach a sum.
    rewards = rewards.double().masked_fill(~judged, 0)
    centred = (rewards - rewards.sum(1, keepdim=True) / sizes).masked_fill(~judged, 0)
    if algorithm.advantage == "group_mean":
        return centred
    if algorithm.advantage == "leave_one_out":
        return centred * sizes / (sizes - 1)
    if algorithm.advantage == "group_mean_and_std":
        return centred / ((centred.square().sum(1, keepdim=True) / sizes).sqrt() + EPSILON)
    weights = counted * groups.lengths if algorithm.statistics_over == "tokens" else counted
    total = weights.sum().clamp(min=1)
    offsets = centred - (centred * weights).sum() / total
    std = ((offsets.square() * weights).sum() / total).sqrt()
    return (offsets / (std + EPSILON)).masked_fill(~judged, 0)
