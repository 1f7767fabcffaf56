"""Which part of a whole tensor a rank of Megatron holds, as index algebra over two tables of names.

A tensor is a matrix here, a vector one of a single column. Megatron fuses q, k, v into one matrix, interleaved per
key-value group, and gate, up into one; under tensor parallelism each rank holds rows, or columns, of the fused matrix.
A shard is described by parts: boxes of whole Hugging Face tensors, and where each begins in the shard.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from megatron_rl.config.records import Model
from megatron_rl.config.weights import tensor_names

Sharding = Literal["whole", "rows", "columns", "gate_up", "qkv"]

LAYER: dict[str, tuple[Sharding, tuple[str, ...]]] = {
    "input_layernorm.weight": ("whole", ("input_layernorm.weight",)),
    "pre_mlp_layernorm.weight": ("whole", ("post_attention_layernorm.weight",)),
    "self_attention.linear_qkv.weight": ("qkv", tuple(f"self_attn.{x}_proj.weight" for x in "qkv")),
    "self_attention.linear_qkv.bias": ("qkv", tuple(f"self_attn.{x}_proj.bias" for x in "qkv")),
    "self_attention.q_layernorm.weight": ("whole", ("self_attn.q_norm.weight",)),
    "self_attention.k_layernorm.weight": ("whole", ("self_attn.k_norm.weight",)),
    "self_attention.linear_proj.weight": ("columns", ("self_attn.o_proj.weight",)),
    "mlp.linear_fc1.weight": ("gate_up", ("mlp.gate_proj.weight", "mlp.up_proj.weight")),
    "mlp.linear_fc2.weight": ("columns", ("mlp.down_proj.weight",)),
    # Transformer Engine fuses each norm into the linear layer behind it.
    "self_attention.linear_qkv.layer_norm_weight": ("whole", ("input_layernorm.weight",)),
    "mlp.linear_fc1.layer_norm_weight": ("whole", ("post_attention_layernorm.weight",)),
}
TOP: dict[str, tuple[Sharding, tuple[str, ...]]] = {
    "embedding.word_embeddings.weight": ("rows", ("model.embed_tokens.weight",)),
    "decoder.final_layernorm.weight": ("whole", ("model.norm.weight",)),
    "output_layer.weight": ("rows", ("lm_head.weight",)),
}


class Box(NamedTuple):
    """A block of a matrix: its first row and column, and how many there are of each."""

    row: int
    column: int
    rows: int
    columns: int

    @property
    def elements(self) -> int:
        return self.rows * self.columns

    def meet(self, other: Box) -> Box | None:
        """What two boxes of one matrix have in common.

        >>> Box(0, 0, 4, 2).meet(Box(3, 1, 4, 9)), Box(0, 0, 4, 2).meet(Box(4, 0, 1, 1))
        (Box(row=3, column=1, rows=1, columns=1), None)
        """
        row, column = max(self.row, other.row), max(self.column, other.column)
        rows = min(self.row + self.rows, other.row + other.rows) - row
        columns = min(self.column + self.columns, other.column + other.columns) - column
        return Box(row, column, rows, columns) if rows > 0 and columns > 0 else None


class Part(NamedTuple):
    """A box of a whole tensor, and the row and column of a shard where it begins."""

    tensor: str
    whole: Box
    row: int
    column: int

    def within(self, box: Box) -> Part | None:
        """What of it lies in a box of the shard, still counted from the shard's first row and column."""
        if (met := Box(self.row, self.column, self.whole.rows, self.whole.columns).meet(box)) is None:
            return None
        row, column = self.whole.row + met.row - self.row, self.whole.column + met.column - self.column
        return Part(self.tensor, Box(row, column, met.rows, met.columns), met.row, met.column)


class Copy(NamedTuple):
    """A box of one shard that goes into an equal box of another; and again so many rows further on."""

    source_row: int
    source_column: int
    row: int
    column: int
    rows: int
    columns: int
    repeats: int = 1
    source_step: int = 0  # rows from one repetition to the next
    step: int = 0

    @property
    def elements(self) -> int:
        return self.rows * self.columns * self.repeats


@functools.cache
def _matrices(model: Model) -> dict[str, tuple[int, int]]:
    return {name: (shape[0], shape[1] if len(shape) > 1 else 1) for name, shape in tensor_names(model).items()}


def matrix(name: str, model: Model) -> tuple[int, int]:
    """Rows and columns of a whole Hugging Face tensor."""
    return _matrices(model)[name]


@functools.cache
def parameters_of(model: Model, num_layers: int | None = None) -> tuple[tuple[Sharding, tuple[str, ...]], ...]:
    """Every parameter of Megatron by the Hugging Face tensors that it holds, in a model of so many layers."""
    layers = range(model.num_layers if num_layers is None else num_layers)
    entries = [*TOP.values()]
    for layer in layers:
        entries += [(kind, tuple(f"model.layers.{layer}.{name}" for name in names)) for kind, names in LAYER.values()]
    return tuple(entry for entry in dict.fromkeys(entries) if entry[1][0] in _matrices(model))


