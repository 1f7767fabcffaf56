"""The plan of a refit: which box of which Megatron parameter goes where in which of vLLM's, on every pair of layouts.

Pure index algebra, made once from the shape of the model and both layouts. Every replica of the actor holds the whole
model, so a rank takes what it does not hold itself from ranks of its own replica: each element once, none that its
shard of vLLM does not need, and all replicas at the same time. The transfers of a replica are cut into rounds, in each
of which a rank sends and receives at most a bucket.

vLLM fuses q, k, v and gate, up one after the other, gives a rank its heads of each, and pads the vocabulary.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from megatron_rl.actor import slices
from megatron_rl.actor.slices import Box, Copy, Part
from megatron_rl.config.records import Model

VOCABULARY_MULTIPLE = 64  # vLLM pads the vocabulary to it, with zeros
EMBEDDING, FIRST_LAYER = "model.embed_tokens.weight", "model.layers.0."


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How both engines lie over the ranks: Megatron's tensor index varies fastest, then replica, then stage."""

    tensor_parallel: int
    pipeline_parallel: int
    virtual_pipeline: int  # chunks of layers per stage
    replicas: int  # of the weights: context- and data-parallel ranks
    rollout_tensor_parallel: int  # an engine spans so many neighbouring ranks

    def replica_of(self, rank: int) -> tuple[int, ...]:
        """The ranks of a rank's own replica, itself included, by stage and then by tensor index."""
        stride = self.tensor_parallel * self.replicas
        first = rank % stride // self.tensor_parallel * self.tensor_parallel
        return tuple(
            first + stage * stride + tensor
            for stage in range(self.pipeline_parallel)
            for tensor in range(self.tensor_parallel)
        )


class Move(NamedTuple):
    """A copy between two parameters: Megatron's, by the first tensor that it holds, and vLLM's."""

    source: str
    target: str
    copy: Copy


class Target(NamedTuple):
    """A parameter of vLLM on one rank: rows and columns, and what is in the first of its rows; the rest is zero."""

    shape: tuple[int, int]
    parts: tuple[Part, ...]

    @property
    def padding(self) -> Box | None:
        """The rows that no tensor fills."""
        filled = max((part.row + part.whole.rows for part in self.parts), default=0)
        rows, columns = self.shape
        return Box(filled, 0, rows - filled, columns) if filled < rows else None


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a rank sends and receives at once: to and from each rank of its replica, in the order of the buckets."""

    sends: tuple[tuple[Move, ...], ...]
    receives: tuple[tuple[Move, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one rank does in a refit."""

    replica: tuple[int, ...]  # the ranks of the actor's replica, which exchange slices
    sources: dict[str, tuple[int, int]]  # this rank's Megatron parameters that hold weights to send, and their shapes
    targets: dict[str, tuple[int, int]]  # this rank's parameters of vLLM
    local: tuple[Move, ...]
    rounds: tuple[Round, ...]
    zeros: tuple[tuple[str, Box], ...]  # of the targets: the padding of the vocabulary


def make(model: Model, layout: Layout, rank: int, bucket_elements: int) -> Plan:
    """The plan of one rank. Raises ValueError where a bucket cannot hold a row for each rank of a replica."""
    replica, degree, tensor_parallel = layout.replica_of(rank), layout.rollout_tensor_parallel, layout.tensor_parallel
    stages, here, members = Stages.of(model, layout), replica.index(rank), range(len(replica))
    of_replica = (model, tensor_parallel, stages, degree, tuple(member % degree for member in replica))
    pieces = _pieces(*of_replica, bucket_elements)

    def piece(sender: int, receiver: int, number: int) -> tuple[Move, ...]:
        found = pieces.get((sender, receiver), [])
        return found[number] if number < len(found) else ()

    targets = targets_of(model, degree, rank % degree)
    return Plan(
        replica=replica,
        sources={
            names[0]: slices.shard_shape(sharding, names, model, tensor_parallel)
            for sharding, names in slices.parameters_of(model)
            if here // tensor_parallel in stages.holding(names[0])
        },
        targets={name: target.shape for name, target in targets.items()},
        local=_merged(_streams(*of_replica).get((here, here), ())),
        rounds=tuple(
            Round(
                sends=tuple(piece(here, other, number) for other in members),
                receives=tuple(piece(other, here, number) for other in members),
            )
            for number in range(max(map(len, pieces.values()), default=0))
        ),
        zeros=tuple((name, box) for name, target in targets.items() if (box := target.padding) is not None),
    )


