"""Which prompts are met more often than others: shares of domains, and chances by what was seen of a prompt before."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from megatron_rl.config.draws import Difficulty

if TYPE_CHECKING:
    import numpy as np

_TURN = 2**64
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: multiples of it fill the turn evenly
_BLOCK = 1 << 16  # serials that are shared out at once


def chance_of_meeting(rate: float | None, difficulty: Difficulty, samples_per_prompt: int) -> float:
    """Probability that a prompt of this pass rate is met when its turn comes; 1 where none is known.

    It is the probability that N samples, each right with probability `rate`, are neither all right nor all wrong, and
    never below `min_probability`. From `easy_rate` on it is `min_probability`. Sources: ScaleRL, arXiv 2510.13786,
    leaves out for good what has a pass rate of 0.9 or more; GRESO, arXiv 2506.02177, passes over by chance what had
    groups without a spread, and shows that they mostly stay so. chosen: this formula, and that nothing is left out for
    good. Where rewards are shares it is a guess: a group of equal shares has no spread either.

    >>> thinned = Difficulty(memory=0.5, easy_rate=0.9, min_probability=0.25)
    >>> [chance_of_meeting(rate, thinned, 2) for rate in (None, 0.0, 0.5, 0.75, 0.9, 1.0)]
    [1.0, 0.25, 0.5, 0.375, 0.25, 0.25]
    """
    if rate is None:
        return 1.0
    spread = 1.0 - rate**samples_per_prompt - (1.0 - rate) ** samples_per_prompt
    return difficulty.min_probability if rate >= difficulty.easy_rate else max(difficulty.min_probability, spread)


def is_met(seed: int, serial: int, chance: float) -> bool:
    """Whether the prompt at this place of the stream is met: a draw that follows from seed and place alone."""
    digest = hashlib.blake2b(f"meet:{seed}:{serial}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < chance * _TURN


def updated_rate(old: float | None, found: float, difficulty: Difficulty) -> float:
    """A prompt's running pass rate after a group with the mean reward `found`.

    >>> updated_rate(None, 0.5, Difficulty(memory=0.75, easy_rate=0.9, min_probability=0.25))
    0.5
    >>> updated_rate(0.5, 1.0, Difficulty(memory=0.75, easy_rate=0.9, min_probability=0.25))
    0.625
    """
    return found if old is None else difficulty.memory * old + (1.0 - difficulty.memory) * found


class Shares:
    """Which domain each place of a stream is of: as many as its weight says, to within a few, in any stretch.

    Place n is at n golden ratios of a turn, from where the seed says, and a domain has the part of the turn that its
    weight is of all. The result follows from seed, weights and names alone.
    """

    def __init__(self, weights: Mapping[str, float], seed: int) -> None:
        import numpy as np  # as late as this, for `check` reads prompts, too

        self.names = sorted(weights)
        parts = [Fraction(weights[name]) for name in self.names]
        ends = [int(_TURN * end / sum(parts)) for end in accumulate(parts)][:-1]  # the last one's is the turn's
        self._ends = np.array(ends, dtype=np.uint64)
        start = hashlib.blake2b(f"domains:{seed}".encode(), digest_size=8).digest()
        self._start = int.from_bytes(start, "little")
        self._before: list[np.ndarray[Any, Any]] = [np.zeros(len(parts), dtype=np.int64)]  # counts before each block
        self._block, self._domains = -1, np.zeros(0, dtype=np.int64)

    def at(self, place: int) -> tuple[str, int]:
        """The domain of a place, and how many places before it are of the same."""
        import numpy as np

        number, rest = divmod(place, _BLOCK)
        while len(self._before) <= number:
            counts = np.bincount(self._of_block(len(self._before) - 1), minlength=len(self.names))
            self._before.append(self._before[-1] + counts)
        domains = self._of_block(number)
        domain = int(domains[rest])
        return self.names[domain], int(self._before[number][domain] + np.count_nonzero(domains[:rest] == domain))

    def _of_block(self, number: int) -> np.ndarray[Any, Any]:
        import numpy as np

        if number != self._block:
            first = (self._start + number * _BLOCK * _GOLDEN) % _TURN
            turns = np.uint64(first) + np.arange(_BLOCK, dtype=np.uint64) * np.uint64(_GOLDEN)  # modulo 2^64
            self._block, self._domains = number, np.searchsorted(self._ends, turns, side="right")
        return self._domains


def rates_of(prompts: Sequence[str], rewards: Any, judged: Any) -> dict[str, float]:
    """Mean reward of the judged samples of each group, by the id of its prompt; those without any are left out.

    `rewards` and `judged` are tensors [G, N]. Of a prompt that was met twice the later group counts.
    """
    found: dict[str, float] = {}
    for name, row, is_judged in zip(prompts, rewards.tolist(), judged.tolist(), strict=True):
        known = [reward for reward, counts in zip(row, is_judged, strict=True) if counts]
        if known:
            found[name] = sum(known) / len(known)
    return found