def shard_shape(sharding: Sharding, names: Sequence[str], model: Model, degree: int) -> tuple[int, int]:
    """Rows and columns of a Megatron parameter on each of `degree` tensor-parallel ranks."""
    rows, columns = matrix(names[0], model)
    if sharding == "whole":
        return rows, columns
    if sharding == "rows":
        return -(-rows // degree), columns  # the last rank pads
    if sharding == "columns":
        return rows, columns // degree
    if sharding == "gate_up":
        return 2 * (rows // degree), columns
    return (model.num_heads + 2 * model.num_kv_heads) * model.head_dim // degree, columns


def parts(sharding: Sharding, names: Sequence[str], model: Model, degree: int, rank: int) -> list[Part]:
    """What rank `rank` of `degree` tensor-parallel ranks holds of the Hugging Face tensors `names`, in its order."""
    rows, columns = matrix(names[0], model)
    if sharding == "whole":
        return [Part(names[0], Box(0, 0, rows, columns), 0, 0)]
    if sharding == "rows":
        return rows_of_share(names[0], model, -(-rows // degree), rank)
    if sharding == "columns":
        share = columns // degree
        return [Part(names[0], Box(0, rank * share, rows, share), 0, 0)]
    if sharding == "gate_up":
        share = rows // degree
        return [Part(name, Box(rank * share, 0, share, columns), i * share, 0) for i, name in enumerate(names)]
    head, queries = model.head_dim, model.num_heads // model.num_kv_heads * model.head_dim
    q, k, v = names
    found = []
    for group in range(model.num_kv_heads // degree):
        number, row = rank * (model.num_kv_heads // degree) + group, group * (queries + 2 * head)
        found.append(Part(q, Box(number * queries, 0, queries, columns), row, 0))
        found.append(Part(k, Box(number * head, 0, head, columns), row + queries, 0))
        found.append(Part(v, Box(number * head, 0, head, columns), row + queries + head, 0))
    return found


def rows_of_share(name: str, model: Model, share: int, rank: int) -> list[Part]:
    """What a rank holds whose shard has `share` rows, of which those past the tensor's last are padding."""
    rows, columns = matrix(name, model)
    first = rank * share
    return [Part(name, Box(first, 0, min(share, rows - first), columns), 0, 0)] if first < rows else []


def copies(have: Sequence[Part], want: Iterable[Part]) -> list[Copy]:
    """What of a wanted shard a shard has: a copy for each pair of parts that meet, in the order of `want`."""
    found = []
    for part in want:
        for other in have:
            if other.tensor == part.tensor and (met := other.whole.meet(part.whole)) is not None:
                found.append(
                    Copy(
                        source_row=other.row + met.row - other.whole.row,
                        source_column=other.column + met.column - other.whole.column,
                        row=part.row + met.row - part.whole.row,
                        column=part.column + met.column - part.whole.column,
                        rows=met.rows,
                        columns=met.columns,
                    )
                )
    return found


def merged(found: Iterable[Copy]) -> list[Copy]:
    """The same copies in the same order, with those that follow each other at equal steps made one.

    >>> merged([Copy(0, 0, 0, 0, 2, 8), Copy(4, 0, 2, 0, 2, 8), Copy(8, 0, 4, 0, 2, 8)])
    [Copy(source_row=0, source_column=0, row=0, column=0, rows=2, columns=8, repeats=3, source_step=4, step=2)]
    >>> merged([Copy(5, 0, 1, 0, 2, 8), Copy(7, 0, 3, 0, 1, 8)])
    [Copy(source_row=5, source_column=0, row=1, column=0, rows=3, columns=8, repeats=1, source_step=0, step=0)]
    """
    result: list[Copy] = []
    for copy in found:
        longer = _with(result[-1], copy) if result else None
        if longer is None:
            result.append(copy)
        else:
            result[-1] = longer
    return result


def _with(one: Copy, copy: Copy) -> Copy | None:
    """Both as one copy, if they can be that."""
    if (one.columns, one.source_column, one.column) != (copy.columns, copy.source_column, copy.column):
        return None
    source_step, step = copy.source_row - one.source_row, copy.row - one.row
    if one.repeats == 1 and source_step == step == one.rows:
        return one._replace(rows=one.rows + copy.rows)
    if one.rows != copy.rows or min(source_step, step) <= 0:
        return None
    if one.repeats == 1:
        return one._replace(repeats=2, source_step=source_step, step=step)
    if (source_step, step) == (one.repeats * one.source_step, one.repeats * one.step):
        return one._replace(repeats=one.repeats + 1)
    return None


def boxes_of_range(start: int, end: int, columns: int) -> list[Box]:
    """The elements from `start` to before `end` of a matrix, row after row: a first row, whole rows, a last one.

    >>> [tuple(box) for box in boxes_of_range(3, 18, 5)]
    [(0, 3, 1, 2), (1, 0, 2, 5), (3, 0, 1, 3)]
    """
    (first, column), (last, rest) = divmod(start, columns), divmod(end, columns)
    if first == last:
        return [Box(first, column, 1, rest - column)] if rest > column else []
    found = []
    if column:
        found.append(Box(first, column, 1, columns - column))
        first += 1
    if last > first:
        found.append(Box(first, 0, last - first, columns))
    return [*found, Box(last, 0, 1, rest)] if rest else found
