"""Reward shaping: the cosine length term, which is on for some steps and off for others."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from megatron_rl.config import Algorithm, CosineLength


def shaped_rewards(rewards: Tensor, lengths: Tensor, *, limit: int, step: int, algorithm: Algorithm) -> Tensor:
    """The rewards [G, N] float64 that advantages are made of: R' = R + weight * eta(length) while the term is on.

    Right and wrong answers are shaped alike. Groups are chosen by the raw rewards, before this.

    Source: ProRL v2 blog, 2025-08-13 (the formula of the scheduled cosine length penalty).

    With eta from 0 down to -1, weight 0.5 and a limit of 8 tokens, a right answer of 4 tokens has
    eta = -1 + 0.5 * (1 + cos(pi/2)) = -0.5 and reward 1 - 0.25; a wrong one of 8 has eta = -1 and reward -0.5.

    >>> from recipes.prorl_v2 import RECIPE
    >>> rewards, lengths = torch.tensor([[1.0, 0.0]]), torch.tensor([[4, 8]])
    >>> shaped_rewards(rewards, lengths, limit=8, step=550, algorithm=RECIPE.algorithm).tolist()
    [[0.75, -0.5]]
    >>> shaped_rewards(rewards, lengths, limit=8, step=0, algorithm=RECIPE.algorithm).tolist()
    [[1.0, 0.0]]
    """
    rewards, term = rewards.double(), algorithm.length
    if term is None or not length_term_is_on(step, term):
        return rewards
    return rewards + term.weight * cosine_length_term(lengths, limit, term)


def cosine_length_term(lengths: Tensor, limit: int, term: CosineLength) -> Tensor:
    """eta(t) = eta_min + 0.5 (eta_max - eta_min) (1 + cos(pi t / T)), float64, for `lengths` t and T = `limit` tokens.

    eta_max for an empty response, eta_min for one as long as the limit.

    Source: ProRL v2 blog, 2025-08-13 (the formula of the scheduled cosine length penalty).

    cos(pi t / 12) at t = 0, 4, 6, 12 is 1, 1/2, 0, -1; half of one more than that is 1, 3/4, 1/2, 0.

    >>> term = CosineLength(eta_max=0.0, eta_min=-1.0, weight=0.5, steps_on=1, steps_off=1, starts_on=True)
    >>> [round(eta, 9) for eta in cosine_length_term(torch.tensor([0, 4, 6, 12]), 12, term).tolist()]
    [0.0, -0.25, -0.5, -1.0]
    """
    height = term.eta_max - term.eta_min
    return term.eta_min + 0.5 * height * (1 + torch.cos(math.pi * lengths.double() / limit))


def length_term_is_on(step: int, term: CosineLength) -> bool:
    """True in the steps of a cycle (`steps_on`, `steps_off`) in which the length term shapes the reward.

    Source: ProRL v2 blog, 2025-08-13: "for example" 100 on, 500 off; which comes first is not stated.

    >>> term = CosineLength(eta_max=0.0, eta_min=-1.0, weight=0.5, steps_on=2, steps_off=3, starts_on=False)
    >>> [step for step in range(12) if length_term_is_on(step, term)]
    [3, 4, 8, 9]
    """
    place = step % (term.steps_on + term.steps_off)
    return place < term.steps_on if term.starts_on else place >= term.steps_off
