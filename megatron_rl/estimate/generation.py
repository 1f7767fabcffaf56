"""How long a round of generation takes: an event simulation of engines that decode many responses at once.

A decoding step of an engine takes `step_seconds`, and for each response under way `sequence_seconds`, and for each
token of their contexts `token_seconds`, which is the time to read its keys and values. A response that ends makes room
for the next one. Not covered: prefills that delay decoding, a cache that is too small for what is in flight.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from megatron_rl.estimate.sharing import pieces, shared_out


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """What one decoding step of an engine costs."""

    step_seconds: float
    sequence_seconds: float  # for each response under way
    token_seconds: float  # for each token of their contexts
    prefill_token_seconds: float  # for each token of a prompt, once for the samples that share it


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Response lengths: lognormal by prompt, and lognormal within a prompt; cut off at the limit."""

    median_tokens: float
    sigma_of_prompts: float  # standard deviation of the logarithm of the prompts' medians
    sigma_within: float  # and of a prompt's responses around its median

    def draw(self, num_groups: int, samples_per_group: int, limit: int, seed: int) -> list[list[int]]:
        """Lengths in tokens [G][N], each in 1..limit."""
        source = random.Random(seed)
        groups = []
        for _ in range(num_groups):
            centre = math.log(self.median_tokens) + source.gauss(0.0, self.sigma_of_prompts)
            drawn = (math.exp(centre + source.gauss(0.0, self.sigma_within)) for _ in range(samples_per_group))
            groups.append([max(1, min(limit, round(tokens))) for tokens in drawn])
        return groups


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a round of generation came to."""

    engine_seconds: tuple[float, ...]  # when each engine had ended
    num_samples: int
    num_tokens: int

    @property
    def seconds(self) -> float:
        """Until the last engine has ended."""
        return max(self.engine_seconds, default=0.0)

    @property
    def idle_seconds(self) -> float:
        """What an engine waits for the last one, on average."""
        return self.seconds - sum(self.engine_seconds) / max(1, len(self.engine_seconds))


def decode_seconds(requests: Sequence[tuple[int, int]], slots: int, cost: Decoding) -> float:
    """Seconds that an engine takes for (prompt tokens, response tokens) in order, at most `slots` at a time.

    Two responses of 2 and 4 tokens to prompts of 10 side by side: four steps, two of them with both; contexts are read
    of 10 + 10, 11 + 11, then 12 and 13 tokens.

    >>> cost = Decoding(step_seconds=100.0, sequence_seconds=10.0, token_seconds=1.0, prefill_token_seconds=0.0)
    >>> decode_seconds([(10, 2), (10, 4)], 2, cost)  # 4 x 100 + (2 + 2 + 1 + 1) x 10 + 20 + 22 + 12 + 13
    527.0
    >>> decode_seconds([(10, 2), (10, 4)], 1, cost)  # 6 x 100 + 6 x 10 + 10 + 11 + 10 + 11 + 12 + 13
    727.0
    """
    waiting = iter(requests)
    running: list[tuple[int, int]] = []  # (step after which it ends, its context then), soonest first
    step, context, seconds, more = 0, 0, 0.0, True
    while True:
        while more and len(running) < slots:
            if (request := next(waiting, None)) is None:
                more = False
                break
            heapq.heappush(running, (step + request[1], sum(request)))
            context += request[0]
        if not running:
            return seconds
        ends, active = running[0][0], len(running)
        steps = ends - step
        read = steps * context + active * steps * (steps - 1) // 2
        seconds += steps * (cost.step_seconds + active * cost.sequence_seconds) + read * cost.token_seconds
        context += active * steps
        step = ends
        while running and running[0][0] == ends:
            context -= heapq.heappop(running)[1]


def simulate(
    lengths: Sequence[Sequence[int]],
    *,
    prompt_tokens: int,
    num_engines: int,
    slots: int,
    cost: Decoding,
    largest_piece: int | None,
) -> Round:
    """A round over engines that share out pieces of at most `largest_piece` samples, or whole groups in turn for None.

    Pieces are shared out without knowledge of their lengths, as at the start of a run.
    """
    samples = len(lengths[0]) if lengths else 0
    cut = pieces(len(lengths), samples, largest_piece or max(1, samples))
    if largest_piece is None:
        shares = [list(range(engine, len(cut), num_engines)) for engine in range(num_engines)]
    else:
        shares = shared_out([float(piece.num_samples) for piece in cut], num_engines)
    seconds = []
    for share in shares:
        asked = [
            (prompt_tokens, lengths[cut[i].group][cut[i].first + j]) for i in share for j in range(cut[i].num_samples)
        ]
        prefills = len(share) * prompt_tokens * cost.prefill_token_seconds
        seconds.append(prefills + decode_seconds(asked, slots, cost))
    return Round(
        engine_seconds=tuple(seconds),
        num_samples=sum(map(len, lengths)),
        num_tokens=sum(map(sum, lengths)),
    )
