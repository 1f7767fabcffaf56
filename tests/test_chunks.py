"""Context-parallel ranks share out a pack as Transformer Engine does: each token once, all ranks alike."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from megatron_rl import chunks

DEGREES = (1, 2, 3, 4, 8)


def lengths_of(seed: int) -> list[int]:
    """Ragged sequences, many shorter than the chunks of all ranks together."""
    draw = random.Random(seed)
    return [draw.choice([1, 2, 3, draw.randrange(1, 70)]) for _ in range(draw.randrange(1, 9))]


def starts_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)


def written_out(lengths: list[int], degree: int, rank: int) -> tuple[list[int], list[int]]:
    """The oracle: (places in the padded pack, positions in the sequence) of a rank, chunk by chunk."""
    found_places, found_positions, start = [], [], 0
    for length in lengths:
        taken = next(size for size in itertools.count(length) if degree == 1 or size % (2 * degree) == 0)
        cuts = [list(range(taken))] if degree == 1 else [[] for _ in range(2 * degree)]
        for position in range(taken if degree > 1 else 0):
            cuts[position * 2 * degree // taken].append(position)
        own = cuts[0] if degree == 1 else cuts[rank] + cuts[2 * degree - 1 - rank]
        found_positions += own
        found_places += [start + position for position in own]
        start += taken
    return found_places, found_positions


def as_transformer_engine(starts: list[int], degree: int, rank: int) -> list[int]:
    """What `thd_get_partitioned_indices` gives a rank, token by token (Transformer Engine 2.16, thread after thread of
    common/fused_attn/context_parallel.cu): a chunk of each sequence, then the one that mirrors it.
    """
    assert all((end - start) % (2 * degree) == 0 for start, end in itertools.pairwise(starts))
    own_starts, indices = [start // degree for start in starts], []
    for token in range(own_starts[-1]):
        sequence = max(i for i in range(len(starts) - 1) if own_starts[i] <= token)
        own_length, index = own_starts[sequence + 1] - own_starts[sequence], token - own_starts[sequence]
        offset = rank if index < own_length // 2 else 2 * (degree - 1) - rank
        indices.append(own_starts[sequence] * degree + own_length // 2 * offset + index)
    return indices


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("seed", range(4))
def test_a_rank_has_the_chunks_that_are_written_out(degree: int, seed: int) -> None:
    lengths = lengths_of(seed)
    starts = chunks.padded(starts_of(lengths), degree)
    for rank in range(degree):
        places, positions = written_out(lengths, degree, rank)
        assert chunks.tokens(starts, degree, rank).tolist() == places
        assert chunks.positions(starts, degree, rank).tolist() == positions


@pytest.mark.parametrize("degree", DEGREES[1:])
@pytest.mark.parametrize("seed", range(4))
def test_a_rank_has_what_transformer_engine_gives_it(degree: int, seed: int) -> None:
    starts = chunks.padded(starts_of(lengths_of(seed)), degree)
    for rank in range(degree):
        expected = as_transformer_engine(starts.tolist(), degree, rank)
        assert chunks.tokens(starts, degree, rank).tolist() == expected


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("seed", range(4))
def test_what_all_ranks_have_is_the_pack(degree: int, seed: int) -> None:
    starts = starts_of(lengths_of(seed))
    wide = chunks.padded(starts, degree)
    assert wide.dtype == torch.int32 and len(wide) == len(starts)
    parts = [chunks.tokens(wide, degree, rank) for rank in range(degree)]
    assert len({len(part) for part in parts}) == 1, "ranks would wait for each other"
    everything = torch.cat(parts)
    assert sorted(everything.tolist()) == list(range(int(wide[-1])))
    assert torch.equal(everything[chunks.gathered(wide, degree)], torch.arange(int(wide[-1])))
    places = chunks.places(starts, degree).tolist()
    assert len(set(places)) == int(starts[-1])
    for sequence, (start, end) in enumerate(itertools.pairwise(starts.tolist())):
        assert places[start:end] == list(range(int(wide[sequence]), int(wide[sequence]) + end - start))


@pytest.mark.parametrize("degree", DEGREES[1:])
def test_ranks_have_the_same_number_of_scores_under_a_causal_mask(degree: int) -> None:
    starts = chunks.padded(starts_of(lengths_of(5)), degree)
    work = {int((chunks.positions(starts, degree, rank) + 1).sum()) for rank in range(degree)}
    assert len(work) == 1
