"""Megatron's parameters and Hugging Face's tensors: one table, used to load, to stream and to export.

Megatron fuses q, k, v into one matrix, interleaved per key-value group, and gate, up into one; under tensor
parallelism each rank holds its rows (or columns) of the fused matrix. Layers are numbered per pipeline chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_rl.actor.slices import LAYER, TOP, Sharding
from megatron_rl.config.records import Model


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One Megatron parameter: how it is sharded and which Hugging Face tensors it holds."""

    sharding: Sharding
    hugging_face: tuple[str, ...]
    shape: tuple[int, ...]  # of the shard
    dtype: torch.dtype
    is_tied_copy: bool  # the last stage's copy of tied embeddings


def unwrapped(chunk: Any) -> Any:
    """The GPTModel inside Megatron's wrappers."""
    while hasattr(chunk, "module"):
        chunk = chunk.module
    return chunk


def parameters(chunks: Iterable[Any], model: Model) -> Iterator[tuple[Entry, torch.nn.Parameter]]:
    """Every parameter of this rank with its entry. Raises RuntimeError for one the table does not know."""
    for chunk in map(unwrapped, chunks):
        numbers = {str(i): layer.layer_number - 1 for i, layer in enumerate(chunk.decoder.layers)}
        for name, parameter in chunk.named_parameters():
            if name in TOP:
                sharding, tensors = TOP[name]
            else:
                _, _, index, rest = name.split(".", 3) if name.startswith("decoder.layers.") else ("", "", "", name)
                if rest not in LAYER:
                    raise RuntimeError(f"Megatron parameter {name} has no Hugging Face name in actor/names.py")
                sharding, tensors = LAYER[rest]
                tensors = tuple(f"model.layers.{numbers[index]}.{tensor}" for tensor in tensors)
            is_tied_copy = name == "output_layer.weight" and model.tied_embeddings
            yield (
                Entry(
                    sharding=sharding,
                    hugging_face=("model.embed_tokens.weight",) if is_tied_copy else tensors,
                    shape=tuple(parameter.shape),
                    dtype=parameter.dtype,
                    is_tied_copy=is_tied_copy,
                ),
                parameter,
            )


def to_shard(sharding: Sharding, tensors: list[Tensor], model: Model, degree: int, rank: int) -> Tensor:
    """The part of rank `rank` of `degree` tensor-parallel ranks, from whole Hugging Face tensors."""
    if sharding == "whole":
        return tensors[0]
    if sharding == "rows":
        return tensors[0].chunk(degree, 0)[rank]
    if sharding == "columns":
        return tensors[0].chunk(degree, 1)[rank]
    if sharding == "gate_up":
        return torch.cat([tensor.chunk(degree, 0)[rank] for tensor in tensors])
    groups = model.num_kv_heads
    q, k, v = (tensor.reshape(groups, -1, *tensor.shape[1:]) for tensor in tensors)
    return torch.cat([q, k, v], 1).flatten(0, 1).chunk(degree, 0)[rank]


def from_shards(sharding: Sharding, shards: list[Tensor], model: Model) -> list[Tensor]:
    """The whole Hugging Face tensors, from the parts of all tensor-parallel ranks in order.

    Of a single shard they are views where its layout allows: a copy of the model more or less in every refit.
    """
    if sharding == "whole":
        return [shards[0]]
    if sharding == "rows":
        return [_cat(shards, 0)]
    if sharding == "columns":
        return [_cat(shards, 1)]
    if sharding == "gate_up":
        return [_cat(list(halves), 0) for halves in zip(*(shard.chunk(2, 0) for shard in shards), strict=True)]
    groups, queries = model.num_kv_heads, model.num_heads // model.num_kv_heads
    fused = _cat(shards, 0)
    fused = fused.view(groups, queries + 2, model.head_dim, *fused.shape[1:])
    return [part.flatten(0, 2) for part in fused.split([queries, 1, 1], 1)]


def _cat(parts: list[Tensor], dimension: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dimension)


def whole_shapes(entry: Entry, model: Model, degree: int) -> list[tuple[int, ...]]:
    """Shapes of the whole Hugging Face tensors of an entry."""
    rows, *rest = entry.shape
    if entry.sharding == "whole":
        return [entry.shape]
    if entry.sharding == "rows":
        return [(rows * degree, *rest)]
    if entry.sharding == "columns":
        return [(rows, rest[0] * degree)]
    if entry.sharding == "gate_up":
        return [(rows // 2 * degree, *rest)] * 2
    q, kv = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    return [(q, *rest), (kv, *rest), (kv, *rest)]


@torch.no_grad()
def load(chunks: Iterable[Any], model: Model, read: Callable[[str], Tensor], degree: int, rank: int) -> None:
    """Fills this rank's parameters from whole tensors; only those of its own layers are read."""
    for entry, parameter in parameters(chunks, model):
        shard = to_shard(entry.sharding, [read(name) for name in entry.hugging_face], model, degree, rank)
        parameter.copy_(shard)


class WeightStream:
    """The whole model, tensor by tensor, on every rank, however it is sharded.

    Which stage holds what is asked once, at construction, which is collective over the pipeline group.
    """

    def __init__(self, chunks: list[Any], model: Model) -> None:
        from megatron.core import parallel_state

        self.model = model
        # Looked up once: walking the modules takes as long as copying a few million weights.
        self.mine = [pair for pair in parameters(chunks, model) if not pair[0].is_tied_copy]
        self.tensor_group = parallel_state.get_tensor_model_parallel_group()
        self.pipeline_group = parallel_state.get_pipeline_model_parallel_group()
        mine = [entry for entry, _ in self.mine]
        self.stages: list[list[Entry]] = [mine]
        if self.pipeline_group.size() > 1:
            self.stages = [[]] * self.pipeline_group.size()
            dist.all_gather_object(self.stages, mine, group=self.pipeline_group)

    @torch.no_grad()
    def __call__(self, of: Callable[[torch.nn.Parameter], Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yields (Hugging Face name, whole tensor); `of` picks the parameter or a moment of the same shape.

        Collective over the model-parallel group: every rank must draw all of it. The tensors may be views of the
        live weights: who keeps them past the next update must copy.
        """
        stage = self.pipeline_group.rank()
        mine = (parameter for _, parameter in self.mine)
        for source, entries in enumerate(self.stages):
            for entry in entries:
                if source == stage:
                    wholes = from_shards(entry.sharding, self._shards(entry, of(next(mine))), self.model)
                else:
                    shapes = whole_shapes(entry, self.model, self.tensor_group.size())
                    wholes = [torch.empty(shape, dtype=entry.dtype, device=self._device) for shape in shapes]
                if len(self.stages) > 1:
                    wholes = [whole.contiguous() for whole in wholes]
                    for whole in wholes:
                        sender = dist.get_global_rank(self.pipeline_group, source)
                        dist.broadcast(whole, src=sender, group=self.pipeline_group)
                yield from zip(entry.hugging_face, wholes, strict=True)

    @property
    def _device(self) -> torch.device:
        return self.mine[0][1].device

    def _shards(self, entry: Entry, shard: Tensor) -> list[Tensor]:
        if entry.sharding == "whole" or self.tensor_group.size() == 1:
            return [shard]
        shards = [torch.empty_like(shard) for _ in range(self.tensor_group.size())]
        dist.all_gather(shards, shard.contiguous(), group=self.tensor_group)
        return shards
