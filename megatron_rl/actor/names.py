"""Megatron's parameters and Hugging Face's tensors: one table, used to load, to stream and to export.

Which part of which tensor a parameter holds is the algebra of actor/slices.py. Layers are numbered per pipeline chunk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_rl.actor import slices
from megatron_rl.actor.slices import LAYER, TOP, Box, Part, Sharding
from megatron_rl.config.records import Model
from megatron_rl.config.weights import tensor_names


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


def matrix(tensor: Tensor, row: int, column: int, box: Box) -> Tensor:
    """As many rows and columns as a box has, from a place in a tensor; a vector is a matrix of one column."""
    rows = tensor.view(len(tensor), -1)
    return rows[row : row + box.rows, column : column + box.columns]


@torch.no_grad()
def load(chunks: Iterable[Any], model: Model, read: Callable[[str, Box], Tensor], degree: int, rank: int) -> None:
    """Fills this rank's parameters; only the boxes of Hugging Face tensors that it holds are read."""
    for entry, parameter in parameters(chunks, model):
        for part in slices.parts(entry.sharding, entry.hugging_face, model, degree, rank):
            into = matrix(parameter.data, part.row, part.column, part.whole)
            into.copy_(read(part.tensor, part.whole).view_as(into))


class WeightStream:
    """The whole model, tensor by tensor, on every rank, however it is sharded.

    Which stage holds what is asked once, at construction, which is collective over the pipeline group.
    """

    def __init__(self, chunks: list[Any], model: Model) -> None:
        from megatron.core import parallel_state

        self.model, self.shapes = model, tensor_names(model)
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
                    wholes = self._wholes(entry, self._shards(entry, of(next(mine))))
                else:
                    shapes = [self.shapes[name] for name in entry.hugging_face]
                    wholes = [torch.empty(shape, dtype=entry.dtype, device=self._device) for shape in shapes]
                if len(self.stages) > 1:
                    wholes = [whole.contiguous() for whole in wholes]
                    for whole in wholes:
                        sender = dist.get_global_rank(self.pipeline_group, source)
                        dist.broadcast(whole, src=sender, group=self.pipeline_group)
                yield from zip(entry.hugging_face, wholes, strict=True)

    def _wholes(self, entry: Entry, shards: list[Tensor]) -> list[Tensor]:
        """The whole Hugging Face tensors; views of a shard where that has one of them in one piece."""
        found: dict[str, list[tuple[Part, Tensor]]] = defaultdict(list)
        for rank, shard in enumerate(shards):
            for part in slices.parts(entry.sharding, entry.hugging_face, self.model, len(shards), rank):
                found[part.tensor].append((part, matrix(shard, part.row, part.column, part.whole)))
        wholes = []
        for name in entry.hugging_face:
            shape = self.shapes[name]
            if len(found[name]) == 1:
                wholes.append(found[name][0][1].view(shape))
                continue
            wholes.append(shards[0].new_empty(shape))
            for part, values in found[name]:
                matrix(wholes[-1], part.whole.row, part.whole.column, part.whole).copy_(values)
        return wholes

    @property
    def _device(self) -> torch.device:
        return self.mine[0][1].device

    def _shards(self, entry: Entry, shard: Tensor) -> list[Tensor]:
        if entry.sharding == "whole" or self.tensor_group.size() == 1:
            return [shard]
        shards = [torch.empty_like(shard) for _ in range(self.tensor_group.size())]
        dist.all_gather(shards, shard.contiguous(), group=self.tensor_group)
        return shards
