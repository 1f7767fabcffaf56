"""Packing loses no token, invents none, and what an update has does not depend on the layout."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron_rl.actor.pack import TOKEN_FIELDS, Limits, fill, joined, pack, share_out
from megatron_rl.runtime import parallel
from megatron_rl.runtime.parallel import Ranks
from megatron_rl.types import Batch, Groups, Pack, Prompt
from recipes.prorl_v2 import RECIPE
from tests.samples import by_row, groups_of, sample_of

LONGEST_PROMPT, LONGEST_RESPONSE = 20, 30
LOOSE = Limits(max_tokens=200, multiple=1, packs_multiple=1, one_length=False)


@dataclass(frozen=True)
class World:
    """A layout; `engine_size` is the rollout engines' tensor parallelism."""

    tensor: int = 1
    context: int = 1
    data: int = 1
    pipeline: int = 1
    engine_size: int = 1

    @property
    def size(self) -> int:
        return self.tensor * self.context * self.data * self.pipeline

    def ranks(self, rank: int) -> Ranks:
        return Ranks(
            rank=rank,
            world=self.size,
            tensor=rank % self.tensor,
            context=rank // self.tensor % self.context,
            data=rank // (self.tensor * self.context) % self.data,
            pipeline=rank // (self.tensor * self.context * self.data),
            tensor_parallel=self.tensor,
            pipeline_parallel=self.pipeline,
            data_parallel=self.data,
            context_parallel=self.context,
            engine=rank // self.engine_size,
            engine_rank=rank % self.engine_size,
            engine_size=self.engine_size,
            is_first_of_machine=True,
        )


WORLDS = [
    World(),
    World(data=2),
    World(data=3),
    World(tensor=2, data=2),
    World(data=2, pipeline=2),
    World(tensor=2, pipeline=2, engine_size=2),
    World(data=4, engine_size=2),
    World(context=2, data=2),
    World(tensor=2, context=2, engine_size=2),
]


def random_groups(seed: int, num_groups: int | None = None) -> Groups:
    """Groups of any size down to nothing, some samples unjudged, all tokens at hand."""
    draw = random.Random(seed)
    num_groups = draw.randrange(1, 10) if num_groups is None else num_groups
    num_samples = draw.randrange(2, 7)
    prompts, samples = [], {}
    for group in range(num_groups):
        tokens = random_tokens(draw, LONGEST_PROMPT)
        prompts.append(
            Prompt(serial=group, id=str(group), domain="math", token_ids=tokens, opens_thought=False, item={})
        )
        samples[group] = tuple(
            sample_of(tokens := random_tokens(draw, LONGEST_RESPONSE), [-draw.random() * 4 for _ in tokens])
            for _ in range(num_samples)
        )
    rows = by_row(samples)
    # Dynamic sampling keeps no group without a judged sample.
    judged = [j == 0 or draw.random() < 0.8 for _ in range(num_groups) for j in range(num_samples)]
    return groups_of(
        prompts,
        rows,
        num_samples,
        outcomes=[int(not is_judged) for is_judged in judged],
        lengths=[len(rows[row].token_ids) for row in range(len(rows))],
    )


def random_tokens(draw: random.Random, longest: int) -> tuple[int, ...]:
    return tuple(draw.randrange(1, 1000) for _ in range(draw.randrange(1, longest + 1)))


def share_of(groups: Groups, world: World, ranks: Ranks) -> Groups:
    """What one rank knows: all numbers, and the tokens its own engine made."""
    shape = groups.lengths.shape
    owners = torch.arange(shape.numel()).view(shape) // 2 % (world.size // world.engine_size)  # groups span engines
    samples = {row: made for row, made in groups.samples.items() if int(owners.flatten()[row]) == ranks.engine}
    return dataclasses.replace(groups, owners=owners, samples=samples)


