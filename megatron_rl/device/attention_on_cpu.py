"""Layer spec for a machine without Transformer Engine: norm, rotary embedding and attention that know packs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


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


class PackRotation:
    """Rotary embedding of a pack, in place of Megatron's, which makes its tables anew for each layer, query and key.

    Holds the tables of the last pack met.
    """

    def __init__(self) -> None:
        self._pack: tuple[Tensor, Tensor] | None = None  # where its sequences start, and the angles [longest, 1, 1, d]
        self._tables: tuple[Tensor, Tensor] | None = None  # cosines and sines [T, 1, d]

    def __call__(self, x: Tensor, starts: Tensor, angles: Tensor, *_: Any, **__: Any) -> Tensor:
        """x [T, heads, d], each sequence rotated from position 0 on."""
        if self._tables is None or self._pack is None or self._pack[0] is not starts or self._pack[1] is not angles:
            positions = torch.arange(len(x)) - starts[:-1].long().repeat_interleave(starts.diff().long())
            own = angles[positions, 0]
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

    q [T, heads, d], k and v [T, groups, d] -> [T, heads * d].
    """

    def __init__(self, config: Any, *_: Any, softmax_scale: float | None = None, **__: Any) -> None:
        super().__init__()
        self.scale = softmax_scale

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *_: Any, packed_seq_params: Any, **__: Any) -> Tensor:
        starts = packed_seq_params.cu_seqlens_q.long()
        lengths, longest = starts.diff(), int(packed_seq_params.max_seqlen_q)
        # Sequences are padded on the right, where the causal mask hides the padding from every real token.
        rows = torch.repeat_interleave(torch.arange(len(lengths)) * longest - starts[:-1], lengths)
        rows += torch.arange(len(rows))
        shape = (len(lengths), longest)

        def padded(x: Tensor) -> Tensor:
            flat = x.new_zeros(shape[0] * shape[1], *x.shape[1:]).index_copy(0, rows, x)
            return flat.view(*shape, *x.shape[1:]).transpose(1, 2)

        out = F.scaled_dot_product_attention(
            padded(q), padded(k), padded(v), is_causal=True, scale=self.scale, enable_gqa=True
        )
        return out.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, rows)


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
