"""Layers for a machine without Transformer Engine: norm, gate, and rotary embedding and attention that know packs."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from megatron_rl import chunks

LEAST_SHARE = 0.75  # of the longest sequence of a batch, to which the others are padded
SHORT = 32  # tokens, up to which padding costs less than another batch


class RMSNorm(torch.nn.Module):
    """Root-mean-square norm in fp32; Megatron's own wrapper refuses sequence parallelism."""

    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.eps = eps
        self.weight = torch.nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype))
        # Its gradient is then summed over the tensor-parallel group.
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = _Norm.apply(x.float(), self.weight.float(), self.eps)
        return normed.to(x.dtype)


class _Norm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) * weight; torch's own is put together of seven operations on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = torch.linalg.vecdot(x, x).div_(x.shape[-1]).add_(eps).rsqrt_().unsqueeze(-1)
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        normed, scale, weight = ctx.saved_tensors
        of_weight = (gradient * normed).flatten(0, -2).sum(0)
        of_normed = gradient * weight
        along = torch.linalg.vecdot(of_normed, normed).div_(-normed.shape[-1]).unsqueeze(-1)
        return of_normed.addcmul_(normed, along).mul_(scale), of_weight, None


def gated_silu(x: Tensor, bias: Tensor | None, *_: Any) -> Tensor:
    """silu(a) * b of the halves [..., (a, b)], in place of Megatron's own, whose parts are compiled for a GPU."""
    assert bias is None, "a gated layer with a bias"
    result: Tensor = _GatedSilu.apply(x)
    return result


