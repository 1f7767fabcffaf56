from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from megatron_rl.device.attention_on_cpu import PackedAttention, PackRotation, gated_silu

LENGTHS, HEADS, DIMENSIONS = (3, 1, 4), 2, 6


def angles(longest: int) -> torch.Tensor:
    """[longest, 1, 1, d] as Megatron makes them: the same frequencies for both halves of a head."""
    frequencies = 10000.0 ** (-torch.arange(0, DIMENSIONS, 2).double() / DIMENSIONS)
    half = torch.arange(longest).double()[:, None] * frequencies
    return torch.cat([half, half], 1)[:, None, None]


def starts(lengths: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


def rotated(x: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    """The oracle: each pair of coordinates as a complex number, turned by position times frequency."""
    parts = []
    for part in x.split(lengths):
        pairs = torch.complex(part[..., : DIMENSIONS // 2], part[..., DIMENSIONS // 2 :])
        turned = pairs * torch.polar(torch.ones(()).double(), angles(len(part))[:, 0, :, : DIMENSIONS // 2])
        parts.append(torch.cat([turned.real, turned.imag], -1))
    return torch.cat(parts)


def test_each_sequence_of_a_pack_is_rotated_from_position_zero() -> None:
    rotate = PackRotation()
    for lengths in (LENGTHS, (1, 6, 1)):  # the tables of the first pack are not those of the second
        x = torch.randn(sum(lengths), HEADS, DIMENSIONS, dtype=torch.float64)
        torch.testing.assert_close(rotate(x, starts(lengths), angles(max(lengths))), rotated(x, lengths))


def test_the_tables_of_a_pack_serve_query_and_key_of_all_layers() -> None:
    rotate = PackRotation()
    pack = starts(LENGTHS), angles(max(LENGTHS))
    for heads in (HEADS, 1, HEADS):
        x = torch.randn(sum(LENGTHS), heads, DIMENSIONS, dtype=torch.float64)
        torch.testing.assert_close(rotate(x, *pack), rotated(x, LENGTHS))


def test_the_gradient_of_a_rotation_is_right() -> None:
    x = torch.randn(sum(LENGTHS), HEADS, DIMENSIONS, dtype=torch.float64, requires_grad=True)
    rotate = PackRotation()
    assert torch.autograd.gradcheck(lambda value: rotate(value, starts(LENGTHS), angles(max(LENGTHS))), (x,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gate_has_the_bits_of_the_plain_formula(dtype: torch.dtype) -> None:
    plain, ours = (torch.randn(5, 1, 12, generator=torch.Generator().manual_seed(0)).to(dtype) for _ in range(2))
    plain.requires_grad_(), ours.requires_grad_()
    gate, up = plain.chunk(2, -1)
    expected, found = torch.nn.functional.silu(gate) * up, gated_silu(ours, None)
    gradient = torch.randn_like(expected)
    expected.backward(gradient), found.backward(gradient)
    assert torch.equal(found, expected) and torch.equal(ours.grad, plain.grad)


def test_megatron_calls_both() -> None:
    from megatron.core.models.common.embeddings import rope_utils
    from megatron.core.transformer import mlp

    from megatron_rl.device.megatron_on_cpu import adapt_megatron

    adapt_megatron()
    assert isinstance(rope_utils._apply_rotary_pos_emb_thd, PackRotation)
    assert mlp.bias_swiglu_impl is gated_silu


@pytest.mark.parametrize("lengths", [(50, 47, 12, 3, 1), (1, 70, 2, 69), (9,)])
def test_each_sequence_of_a_pack_attends_to_itself_alone(lengths: tuple[int, ...]) -> None:
    """Whatever other lengths it is padded with."""
    q, k, v = (torch.randn(sum(lengths), heads, DIMENSIONS).double().requires_grad_() for heads in (4, 2, 2))
    attention = PackedAttention(None, pg_collection=SimpleNamespace(cp=SimpleNamespace(size=lambda: 1, rank=lambda: 0)))
    found = attention(q, k, v, packed_seq_params=SimpleNamespace(cu_seqlens_q=starts(lengths)))
    parts = [x.split(lengths) for x in (q, k, v)]
    alone = [
        F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in part), is_causal=True, enable_gqa=True)
        for part in zip(*parts, strict=True)
    ]
    expected = torch.cat([out.transpose(0, 1).flatten(1) for out in alone])
    torch.testing.assert_close(found, expected)
    upstream = torch.randn(expected.shape).double()
    for one, other in zip(*(torch.autograd.grad(x, (q, k, v), upstream) for x in (found, expected)), strict=True):
        torch.testing.assert_close(one, other)
