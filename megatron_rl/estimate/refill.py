"""How many prompts a round tries: as many as let a step expect to find its groups soonest.

A round lasts as long as its longest response. More prompts than find the missing groups on average make another round
rare, and take time themselves; which costs less depends on lengths, engines and sizes, and a model of the round says.
Nothing here asks a clock: a resumed step tries as many prompts again, and so does every rank.

Not covered: that a keep rate changes from step to step by more than chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

LOWEST_KEEP_RATE = 0.25  # chosen: a round of bad luck may not make the next one enormous
MARGINS = (0.0, 1.0, 2.0, 3.0)  # chosen: standard deviations of the groups kept; three leave one round in a thousand
NUM_ROUNDS = 3  # chosen: that are looked ahead; what a fourth would still have to find is next to nothing
RARE = 1e-3  # chosen: a chance that is not looked into


def prompts_for_round(missing: int, keep_rate: float, seconds: Callable[[int], float]) -> int:
    """How many prompts to try for `missing` groups, when `keep_rate` of the last ones were kept, 0..1.

    `seconds` is what a round of so many prompts is expected to take. The rate is taken as 1/4 where it was lower. Of
    the sizes that find `missing` groups on average, or with one to three standard deviations to spare, the one by which
    the step ends soonest, later rounds included.

    Source: no paper says how a step is refilled; DAPO arXiv 2503.14476, section 3.2, only that it is. NeMo-RL's
    ProRL v2 configuration generates 1.5 times the prompts of a step.

    Where a round takes 100 seconds and a prompt next to none, a second round is avoided; where prompts take all of the
    time, none is tried in vain. At a rate of 1 nothing is left to chance.

    >>> prompts_for_round(64, 0.5, lambda num: 100 + 0.01 * num), prompts_for_round(64, 0.5, lambda num: float(num))
    (186, 128)
    >>> prompts_for_round(64, 1.0, lambda num: 100.0), prompts_for_round(1, 0.0, lambda num: float(num))
    (64, 4)
    """
    keep_rate = max(keep_rate, LOWEST_KEEP_RATE)
    smallest, *larger = sizes(missing, keep_rate)
    return _best(missing, keep_rate, seconds, NUM_ROUNDS)[0] if larger else smallest


def expected_seconds(
    missing: int, keep_rate: float, seconds: Callable[[int], float], num_prompts: Callable[[int], int]
) -> float:
    """Of all rounds of a step, where a round for so many missing groups tries `num_prompts` of them.

    Eight of which four are found each time take two rounds of four seconds.

    >>> expected_seconds(8, 1.0, lambda num: float(num), lambda missing: 4)
    8.0
    """
    return _expected(missing, keep_rate, seconds, num_prompts, NUM_ROUNDS)


def _expected(
    missing: int,
    keep_rate: float,
    seconds: Callable[[int], float],
    num_prompts: Callable[[int], int],
    num_rounds: int,
) -> float:
    tried = num_prompts(missing)
    chance, rest = shortage(tried, missing, keep_rate)
    if num_rounds == 1 or chance < RARE:
        return seconds(tried)
    return seconds(tried) + chance * _expected(rest, keep_rate, seconds, num_prompts, num_rounds - 1)


def _best(missing: int, keep_rate: float, seconds: Callable[[int], float], num_rounds: int) -> tuple[int, float]:
    """The best number of prompts, and the seconds that are expected of this round and the ones behind it."""
    best, least = 0, math.inf
    for tried in sizes(missing, keep_rate):
        expected = seconds(tried)
        chance, rest = shortage(tried, missing, keep_rate)
        if num_rounds > 1 and chance >= RARE:
            expected += chance * _best(rest, keep_rate, seconds, num_rounds - 1)[1]
        if expected >= least:
            break  # a larger one costs yet more
        best, least = tried, expected
    return best, least


def sizes(missing: int, keep_rate: float) -> list[int]:
    """The numbers of prompts of which `missing` groups are kept on average, and with each of MARGINS to spare.

    Half of 222 are 111, whose deviation is the root of 222 / 2, 10.5; of 270 there are 135 less three times 11.6.

    >>> sizes(100, 0.5)
    [200, 222, 245, 270]
    >>> sizes(100, 1.0)
    [100]
    """
    deviation = math.sqrt(variance(keep_rate))
    roots = [
        (margin * deviation + math.sqrt((margin * deviation) ** 2 + 4 * keep_rate * missing)) / (2 * keep_rate)
        for margin in MARGINS
    ]
    return sorted({math.ceil(root**2 - 1e-9) for root in roots})


def variance(keep_rate: float) -> float:
    """Of the groups kept, for each prompt tried: chance, and as much again, for a step as large told the rate."""
    return 2 * keep_rate * (1 - keep_rate)


def shortage(tried: int, missing: int, keep_rate: float) -> tuple[float, int]:
    """The chance that fewer than `missing` groups are kept, and how many are missing then, on average; 1 at least.

    By a normal distribution. Half of 20 prompts are 10; fewer than 10 are nearly as likely as 10 or more.

    >>> chance, rest = shortage(20, 10, 0.5)
    >>> round(chance, 2), rest
    (0.44, 3)
    """
    mean, deviation = tried * keep_rate, math.sqrt(tried * variance(keep_rate))
    if deviation == 0.0:
        return float(mean < missing), max(1, math.ceil(missing - mean))
    bound = (missing - 0.5 - mean) / deviation
    chance = NormalDist().cdf(bound)
    if chance < RARE:
        return chance, 1
    kept = mean - deviation * NormalDist().pdf(bound) / chance
    return chance, max(1, round(missing - kept))
