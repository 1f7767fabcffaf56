"""Reward shaping: what truncated and long responses are paid, after groups were chosen by the raw rewards."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from megatron_rl.config.records import CosineLength, FormatReward, Overlong, Recipe, Truncation
from megatron_rl.types import Columns


def shaped_rewards(groups: Columns, recipe: Recipe, step: int) -> Tensor:
    """The rewards [G, N] float64 that advantages are made of, from the raw ones of `groups`, in this order:

    0. format: the scores become those of `format_reward`, where there is one;
    1. truncation: a response that ran into the limit has its reward multiplied or replaced;
    2. overlong: or instead, one near the limit loses something (the two are never set together);
    3. length: while the term is on, R' = R + weight * eta(length), right and wrong answers alike, or by two cosines.

    Source: ProRL v2 blog, 2025-08-13 (cosine length); ProRL v1 arXiv 2505.24864v1, App. E (penalty for not stopping);
    NeMo-RL for the order, and for leaving overlong out where truncation is set.

    With eta from 0 down to -1, weight 0.5 and a limit of 8 tokens, a right answer of 4 tokens has
    eta = -1 + 0.5 * (1 + cos(pi/2)) = -0.5 and reward 1 - 0.25; a right one cut off at 8 that truncation paid nothing
    has eta = -1 and reward -0.5.

    >>> from dataclasses import replace
    >>> from recipes.prorl_v2 import RECIPE
    >>> cut = replace(RECIPE.algorithm, truncation=Truncation(how="multiply", value=0.0))
    >>> recipe = replace(RECIPE, algorithm=cut, sampling=replace(RECIPE.sampling, max_response_tokens=8))
    >>> groups = Columns(**Columns.tables(2, rewards=[1, 1], lengths=[4, 8], truncated=[False, True]))
    >>> shaped_rewards(groups, recipe, 550).tolist(), shaped_rewards(groups, recipe, 0).tolist()
    ([[0.75, -0.5]], [[1.0, 0.0]])
    """
    algorithm, limit = recipe.algorithm, recipe.sampling.max_response_tokens
    rewards, lengths, term = groups.rewards.double(), groups.lengths, algorithm.length
    if algorithm.format_reward is not None:
        rewards = format_rewards(rewards, groups.unanswered, algorithm.format_reward)
    if algorithm.truncation is not None:
        rewards = truncated_rewards(rewards, groups.truncated, algorithm.truncation)
    elif algorithm.overlong is not None:
        rewards = rewards - overlong_penalty(lengths, limit, algorithm.overlong)
    if term is not None and length_term_is_on(step, term):
        rewards = rewards + term.weight * length_etas(groups, limit, term)
    return rewards


def format_rewards(rewards: Tensor, unanswered: Tensor, paid: FormatReward) -> Tensor:
    """The scores [G, N] as 1 for right, `paid.wrong` for wrong, in between for a share, and what `unanswered` ones get.

    Source: ProRL v2 blog, 2025-08-13, whose examples are 0 / 1 / -0.5 and -1 / 1 / -0.5 for wrong, right and badly
    formatted. Among answered responses the second is 2 R - 1 of the first: the group mean takes the 1 away and a
    standard deviation the 2, so that the advantages are the same. Where some are unanswered they are not: those are the
    worst of the first scheme, and better than a wrong answer in the second.

    >>> rewards, unanswered = torch.tensor([[1.0, 0.5, 0.0, 0.0]]), torch.tensor([[False, False, False, True]])
    >>> format_rewards(rewards, unanswered, FormatReward(wrong=0.0, unanswered=-0.5)).tolist()
    [[1.0, 0.5, 0.0, -0.5]]
    >>> format_rewards(rewards, unanswered, FormatReward(wrong=-1.0, unanswered=-0.5)).tolist()
    [[1.0, 0.0, -1.0, -0.5]]
    """
    return torch.where(unanswered, paid.unanswered, paid.wrong + (1 - paid.wrong) * rewards)


def length_etas(groups: Columns, limit: int, term: CosineLength) -> Tensor:
    """eta [G, N] float64 of each response: `cosine_length_term`, or that of wrong answers where `term.wrong` is given.

    Wrong is what has less than the full raw reward. A response that was cut off gets `eta_beyond`, whatever it earned.

    Source: arXiv 2502.03373, which the ProRL v2 blog links: right answers 2 to 1, wrong ones -10 to 0, exceeding -10.

    A limit of 12: a right answer of 6 tokens has 1 + 1/2, a wrong one -10 + 10/2, and one that was cut off -10.

    >>> from megatron_rl.config.records import WrongLength
    >>> wrong = WrongLength(eta_at_zero=-10.0, eta_at_limit=0.0, eta_beyond=-10.0)
    >>> term = CosineLength(eta_max=2.0, eta_min=1.0, weight=0.5, steps_on=1, steps_off=1, starts_on=True, wrong=wrong)
    >>> table = Columns.tables(3, rewards=[1, 0, 1], lengths=[6, 6, 12], truncated=[False, False, True])
    >>> [round(eta, 9) for eta in length_etas(Columns(**table), 12, term)[0].tolist()]
    [1.5, -5.0, -10.0]
    """
    right = cosine_length_term(groups.lengths, limit, term)
    if term.wrong is None:
        return right
    wrong_term = replace(term, eta_max=term.wrong.eta_at_zero, eta_min=term.wrong.eta_at_limit)
    eta = torch.where(groups.rewards >= 1, right, cosine_length_term(groups.lengths, limit, wrong_term))
    return torch.where(groups.truncated, term.wrong.eta_beyond, eta)


def truncated_rewards(rewards: Tensor, truncated: Tensor, truncation: Truncation) -> Tensor:
    """The rewards [G, N] with those of `truncated` [G, N] responses multiplied by, or replaced with, the value.

    Source: OpenRLHF and NeMo-RL, `stop_properly` of their ProRL v2 configurations (a factor; OpenRLHF replaces the
    reward by a negative one); a factor of 0 is DLER, arXiv 2510.15110v1. ProRL v1 arXiv 2505.24864v1, App. E, has such
    a penalty in Runs 4 and 5 without its value.

    >>> rewards, truncated = torch.tensor([[1.0, 0.5, 0.0]]), torch.tensor([[False, True, True]])
    >>> truncated_rewards(rewards, truncated, Truncation(how="multiply", value=0.5)).tolist()
    [[1.0, 0.25, 0.0]]
    >>> truncated_rewards(rewards, truncated, Truncation(how="replace", value=-0.5)).tolist()
    [[1.0, -0.5, -0.5]]
    """
    changed = rewards * truncation.value if truncation.how == "multiply" else torch.full_like(rewards, truncation.value)
    return torch.where(truncated, changed, rewards)


def overlong_penalty(lengths: Tensor, limit: int, overlong: Overlong) -> Tensor:
    """What a response of each of `lengths` loses, float64: 0 before the buffer, then linearly up to `factor`.

    min(max(length - (limit - buffer), 0), buffer) / buffer * factor. The excess is cut at the buffer, as OpenRLHF
    does and NeMo-RL and verl do not, which matters only for a response beyond the limit.

    Source: DAPO arXiv 2503.14476, section 3.4.

    A limit of 10 with a buffer of 4: the penalty starts after 6 tokens.

    >>> overlong_penalty(torch.tensor([6, 7, 10, 99]), 10, Overlong(buffer_tokens=4, factor=2.0)).tolist()
    [0.0, 0.5, 2.0, 2.0]
    """
    excess = (lengths.double() - (limit - overlong.buffer_tokens)).clamp(0, overlong.buffer_tokens)
    return excess / overlong.buffer_tokens * overlong.factor


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