class _GatedSilu(torch.autograd.Function):
    """The gradients of both halves go where they belong in one tensor; autograd would make two and copy them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        gate, up = x.chunk(2, -1)
        opened = F.silu(gate)
        ctx.save_for_backward(gate, up, opened)
        return opened * up

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        gate, up, opened = ctx.saved_tensors
        both = gradient.new_empty(*gate.shape[:-1], 2 * gate.shape[-1])
        of_gate, of_up = both.chunk(2, -1)
        torch.ops.aten.silu_backward.grad_input(gradient * up, gate, grad_input=of_gate)
        torch.mul(gradient, opened, out=of_up)
        return both


class PackRotation:
    """Rotary embedding of a pack, in place of Megatron's, which makes its tables anew for each layer, query and key.

    Holds the tables of the last pack met.
    """

    def __init__(self) -> None:
        self._pack: tuple[Tensor, Tensor] | None = None  # where its sequences start, and the angles [longest, 1, 1, d]
        self._tables: tuple[Tensor, Tensor] | None = None  # cosines and sines [T, 1, d]

    def __call__(self, x: Tensor, starts: Tensor, angles: Tensor, *_: Any, cp_group: Any = None, **__: Any) -> Tensor:
        """x [T, heads, d], each sequence rotated from position 0 on; of it a context-parallel rank has its chunks."""
        if self._tables is None or self._pack is None or self._pack[0] is not starts or self._pack[1] is not angles:
            degree, rank = (1, 0) if cp_group is None else (cp_group.size(), cp_group.rank())
            own = angles[chunks.positions(starts, degree, rank), 0]
            self._pack, self._tables = (starts, angles), (own.cos().to(x.dtype), own.sin().to(x.dtype))
        result: Tensor = _Rotation.apply(x, *self._tables)
        return result


class _Rotation(torch.autograd.Function):
    """(a, b) -> (a cos - b sin, b cos + a sin) for the two halves of each head; backward turns the other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.save_for_backward(cosines, sines)
        return _rotated(x, cosines, sines, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _rotated(gradients[0], *ctx.saved_tensors, -1), None, None


def _rotated(x: Tensor, cosines: Tensor, sines: Tensor, direction: int) -> Tensor:
    half = x.shape[-1] // 2
    turned = x * cosines
    turned[..., :half].addcmul_(x[..., half:], sines[..., :half], value=-direction)
    turned[..., half:].addcmul_(x[..., :half], sines[..., half:], value=direction)
    return turned


class PackedAttention(torch.nn.Module):
    """Causal attention within each sequence of a pack; Megatron's own refuses packs.

    q [T, heads, d], k and v [T, groups, d] -> [T, heads * d]. Of context-parallel ranks each has its chunks of the
    sequences, and for them needs all keys and values: collective over those ranks.
    """

    def __init__(
        self, config: Any, *_: Any, softmax_scale: float | None = None, pg_collection: Any = None, **__: Any
    ) -> None:
        super().__init__()
        self.scale = softmax_scale
        self.group = pg_collection.cp

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *_: Any, packed_seq_params: Any, **__: Any) -> Tensor:
        degree, rank = self.group.size(), self.group.rank()
        if degree == 1:
            starts = packed_seq_params.cu_seqlens_q.long()
        else:
            starts = packed_seq_params.cu_seqlens_q_padded.long()
            everyone = _OfAllRanks.apply(torch.cat([k, v], 1), chunks.gathered(starts, degree), self.group)
            k, v = everyone.chunk(2, 1)
        batches = [torch.tensor(lengths) for lengths in _batches(starts.diff().tolist())]
        sizes = [int(lengths.sum()) for lengths in batches]
        own = [size // degree for size in sizes]
        parts = zip(batches, q.split(own), k.split(sizes), v.split(sizes), strict=True)
        return torch.cat([self._attended(lengths, *part, degree, rank) for lengths, *part in parts])

    def _attended(self, lengths: Tensor, q: Tensor, k: Tensor, v: Tensor, degree: int, rank: int) -> Tensor:
        """Of sequences of these lengths, all padded to the longest."""
        longest, own = int(lengths.max()), lengths // degree
        rows, all_rows, mask = _rows(own, longest // degree), _rows(lengths, longest), None
        queries = _padded(q, rows, len(lengths), longest // degree)
        keys, values = (_padded(x, all_rows, len(lengths), longest) for x in (k, v))
        if degree > 1:
            starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
            at = _padded(chunks.positions(starts, degree, rank), rows, len(lengths), longest // degree)
            mask = torch.arange(longest) <= at[:, None, :, None]
        out = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=mask is None, scale=self.scale, enable_gqa=True
        )
        return out.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, rows)


def _batches(lengths: list[int]) -> list[list[int]]:
    """Sequences that follow each other and waste little when they are padded to the longest of them.

    A short one that fills up a pack of long ones would otherwise cost as much as they do.

    >>> _batches([1000, 900, 300, 20, 20, 9])
    [[1000, 900], [300], [20, 20, 9]]
    """
    batches: list[list[int]] = []
    longest = shortest = 0
    for length in lengths:
        longest, shortest = max(longest, length), min(shortest, length)
        if not batches or (shortest < LEAST_SHARE * longest and longest > SHORT):
            batches.append([])
            longest = shortest = length
        batches[-1].append(length)
    return batches


def _rows(lengths: Tensor, longest: int) -> Tensor:
    """Where the tokens of a pack lie once each of its sequences fills `longest` rows [T].

    Sequences are padded on the right, where the causal mask hides the padding from every real token.
    """
    before = lengths.cumsum(0) - lengths
    rows = torch.repeat_interleave(torch.arange(len(lengths)) * longest - before, lengths)
    return rows + torch.arange(len(rows))


def _padded(x: Tensor, rows: Tensor, num_sequences: int, longest: int) -> Tensor:
    """[T, heads, d] -> [sequences, heads, longest, d]; [T] -> [sequences, longest]."""
    flat = x.new_zeros(num_sequences * longest, *x.shape[1:]).index_copy(0, rows, x)
    batch = flat.view(num_sequences, longest, *x.shape[1:])
    return batch.transpose(1, 2) if x.dim() > 1 else batch


class _OfAllRanks(torch.autograd.Function):
    """What all ranks of a group have [T / ranks, ...], in the order of `places` [T, ...].

    All of them use it, so that in the backward pass each gets the sum of the gradients that its part has anywhere.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, places: Tensor, group: Any) -> Tensor:
        ctx.places, ctx.group = places, group
        parts = [torch.empty_like(own) for _ in range(group.size())]
        dist.all_gather(parts, own, group=group)
        return torch.cat(parts).index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        parts = gradient.new_empty(gradient.shape).index_copy_(0, ctx.places, gradient).chunk(ctx.group.size())
        own = torch.empty_like(parts[0])
        dist.reduce_scatter(own, list(parts), group=ctx.group)
        return own, None, None


def block_spec(config: Any, virtual_stage: int | None) -> Any:
    """Megatron's spec of one pipeline chunk; the final norm belongs to the block, not to a layer."""
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build

    layer = get_gpt_layer_local_spec(qk_layernorm=config.qk_layernorm, normalization="RMSNorm")
    parts = layer.submodules
    parts.input_layernorm = parts.pre_mlp_layernorm = RMSNorm
    attention = parts.self_attention.submodules
    attention.core_attention = PackedAttention
    if config.qk_layernorm:
        attention.q_layernorm = attention.k_layernorm = RMSNorm
    num_layers = get_num_layers_to_build(config, vp_stage=virtual_stage)
    return TransformerBlockSubmodules(layer_specs=[layer] * num_layers, layer_norm=RMSNorm)