def packed(
    monkeypatch: pytest.MonkeyPatch,
    groups: Groups,
    world: World,
    num_updates: int = 2,
    limits: Limits = LOOSE,
    aggregation: str = "token_mean",
) -> list[Batch]:
    """The batch of every rank: one thread each, and an exchange in memory where the wires would be."""
    algorithm: Any = dataclasses.replace(RECIPE.algorithm, updates_per_step=num_updates, loss_aggregation=aggregation)
    here, meeting = threading.local(), threading.Barrier(world.size, timeout=10)
    outbox: list[list[Tensor]] = [[] for _ in range(world.size)]
    found: list[Any] = [None] * world.size

    def exchange(outgoing: list[Tensor], incoming_sizes: list[int]) -> list[Tensor]:
        assert len(outgoing) == len(incoming_sizes) == world.size
        assert {part.dtype for part in outgoing} == {torch.int32}
        outbox[here.rank] = outgoing
        meeting.wait()
        incoming = [outbox[sender][here.rank] for sender in range(world.size)]
        assert [len(part) for part in incoming] == incoming_sizes, "a rank expects what is not sent"
        return incoming

    def one_rank(rank: int) -> None:
        here.rank = rank
        ranks = world.ranks(rank)
        try:
            found[rank] = pack(share_of(groups, world, ranks), ranks, algorithm, limits)
        except BaseException as error:
            found[rank] = error
            meeting.abort()

    monkeypatch.setattr(parallel, "exchange", exchange)
    threads = [threading.Thread(target=one_rank, args=[rank]) for rank in range(world.size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [one for one in found if isinstance(one, BaseException)]
    # The others then fail at the meeting, which says less.
    for error in sorted(errors, key=lambda one: isinstance(one, threading.BrokenBarrierError)):
        raise error
    return found


def one_per_replica(batches: list[Batch], world: World) -> list[Batch]:
    return [batches[replica * world.tensor * world.context] for replica in range(world.data)]


def segments(pack: Pack) -> Iterator[tuple[int, slice]]:
    """(row, place) of every sequence of a pack that trains something; the rest is padding."""
    ends = pack.cumulative_lengths.tolist()
    for start, end in zip(ends, ends[1:], strict=False):
        if pack.response_mask[start:end].any():
            yield int(pack.sequences[start]), slice(start, end)


def rows_of(packs: tuple[Pack, ...]) -> list[int]:
    return [row for pack in packs for row, _ in segments(pack)]


@pytest.mark.parametrize("world", WORLDS, ids=str)
@pytest.mark.parametrize("seed", range(12))
def test_every_judged_response_token_is_trained_on_once(
    monkeypatch: pytest.MonkeyPatch, world: World, seed: int
) -> None:
    draw = random.Random(1000 + seed)
    groups = random_groups(seed)
    limits = Limits(
        max_tokens=draw.randrange(LONGEST_PROMPT + LONGEST_RESPONSE, 160),
        multiple=draw.choice([1, 2, 4]),
        packs_multiple=draw.choice([1, 2]),
        one_length=draw.random() < 0.5,
    )
    batches = packed(monkeypatch, groups, world, draw.randrange(1, 5), limits)
    num_samples = groups.lengths.shape[1]
    seen = []
    for batch in one_per_replica(batches, world):
        for one in batch.packs:
            for row, place in segments(one):
                seen.append(row)
                prompt = groups.prompts[row // num_samples].token_ids
                sample = groups.samples[row]
                response = torch.tensor(sample.token_ids)
                is_trained = one.response_mask[place] > 0
                assert one.token_ids[place].tolist() == [*prompt, *sample.token_ids]
                assert one.position_ids[place].tolist() == list(range(len(prompt) + len(response)))
                assert one.sequences[place].unique().tolist() == [row]
                assert is_trained.nonzero().flatten().tolist() == [len(prompt) - 1 + i for i in range(len(response))]
                assert one.response_mask[place][is_trained].unique().tolist() == [1.0]
                assert one.targets[place][is_trained].tolist() == response.tolist()
                torch.testing.assert_close(
                    one.rollout_logprobs[place][is_trained], torch.tensor(sample.logprobs), rtol=0, atol=0
                )
                assert one.rollout_logprobs[place][~is_trained].count_nonzero() == 0
    assert sorted(seen) == groups.judged.flatten().nonzero().flatten().tolist()


@pytest.mark.parametrize("world", WORLDS, ids=str)
@pytest.mark.parametrize("seed", range(12))
def test_packs_keep_to_their_limits(monkeypatch: pytest.MonkeyPatch, world: World, seed: int) -> None:
    draw = random.Random(2000 + seed)
    multiple, packs_multiple, one_length = draw.choice([1, 2, 4]), draw.choice([1, 2, 3]), draw.random() < 0.5
    max_tokens = draw.randrange(LONGEST_PROMPT + LONGEST_RESPONSE, 120) // multiple * multiple + multiple
    limits = Limits(max_tokens=max_tokens, multiple=multiple, packs_multiple=packs_multiple, one_length=one_length)
    batches = packed(monkeypatch, random_groups(seed), world, draw.randrange(1, 5), limits)
    for batch in batches:
        for one in batch.packs:
            lengths = one.cumulative_lengths.diff()
            assert len(one.token_ids) <= max_tokens
            assert len(one.token_ids) % multiple == 0
            assert one.longest == int(lengths.max())
            assert int(one.cumulative_lengths[-1]) == len(one.token_ids)
            assert one.cumulative_lengths.dtype == torch.int32
    for update in zip(*(batch.updates for batch in batches), strict=True):
        counts = {len(packs) for packs in update}
        assert len(counts) == 1, "replicas with fewer packs would not come to the collectives of the others"
        assert counts.pop() % packs_multiple == 0
    if one_length:
        assert len({len(one.token_ids) for batch in batches for one in batch.packs}) == 1


@pytest.mark.parametrize("seed", range(12))
def test_the_sequences_of_an_update_do_not_depend_on_the_layout(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    groups = random_groups(seed, num_groups=7)
    plans = []
    for world in WORLDS:
        replicas = one_per_replica(packed(monkeypatch, groups, world, 3), world)
        updates = zip(*(batch.updates for batch in replicas), strict=True)
        plans.append([sorted(row for packs in update for row in rows_of(packs)) for update in updates])
    assert all(plan == plans[0] for plan in plans)


def test_all_ranks_of_a_replica_have_the_same_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tensor=2, context=2, data=2, pipeline=2, engine_size=2)
    batches = packed(monkeypatch, random_groups(3, num_groups=6), world)
    for rank, batch in enumerate(batches):
        replica = batches[world.ranks(rank).data * world.tensor * world.context]
        for mine, others in zip(batch.packs, replica.packs, strict=True):
            assert torch.equal(mine.token_ids, others.token_ids)
            assert torch.equal(mine.rollout_logprobs, others.rollout_logprobs)


@pytest.mark.parametrize(("num_groups", "sizes"), [(8, [4, 4]), (7, [3, 4]), (2, [1, 1])])
def test_updates_are_whole_consecutive_groups(
    monkeypatch: pytest.MonkeyPatch, num_groups: int, sizes: list[int]
) -> None:
    groups = random_groups(5, num_groups)
    (batch,) = packed(monkeypatch, groups, World(), 2)
    num_samples = groups.lengths.shape[1]
    found = [sorted({row // num_samples for row in rows_of(packs)}) for packs in batch.updates]
    assert found == [list(range(sizes[0])), list(range(sizes[0], num_groups))]


def test_fewer_groups_than_updates_make_fewer_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    for batch in packed(monkeypatch, random_groups(1, num_groups=3), World(data=2), 8):
        assert len(batch.updates) == 3


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_no_groups_make_no_updates(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    for batch in packed(monkeypatch, random_groups(1, num_groups=0), world, 2):
        assert batch.updates == ()
        assert batch.packs == []


def test_a_replica_without_sequences_still_has_a_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = random_groups(1, num_groups=1)
    groups.outcomes[:] = 1
    groups.outcomes[0, 0] = 0
    for replica, batch in enumerate(packed(monkeypatch, groups, World(data=3), 1)):
        (one,) = batch.packs
        assert rows_of((one,)) == ([0] if replica == 0 else [])
        assert float(one.response_mask.sum()) == (float(groups.lengths[0, 0]) if replica == 0 else 0.0)


@pytest.mark.parametrize("seed", range(20))
def test_replicas_differ_by_at_most_one_sequence_in_tokens(seed: int) -> None:
    draw = random.Random(seed)
    lengths = sorted((draw.randrange(1, 100) for _ in range(draw.randrange(1, 60))), reverse=True)
    replicas = share_out(list(range(len(lengths))), lengths, 4)
    assert sorted(row for rows in replicas for row in rows) == list(range(len(lengths)))
    loads = [sum(lengths[row] for row in rows) for rows in replicas]
    assert max(loads) - min(loads) <= max(lengths)


@pytest.mark.parametrize("seed", range(20))
def test_packs_are_more_than_half_full(seed: int) -> None:
    draw = random.Random(seed)
    lengths = sorted((draw.randrange(1, 100) for _ in range(draw.randrange(1, 60))), reverse=True)
    packs = fill(list(range(len(lengths))), lengths, 100)
    loads = [sum(lengths[row] for row in rows) for rows in packs]
    assert sorted(row for rows in packs for row in rows) == list(range(len(lengths)))
    assert max(loads) <= 100
    assert len(packs) == 1 or sum(loads) > 100 * len(packs) / 2


@pytest.mark.parametrize("seed", range(5))
def test_joined_packs_are_the_same_sequences_in_the_same_order(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    world = World(data=2)
    for batch in packed(monkeypatch, random_groups(seed), world, num_updates=4):
        fewer = joined(batch.packs, LOOSE)
        assert all(len(part.token_ids) <= LOOSE.max_tokens for part in fewer)
        for name in TOKEN_FIELDS:
            whole, parts = (torch.cat([getattr(part, name) for part in packs]) for packs in (fewer, batch.packs))
            assert torch.equal(whole, parts), name
        lengths = [torch.cat([part.cumulative_lengths.diff() for part in packs]) for packs in (fewer, batch.packs)]
        assert torch.equal(*lengths)
        assert all(part.longest == int(part.cumulative_lengths.diff().max()) for part in fewer)
        for left, right in zip(fewer, fewer[1:], strict=False):
            assert len(left.token_ids) + len(right.token_ids) > LOOSE.max_tokens


@pytest.mark.parametrize("degree", [2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_packs_that_are_shared_keep_to_their_limits_with_the_padding_of_every_sequence(
    monkeypatch: pytest.MonkeyPatch, degree: int, seed: int
) -> None:
    multiple, world = degree * 2, World(context=degree, data=2)
    limits = Limits(
        max_tokens=80, multiple=multiple, packs_multiple=1, one_length=seed % 2 == 1, context_parallel=degree
    )
    batches = packed(monkeypatch, random_groups(seed), world, 2, limits)
    sizes = []
    for one in [*batches[0].packs, *joined(batches[0].packs, limits), *batches[-1].packs]:
        padded = [-(-length // multiple) * multiple for length in one.cumulative_lengths.diff().tolist()]
        assert sum(padded) <= 80 and sum(padded) % multiple == 0
        sizes.append(sum(padded))
    assert not limits.one_length or len(set(sizes)) == 1


def test_packs_that_have_to_be_of_one_length_are_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(max_tokens=200, multiple=1, packs_multiple=1, one_length=True)
    (batch,) = packed(monkeypatch, random_groups(1), World(), num_updates=4, limits=limits)
    assert joined(batch.packs, limits) == list(batch.packs)


@pytest.mark.parametrize("seed", range(5))
def test_under_a_sequence_mean_every_sequence_of_an_update_weighs_the_same(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    world = World(data=2)
    replicas = one_per_replica(
        packed(monkeypatch, random_groups(seed), world, num_updates=2, aggregation="sequence_mean"), world
    )
    for packs in zip(*(batch.updates for batch in replicas), strict=True):
        both = [one for part in packs for one in part]
        num_tokens = sum(float(one.response_mask.sum()) for one in both)
        rows = {row for one in both for row in one.sequences[one.response_mask > 0].tolist()}
        for row in rows:
            total = sum(float(one.loss_weights[one.sequences == row].sum()) for one in both)
            assert total / num_tokens == pytest.approx(1 / len(rows), rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_under_a_token_mean_every_token_weighs_exactly_one(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    for batch in packed(monkeypatch, random_groups(seed), World(data=2)):
        assert all(torch.equal(one.loss_weights, one.response_mask) for one in batch.packs)
