"""Dynamic sampling: which groups can teach something, and how many prompts to try for those that could not."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOWEST_KEEP_RATE = 0.25  # chosen: a first round of bad luck may not make the next one enormous


def is_informative(rewards: Tensor, judged: Tensor) -> Tensor:
    """True [G] for the groups whose raw rewards [G, N] differ among the judged samples: standard deviation above 0.

    In a uniform group every advantage is 0. Told by the extremes rather than by a computed deviation, which rounding
    makes positive for three rewards of 0.1.

    Source: ProRL v2 blog, 2025-08-13; DAPO arXiv 2503.14476, section 3.2. Both speak of 0/1
    rewards; for fractions this is the rule of NeMo-RL and verl.

    All right; one of two right; a spread that only an unjudged sample makes.

    >>> rewards = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    >>> judged = torch.tensor([[True, True, True], [True, True, False], [True, True, False]])
    >>> is_informative(rewards, judged).tolist()
    [False, True, False]
    """
    highest = rewards.masked_fill(~judged, -torch.inf).amax(1)
    lowest = rewards.masked_fill(~judged, torch.inf).amin(1)
    return highest > lowest


def prompts_for_next_round(missing: int, tried: int, kept: int, prompts_per_step: int) -> int:
    """How many prompts to try for `missing` more groups: missing / (kept / tried), rounded up.

    The rate is taken as 1/4 where it was lower, and a round is at most `prompts_per_step` and at least `missing`.

    Source: no paper says how a step is refilled; DAPO arXiv 2503.14476, section 3.2, only that it is.

    At a rate of 6 in 10, 4 missing groups need 4 / 0.6 = 6.7 prompts; at 0 in 10 they need 4 / 0.25.

    >>> [prompts_for_next_round(4, 10, kept, prompts_per_step) for kept, prompts_per_step in ((6, 99), (0, 99), (0, 9))]
    [7, 16, 9]
    """
    rate_is_low = kept < LOWEST_KEEP_RATE * tried
    needed = missing / LOWEST_KEEP_RATE if rate_is_low else missing * tried / max(kept, 1)
    return max(missing, min(math.ceil(needed), prompts_per_step))
