"""Dynamic sampling: which groups can teach something, and how many prompts to try for those that could not."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOWEST_KEEP_RATE = 0.25  # chosen: a round of bad luck may not make the next one enormous
LARGEST_ROUND = 2  # chosen: times the prompts of a step; bounds what is held at once


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


def prompts_for_round(missing: int, keep_rate: float, prompts_per_step: int) -> int:
    """How many prompts to try for `missing` groups when `keep_rate` of the last ones were kept: missing / rate, up.

    The rate is taken as 1/4 where it was lower, and a round is at most twice `prompts_per_step`. More prompts than
    are missing cost less than one more round, which lasts as long as its longest response.

    Source: no paper says how a step is refilled; DAPO arXiv 2503.14476, section 3.2, only that it is. NeMo-RL's
    ProRL v2 configuration generates 1.5 times the prompts of a step.

    At a rate of 0.6, 4 missing groups need 4 / 0.6 = 6.7 prompts; at 0 they need 4 / 0.25, of which 2 * 6 are allowed.

    >>> prompts_for_round(4, 0.6, 99), prompts_for_round(4, 0.0, 99), prompts_for_round(4, 0.0, 6)
    (7, 16, 12)
    """
    needed = math.ceil(missing / max(keep_rate, LOWEST_KEEP_RATE) - 1e-9)
    return min(needed, LARGEST_ROUND * prompts_per_step)
