"""Which tokens of a pack each context-parallel rank has, as index algebra.

Every sequence is padded to a multiple of twice the ranks and cut into so many chunks of one size. Rank r has chunks r
and 2 x ranks - 1 - r, so that under a causal mask all have the same work: the partition of Transformer Engine's
`thd_get_partitioned_indices`, which Megatron's rotary embedding shares. A rank has its tokens sequence by sequence, in
the order of the pack. `starts` are cumulative lengths [sequences + 1] throughout.
"""

from __future__ import annotations

import torch
from torch import Tensor

from megatron_rl.config.context import sequence_multiple


def padded(starts: Tensor, degree: int) -> Tensor:
    """Where each sequence starts once all are padded for `degree` ranks.

    >>> padded(torch.tensor([0, 3, 4, 9]), 2).tolist()
    [0, 4, 8, 16]
    """
    lengths, multiple = starts.diff(), sequence_multiple(degree)
    taken = (lengths + multiple - 1) // multiple * multiple
    return torch.cat([starts.new_zeros(1), taken.cumsum(0, dtype=starts.dtype)])


def places(starts: Tensor, degree: int) -> Tensor:
    """Where each token of a pack lies in the padded pack [T].

    >>> places(torch.tensor([0, 3, 4, 6]), 2).tolist()
    [0, 1, 2, 4, 8, 9]
    """
    shifts = (padded(starts, degree) - starts)[:-1].long()
    return torch.arange(int(starts[-1])) + shifts.repeat_interleave(starts.diff().long())


def positions(starts: Tensor, degree: int, rank: int) -> Tensor:
    """The position, in its own sequence, of each token that a rank has of the padded pack [T / degree].

    >>> [positions(torch.tensor([0, 4, 12]), 2, rank).tolist() for rank in (0, 1)]
    [[0, 3, 0, 1, 6, 7], [1, 2, 2, 3, 4, 5]]
    """
    lengths = starts.diff().long() // degree
    first = lengths.cumsum(0) - lengths
    position = torch.arange(int(lengths.sum())) - first.repeat_interleave(lengths)
    if degree == 1:
        return position
    chunk = (lengths // 2).repeat_interleave(lengths)
    number = torch.where(position < chunk, rank, 2 * degree - 1 - rank)
    return number * chunk + position % chunk


def tokens(starts: Tensor, degree: int, rank: int) -> Tensor:
    """The place in the padded pack of each token that a rank has [T / degree].

    >>> [tokens(torch.tensor([0, 4, 12]), 2, rank).tolist() for rank in (0, 1)]
    [[0, 3, 4, 5, 10, 11], [1, 2, 6, 7, 8, 9]]
    """
    begin = starts[:-1].long().repeat_interleave(starts.diff().long() // degree)
    return begin + positions(starts, degree, rank)


def gathered(starts: Tensor, degree: int) -> Tensor:
    """Where each token of the padded pack lies in what all ranks have, one rank after the other [T].

    >>> gathered(torch.tensor([0, 4, 12]), 2).tolist()
    [0, 6, 7, 1, 2, 3, 8, 9, 10, 11, 4, 5]
    """
    order = torch.cat([tokens(starts, degree, rank) for rank in range(degree)])
    return torch.empty_like(order).index_copy(0, order, torch.arange(len(order)))
