"""The plan of a refit, run on arrays: every pair of layouts, every family, no element lost, moved twice or in vain."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from megatron_rl.actor import slices
from megatron_rl.config.records import Model
from megatron_rl.config.weights import tensor_names
from megatron_rl.refit import plan
from megatron_rl.refit.plan import Layout, Move, Plan

Array = Any
BASE = Model(
    name="tiny",
    family="llama",
    num_layers=4,
    hidden_size=8,
    num_heads=8,
    num_kv_heads=4,
    head_dim=2,
    ffn_hidden_size=8,
    vocab_size=40,  # vLLM pads it to 64: the last of four ranks holds padding alone
    max_positions=16,
    rope_theta=1e4,
    norm_epsilon=1e-6,
    tied_embeddings=False,
    qkv_bias=False,
    qk_norm=False,
)
FAMILIES = {
    "qwen2": dataclasses.replace(BASE, qkv_bias=True, num_heads=4),  # no grouped queries
    "qwen3": dataclasses.replace(BASE, qk_norm=True, head_dim=3, tied_embeddings=True),
    "llama_tied": dataclasses.replace(BASE, tied_embeddings=True),
    "llama_untied": BASE,
}
FEW_HEADS = dataclasses.replace(BASE, num_kv_heads=2, qkv_bias=True)  # fewer than vLLM's ranks
DEGREES = (1, 2, 4)
LAYOUTS = [
    Layout(tensor_parallel=tp, pipeline_parallel=pp, virtual_pipeline=1, replicas=dp, rollout_tensor_parallel=rollout)
    for tp in DEGREES
    for pp in DEGREES
    for dp in DEGREES
    for rollout in DEGREES
    if tp * pp * dp % rollout == 0
]
BUCKET = 128  # elements: many rounds, in most of which a tensor is cut


def wholes(model: Model) -> dict[str, Array]:
    """A Hugging Face folder in which each element is another number, none of them 0."""
    shapes, first, found = tensor_names(model), 1, {}
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        found[name] = np.arange(first, first + size).reshape(shape[0], -1)
        first += size
    return found


def megatron(model: Model, names: tuple[str, ...], degree: int, rank: int) -> Array:
    """What a tensor-parallel rank of Megatron holds, by its definition of fused layers and not by slices."""
    parts = [wholes_of(model)[name] for name in names]
    if len(names) == 3:
        grouped = [part.reshape(model.num_kv_heads, -1, part.shape[1]) for part in parts]
        return np.split(np.concatenate(grouped, 1).reshape(-1, parts[0].shape[1]), degree)[rank]
    if len(names) == 2:
        return np.concatenate([np.split(part, degree)[rank] for part in parts])
    if "norm" in names[0]:
        return parts[0]
    return np.split(parts[0], degree, 1 if "o_proj" in names[0] or "down_proj" in names[0] else 0)[rank]


wholes_of = functools.cache(wholes)
megatron_of = functools.cache(megatron)


@functools.cache
def vllm_of(model: Model, degree: int, rank: int) -> dict[str, Array]:
    """What a rank of vLLM holds, by vLLM's definition of fused layers."""
    whole = wholes_of(model)

    def head_rows(name: str, heads: int) -> Array:
        by_head = whole[name].reshape(heads, model.head_dim, -1)
        mine = by_head[[rank * heads // degree]] if heads < degree else np.split(by_head, degree)[rank]
        return mine.reshape(-1, by_head.shape[2])

    found: dict[str, Array] = {}
    for name, array in whole.items():
        if "q_proj" in name:
            others = [head_rows(name.replace("q_proj", f"{x}_proj"), model.num_kv_heads) for x in "kv"]
            found[name.replace("q_proj", "qkv_proj")] = np.concatenate([head_rows(name, model.num_heads), *others])
        elif "gate_proj" in name:
            pair = (array, whole[name.replace("gate_proj", "up_proj")])
            found[name.replace("gate", "gate_up")] = np.concatenate([np.split(part, degree)[rank] for part in pair])
        elif "o_proj" in name or "down_proj" in name:
            found[name] = np.split(array, degree, 1)[rank]
        elif "embed" in name or "lm_head" in name:
            padded = np.concatenate([array, np.zeros((-len(array) % 64, array.shape[1]), array.dtype)])
            found[name] = np.split(padded, degree)[rank]
        elif not any(part in name for part in ("k_proj", "v_proj", "up_proj")):
            found[name] = array
    return found


def boxes(array: Array, row: int, column: int, step: int, move: Move) -> list[Array]:
    """The box of a move in one of its matrices, and its repetitions below."""
    rows, columns = move.copy.rows, slice(column, column + move.copy.columns)
    firsts = [row + step * turn for turn in range(move.copy.repeats)]
    return [array[first : first + rows, columns] for first in firsts]


class Rank:
    """A rank with its parameters of both engines as arrays."""

    def __init__(self, model: Model, layout: Layout, rank: int) -> None:
        self.plan: Plan = plan.make(model, layout, rank, BUCKET)
        tensor = rank % layout.tensor_parallel
        keys = {names[0]: names for _, names in slices.parameters_of(model)}
        self.sources = {
            name: megatron_of(model, keys[name], layout.tensor_parallel, tensor) for name in self.plan.sources
        }
        self.targets = {name: np.full(shape, -1) for name, shape in self.plan.targets.items()}
        self.written = 0

    def take(self, move: Move) -> list[Array]:
        copy = move.copy
        return boxes(self.sources[move.source], copy.source_row, copy.source_column, copy.source_step, move)

    def put(self, move: Move, values: list[Array]) -> None:
        for target, value in zip(
            boxes(self.targets[move.target], move.copy.row, move.copy.column, move.copy.step, move), values, strict=True
        ):
            target[...] = value
            self.written += value.size


def run(ranks: dict[int, Rank]) -> None:
    """What the ranks of one replica do in a refit."""
    for one in ranks.values():
        for move in one.plan.local:
            one.put(move, one.take(move))
        for name, padding in one.plan.zeros:
            one.targets[name][padding.row : padding.row + padding.rows] = 0
            one.written += padding.elements
    for receiver, one in ranks.items():
        for number, now in enumerate(one.plan.rounds):
            for sender, moves in zip(one.plan.replica, now.receives, strict=True):
                sent = ranks[sender].plan.rounds[number].sends[one.plan.replica.index(receiver)]
                assert sent == moves, "both ends must lay out a bucket alike"
                for move in moves:
                    one.put(move, ranks[sender].take(move))


def replicas(layout: Layout, seen: set[Any]) -> Iterator[tuple[int, ...]]:
    """The ranks of each replica; those that hold the same parts of both engines stand for each other."""
    for first in range(0, layout.replicas * layout.tensor_parallel, layout.tensor_parallel):
        ranks = layout.replica_of(first)
        engine_ranks = tuple(rank % layout.rollout_tensor_parallel for rank in ranks)
        kind = layout.tensor_parallel, layout.rollout_tensor_parallel, engine_ranks
        if kind not in seen:
            seen.add(kind)
            yield ranks


def elements(moves: tuple[Move, ...]) -> int:
    return sum(move.copy.elements for move in moves)


def check(model: Model, layout: Layout, seen: set[Any]) -> None:
    for members in replicas(layout, seen):
        ranks = {rank: Rank(model, layout, rank) for rank in members}
        run(ranks)
        for rank, one in ranks.items():
            expected = vllm_of(model, layout.rollout_tensor_parallel, rank % layout.rollout_tensor_parallel)
            assert one.targets.keys() == expected.keys()
            for name, array in expected.items():
                assert (one.targets[name] == array).all(), name
            # All is right, so all was written; and as often as there are elements, so each once.
            assert one.written == sum(array.size for array in expected.values())
            held = set().union(*(array.ravel().tolist() for array in one.sources.values()), {0})
            needed = [number for array in expected.values() for number in array.ravel().tolist()]
            received = sum(elements(moves) for now in one.plan.rounds for moves in now.receives)
            assert received == sum(number not in held for number in needed)
            for now in one.plan.rounds:
                assert sum(map(elements, now.sends)) <= BUCKET and sum(map(elements, now.receives)) <= BUCKET
        assert len({len(one.plan.rounds) for one in ranks.values()}) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_every_pair_of_layouts_gives_vllm_its_slice_of_the_export_by_the_least_transfers(family: str) -> None:
    seen: set[Any] = set()
    for layout in LAYOUTS:
        model = dataclasses.replace(FAMILIES[family], num_layers=max(2, layout.pipeline_parallel))
        check(model, layout, seen)


def test_a_key_value_head_goes_to_each_rank_of_vllm_that_needs_it() -> None:
    for tp, replicas_ in ((1, 4), (2, 2)):
        layout = Layout(
            tensor_parallel=tp, pipeline_parallel=1, virtual_pipeline=1, replicas=replicas_, rollout_tensor_parallel=4
        )
        check(FEW_HEADS, layout, set())


def test_layers_of_virtual_stages_are_dealt_out_in_turn() -> None:
    layout = Layout(tensor_parallel=2, pipeline_parallel=2, virtual_pipeline=2, replicas=1, rollout_tensor_parallel=2)
    assert plan.Stages.of(BASE, layout).of_layer == (0, 1, 0, 1)
    check(BASE, layout, set())


def test_one_process_copies_each_parameter_in_as_few_boxes_as_it_has_parts() -> None:
    layout = Layout(tensor_parallel=1, pipeline_parallel=1, virtual_pipeline=1, replicas=1, rollout_tensor_parallel=1)
    found = plan.make(BASE, layout, 0, BUCKET)
    assert not found.rounds and found.replica == (0,)
    per_layer = 2 + 3 + 1 + 1 + 1  # norms, qkv of any number of groups, the output, gate and up side by side, down
    assert len(found.local) == 4 * per_layer + 3


def test_a_bucket_too_small_for_a_row_is_refused_with_the_size_to_use() -> None:
    layout = Layout(tensor_parallel=4, pipeline_parallel=1, virtual_pipeline=1, replicas=1, rollout_tensor_parallel=1)
    with pytest.raises(ValueError, match=r"a bucket of 23 elements is too small: a row has 8, .* use at least 24"):
        plan.make(BASE, layout, 0, 23)
    assert plan.make(BASE, layout, 0, 24).rounds
