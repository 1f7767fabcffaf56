"""Resharding: what a rank would have saved, put together from what the ranks of another layout saved.

Every tensor goes by the name map of the Hugging Face export, moments like the parameter they belong to. The files are
mapped into memory, and one whole tensor is put together at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from megatron_rl.actor import names
from megatron_rl.config.records import Model

Key = tuple[str, ...]  # the Hugging Face tensors that a Megatron parameter holds: its name on any layout
WEIGHTS = ("weights", "reference", "best")
MAIN = "parameters"  # the optimizer's own copy


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """All tensors of a checkpoint, and what its optimizers hold besides."""

    shapes: dict[tuple[Key, int], torch.Size]  # of a parameter's shard on a tensor-parallel rank
    # what it is, and of which parameter -> tensor-parallel rank -> where a piece starts in the flat shard -> the piece
    pieces: dict[tuple[str, Key], dict[int, dict[int, Tensor]]]
    scalars: dict[str, Tensor]  # of each parameter's state in the optimizer: torch's AdamW counts its steps there
    steps: dict[str, Any]  # of each group of parameters: Transformer Engine's AdamW counts there
    tensor_parallel: int

    def whole(self, what: str, entry: names.Entry, model: Model) -> list[Tensor]:
        """The whole Hugging Face tensors of an entry. Raises RuntimeError where a piece of them is missing."""
        shards = []
        for rank in range(self.tensor_parallel):
            key, shape = entry.hugging_face, self.shapes[entry.hugging_face, rank]
            pieces = sorted(self.pieces[what, key][rank].items())
            ends = [start + piece.numel() for start, piece in pieces]
            if [start for start, _ in pieces] + [shape.numel()] != [0, *ends]:
                raise RuntimeError(f"the checkpoint does not have all {what} of {', '.join(key)}; it is damaged")
            shards.append(torch.cat([piece.flatten() for _, piece in pieces]).view(shape))
        return names.from_shards(entry.sharding, shards, model)


def resharded(
    files: Sequence[dict[str, Any]], own: dict[str, Any], entries: Sequence[names.Entry], model: Model
) -> dict[str, Any]:
    """The state of an Actor in the form of `own`, with the values of `files`, the states of all ranks of a layout."""
    saved = _read(files)
    rank, degree = own["places"]["tensor"]

    def shard(what: str, number: int) -> Tensor:
        entry = entries[number]
        return names.to_shard(entry.sharding, saved.whole(what, entry, model), model, degree, rank)

    def piece(what: str, number: int, start: int, end: int) -> Tensor:
        return shard(what, number).flatten()[start:end].clone()

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
        what: [shard(what, number).clone() for number in range(len(entries))] if files[0][what] is not None else None
        for what in WEIGHTS
    }
    return own | weights | {"optimizer": optimizers}


def _read(files: Sequence[dict[str, Any]]) -> _Saved:
    """Sorts the tensors of all files; of equal ones, on data-parallel ranks and of tied embeddings, it takes one."""
    shapes: dict[tuple[Key, int], torch.Size] = {}
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
                    shapes[key, rank] = file[what][number].shape
                    pieces[what, key][rank].setdefault(0, file[what][number])
        for part, ranges in zip(file["optimizer"], file["places"]["optimizer"], strict=True):
            for group in part["moments"]["param_groups"]:
                if "step" in group:
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
    return _Saved(shapes=shapes, pieces=pieces, scalars=scalars, steps=steps, tensor_parallel=degree)