@dataclass(frozen=True)
class Stages:
    """Which pipeline stages hold which tensors."""

    of_layer: tuple[int, ...]
    last: int
    tied_embeddings: bool

    @classmethod
    def of(cls, model: Model, layout: Layout) -> Self:
        """Layers lie in equal chunks, which are dealt out to the stages in turn."""
        size = model.num_layers // (layout.pipeline_parallel * layout.virtual_pipeline)
        stages = (layer // size % layout.pipeline_parallel for layer in range(model.num_layers))
        return cls(tuple(stages), layout.pipeline_parallel - 1, model.tied_embeddings)

    def holding(self, tensor: str) -> tuple[int, ...]:
        """The stages that hold a tensor: one, but for tied embeddings."""
        if tensor.startswith("model.layers."):
            return (self.of_layer[int(tensor.split(".", 3)[2])],)
        if tensor == EMBEDDING:
            return (0, self.last) if self.tied_embeddings and self.last else (0,)
        return (self.last,)


def targets_of(model: Model, degree: int, rank: int) -> dict[str, Target]:
    """vLLM's parameters by its names, on rank `rank` of an engine of `degree` ranks."""
    top, layer = _template_targets(model, degree, rank)
    return top | {
        name.replace(FIRST_LAYER, f"model.layers.{number}."): target._replace(
            parts=tuple(
                part._replace(tensor=part.tensor.replace(FIRST_LAYER, f"model.layers.{number}."))
                for part in target.parts
            )
        )
        for number in range(model.num_layers)
        for name, target in layer.items()
    }


@functools.cache
def _template_targets(model: Model, degree: int, rank: int) -> tuple[dict[str, Target], dict[str, Target]]:
    """What is outside the layers, and the first layer; all layers are alike."""
    top: dict[str, Target] = {}
    layer: dict[str, Target] = {}
    for sharding, names in slices.parameters_of(model, num_layers=1):
        name = names[0]
        rows, columns = slices.matrix(name, model)
        if sharding == "qkv":
            name, parts = name.replace("q_proj", "qkv_proj"), _heads(names, model, degree, rank)
            rows = sum(part.whole.rows for part in parts)
        elif sharding == "rows":
            rows = -(-rows // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE // degree
            parts = slices.rows_of_share(name, model, rows, rank)
        else:
            parts = slices.parts(sharding, names, model, degree, rank)
            rows, columns = slices.shard_shape(sharding, names, model, degree)
            name = name.replace("gate_proj", "gate_up_proj")
        (layer if name.startswith(FIRST_LAYER) else top)[name] = Target((rows, columns), tuple(parts))
    return top, layer


def _heads(names: Sequence[str], model: Model, degree: int, rank: int) -> list[Part]:
    """A rank's query heads, and its key and value heads: several ranks have the same one where there are too few."""
    found: list[Part] = []
    for name, heads in zip(names, (model.num_heads, model.num_kv_heads, model.num_kv_heads), strict=True):
        number = rank * heads // degree
        rows, columns = max(1, heads // degree) * model.head_dim, slices.matrix(name, model)[1]
        found.append(
            Part(name, Box(number * model.head_dim, 0, rows, columns), sum(part.whole.rows for part in found), 0)
        )
    return found


@functools.cache
def _streams(
    model: Model, tensor_parallel: int, stages: Stages, degree: int, engine_ranks: tuple[int, ...]
) -> dict[tuple[int, int], tuple[Move, ...]]:
    """What goes from which to which member of a replica, in the order of the model's layers."""
    streams: dict[tuple[int, int], list[Move]] = defaultdict(list)
    for member, engine_rank in enumerate(engine_ranks):
        stage, tensor = divmod(member, tensor_parallel)
        template = _template_moves(model, tensor_parallel, tensor, degree, engine_rank)
        numbers = [""] + [f"model.layers.{number}." for number in range(model.num_layers)]
        for prefix in numbers:
            for holder, move in template[bool(prefix)]:
                if prefix:
                    source, target = (name.replace(FIRST_LAYER, prefix) for name in move[:2])
                    move = Move(source, target, move.copy)
                holding = stages.holding(move.source)
                nearest = stage if stage in holding else holding[member % len(holding)]
                streams[nearest * tensor_parallel + holder, member].append(move)
    return {pair: tuple(stream) for pair, stream in streams.items()}


@functools.cache
def _template_moves(
    model: Model, tensor_parallel: int, tensor: int, degree: int, engine_rank: int
) -> tuple[list[tuple[int, Move]], list[tuple[int, Move]]]:
    """What a rank needs outside the layers and of the first layer, and the tensor index of the ranks that hold it."""
    held: list[tuple[int, str, list[Part]]] = []
    for sharding, names in slices.parameters_of(model, num_layers=1):
        # All have what is not sharded: the one with the same index is this rank itself, or of another stage.
        for holder in (tensor,) if sharding == "whole" else range(tensor_parallel):
            held.append((holder, names[0], slices.parts(sharding, names, model, tensor_parallel, holder)))
    found: tuple[list[tuple[int, Move]], list[tuple[int, Move]]] = [], []
    for in_layer, targets in enumerate(_template_targets(model, degree, engine_rank)):
        for name, target in targets.items():
            for holder, source, parts in held:
                found[in_layer].extend(
                    (holder, Move(source, name, copy)) for copy in slices.copies(parts, target.parts)
                )
    return found


@functools.cache
def _pieces(
    model: Model,
    tensor_parallel: int,
    stages: Stages,
    degree: int,
    engine_ranks: tuple[int, ...],
    bucket_elements: int,
) -> dict[tuple[int, int], list[tuple[Move, ...]]]:
    """The streams between members, cut so that no member sends or receives more than a bucket in a round."""
    streams = _streams(model, tensor_parallel, stages, degree, engine_ranks)
    away = {pair: stream for pair, stream in streams.items() if pair[0] != pair[1]}
    peers = Counter(end for sender, receiver in away for end in (("sends", sender), ("receives", receiver)))
    most_peers = max(peers.values(), default=1)
    longest = max((move.copy.columns for stream in away.values() for move in stream), default=0)
    if bucket_elements < longest * most_peers:
        raise ValueError(
            f"a bucket of {bucket_elements} elements is too small: a row has {longest}, and a rank exchanges "
            f"slices with {most_peers} others at once; use at least {longest * most_peers}"
        )
    return {pair: _cut(stream, bucket_elements // most_peers) for pair, stream in away.items()}


def _cut(stream: Iterable[Move], most: int) -> list[tuple[Move, ...]]:
    """A stream in pieces of at most `most` elements, cut between rows."""
    pieces: list[list[Move]] = [[]]
    room = most
    for move in stream:
        copy, done = move.copy, 0
        while done < copy.rows:
            rows = min(copy.rows - done, room // copy.columns)
            if rows == 0:
                pieces.append([])
                room = most
                continue
            part = copy._replace(source_row=copy.source_row + done, row=copy.row + done, rows=rows)
            pieces[-1].append(move._replace(copy=part))
            done += rows
            room -= part.elements
    return [_merged(piece) for piece in pieces]


def _merged(moves: Iterable[Move]) -> tuple[Move, ...]:
    """The same moves in the same order, with those between the same parameters made one where that can be."""
    return tuple(
        Move(source, target, copy)
        for (source, target), alike in itertools.groupby(moves, key=lambda move: move[:2])
        for copy in slices.merged(move.copy for move in alike)
    )
