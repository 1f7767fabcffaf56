"""Who answers what: groups cut into pieces, and the pieces shared out over the rollout engines.

The same on every rank, from what every rank knows: what an estimate simulates is what a rollout does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# chosen: samples that share a prefix, few enough to even out engines; an estimate says what they gain
LARGEST_PIECE = 32


class Piece(NamedTuple):
    """Samples of one prompt that are generated together and share its prefix."""

    group: int  # place of the prompt in its round
    first: int  # place of the first sample in its group
    num_samples: int


def pieces(num_groups: int, samples_per_group: int, largest: int) -> list[Piece]:
    """The groups in order, each cut into pieces of equal size, but for the last, of at most `largest` samples.

    >>> pieces(2, 5, 3)
    [Piece(group=0, first=0, num_samples=3), Piece(group=0, first=3, num_samples=2), Piece(group=1, first=0, \
num_samples=3), Piece(group=1, first=3, num_samples=2)]
    """
    return [
        Piece(group, first, min(largest, samples_per_group - first))
        for group in range(num_groups)
        for first in range(0, samples_per_group, largest)
    ]


def shared_out(expected: Sequence[float], num_engines: int) -> list[list[int]]:
    """For each engine the pieces it answers, in that order: the longest first, each to the engine with the least work.

    `expected` is the work of each piece, its samples times their expected tokens; of equal ones the earlier is first.
    The engine that ends last then does at most 4/3 of the best division's work.

    Source: Graham 1969, Bounds on multiprocessing timing anomalies, theorem 2.

    >>> shared_out([3.0, 5.0, 4.0, 4.0], 2)
    [[1, 0], [2, 3]]
    """
    work = [0.0] * num_engines
    shares: list[list[int]] = [[] for _ in range(num_engines)]
    for piece in sorted(range(len(expected)), key=lambda i: (-expected[i], i)):
        engine = work.index(min(work))
        shares[engine].append(piece)
        work[engine] += expected[piece]
    return shares
