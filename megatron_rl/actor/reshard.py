"""Resharding: what a rank would have saved, put together from what the ranks of another layout saved.

Every tensor goes by the name map of the Hugging Face export, moments like the parameter they belong to. The files are
mapped into memory, and of them a rank reads the slices that it will hold, each once.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from megatron_rl.actor import names, slices
from megatron_rl.actor.slices import Copy, Part
from megatron_rl.config.records import Model

Key = tuple[str, ...]  # the Hugging Face tensors that a Megatron parameter holds: its name on any layout
WEIGHTS = ("weights", "reference", "best")
MAIN = "parameters"  # the optimizer's own copy


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """All tensors of a checkpoint, and what its optimizers hold besides."""

    # what it is, and of which parameter -> tensor-parallel rank -> where a piece starts in the flat shard -> the piece
    pieces: dict[tuple[str, Key], dict[int, dict[int, Tensor]]]
    scalars: dict[str, Tensor]  # of each parameter's state in the optimizer: torch's AdamW counts its steps there
    steps: dict[str, Any]  # of each group of parameters: Transformer Engine's AdamW counts there
    tensor_parallel: int

    def read(self, what: str, entry: names.Entry, model: Model, want: list[Part], place: _Place) -> Tensor:
        """A flat piece of a shard, whose parts are `want`, and of the files only what is in it.

        Raises RuntimeError where they do not have all of it.
        """
        sharding, key = entry.sharding, entry.hugging_face
        found, result = 0, torch.empty(0)
        for rank in range(self.tensor_parallel if sharding != "whole" else 1):
            shard = slices.parts(sharding, key, model, self.tensor_parallel, rank)
            width = slices.shard_shape(sharding, key, model, self.tensor_parallel)[1]
            for start, piece in self.pieces[what, key][rank].items():
                there = _Place(start, start + piece.numel(), width)
                for copy in slices.merged(slices.copies(there.within(shard), want)):
                    if not found:
                        result = piece.new_zeros(place.end - place.start)
                    into = place.view(result, copy, copy.row, copy.column, copy.step)
                    into.copy_(there.view(piece.flatten(), copy, copy.source_row, copy.source_column, copy.source_step))
                    found += copy.elements
        if found != sum(part.whole.elements for part in want):
            raise RuntimeError(f"the checkpoint does not have all {what} of {', '.join(key)}; it is damaged")
        return result


class _Place(NamedTuple):
    """Where a flat piece lies in its shard, a matrix whose rows are one after the other."""

    start: int
    end: int
    width: int

    def within(self, shard: Sequence[Part]) -> list[Part]:
        """The parts of the shard, as far as the piece has them."""
        boxes = slices.boxes_of_range(self.start, self.end, self.width)
        return [found for part in shard for box in boxes if (found := part.within(box)) is not None]

    def view(self, piece: Tensor, copy: Copy, row: int, column: int, step: int) -> Tensor:
        """The boxes of a copy in the piece [repeats, rows, columns]."""
        size, strides = (copy.repeats, copy.rows, copy.columns), (step * self.width, self.width, 1)
        return piece.as_strided(size, strides, piece.storage_offset() + row * self.width + column - self.start)


def resharded(
    files: Sequence[dict[str, Any]], own: dict[str, Any], entries: Sequence[names.Entry], model: Model
) -> dict[str, Any]:
    """The state of an Actor in the form of `own`, with the values of `files`, the states of all ranks of a layout."""
    saved = _read(files)
    rank, degree = own["places"]["tensor"]

    def piece(what: str, number: int, start: int, end: int) -> Tensor:
        entry = entries[number]
        width = slices.shard_shape(entry.sharding, entry.hugging_face, model, degree)[1]
        place = _Place(start, end, width)
        want = place.within(slices.parts(entry.sharding, entry.hugging_face, model, degree, rank))
        return saved.read(what, entry, model, want, place)

    def shard(what: str, number: int) -> Tensor:
        shape = entries[number].shape
        return piece(what, number, 0, math.prod(shape)).view(shape)

    moments = sorted({what for what, _ in saved.pieces} - {*WEIGHTS, MAIN})
    optimizers = []
    for part, ranges in zip(own["optimizer"], own["places"]["optimizer"], strict=True):
        state = {i: {what: piece(what, *place) for what in moments} for i, place in enumerate(ranges) if moments}
        for values in state.values():
            values |= {name: scalar.clone() for name, scalar in saved.scalars.items()}
        groups = [group | saved.steps for group in part["moments"]["param_groups"]]
        optimizers.append(
            {
                "moments": {"state": state, "param_groups": groups},
                "parameters": [piece(MAIN, *place) for place in ranges],
            }
        )
    weights = {
        what: [shard(what, number) for number in range(len(entries))] if files[0][what] is not None else None
        for what in WEIGHTS
    }
    return own | weights | {"optimizer": optimizers}


def _read(files: Sequence[dict[str, Any]]) -> _Saved:
    """Sorts the tensors of all files; of equal ones, on data-parallel ranks and of tied embeddings, it takes one."""
    scalars: dict[str, Tensor] = {}
    steps: dict[str, Any] = {}
    pieces: dict[tuple[str, Key], dict[int, dict[int, Tensor]]] = defaultdict(lambda: defaultdict(dict))
    for file in files:
        (rank, degree), parameters = file["places"]["tensor"], file["places"]["parameters"]
        for number, (key, is_tied_copy) in enumerate(parameters):
            if is_tied_copy:
                continue
            for what in WEIGHTS:
                if file[what] is not None:  # the first replica's
                    pieces[what, key][rank].setdefault(0, file[what][number])
        for part, ranges in zip(file["optimizer"], file["places"]["optimizer"], strict=True):
            for group in part["moments"]["param_groups"]:
                if "step" in group and group["params"]:  # a group without any on this rank does not count on
                    steps["step"] = group["step"]
            for i, (number, start, _) in enumerate(ranges):
                key, is_tied_copy = parameters[number]
                if is_tied_copy:
                    continue
                for what, value in {MAIN: part[MAIN][i], **part["moments"]["state"].get(i, {})}.items():
                    if value.dim():
                        pieces[what, key][rank][start] = value
                    else:
                        scalars[what] = value
    return _Saved(pieces=pieces, scalars=scalars, steps=steps, tensor_parallel=degree)
