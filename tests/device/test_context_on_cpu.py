"""Attention of context-parallel ranks is that of one rank, and so are its gradients."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from tests.ranks import run_ranks

LENGTHS = (40, 1, 5, 3, 17, 8)  # longer than the rest, shorter than the chunks of four ranks, one token, whole chunks
HEADS, GROUPS, DIMENSIONS = 4, 2, 6


def attention_of(degree: int) -> dict[str, float]:
    """Runs on every rank of a world of `degree`: the largest differences to the attention of one rank, written out."""
    from megatron_rl import chunks
    from megatron_rl.actor.context import share
    from megatron_rl.device.attention_on_cpu import PackedAttention
    from megatron_rl.types import Pack

    dist.init_process_group("gloo")
    group = dist.group.WORLD
    torch.manual_seed(1)
    starts = torch.tensor([0, *itertools.accumulate(LENGTHS)], dtype=torch.int32)
    size = int(starts[-1])
    whole = [torch.randn(size, heads, DIMENSIONS).double() for heads in (HEADS, GROUPS, GROUPS)]
    wanted = torch.randn(size, HEADS * DIMENSIONS).double()
    for x in whole:
        x.requires_grad_()
    expected = written_out(*whole)
    (expected * wanted).sum().backward()

    rank, zeros = dist.get_rank(), torch.zeros(size)
    pack = Pack(
        token_ids=torch.arange(size), targets=torch.arange(size), position_ids=zeros.long(), cumulative_lengths=starts,
        longest=max(LENGTHS), sequences=zeros.long(), response_mask=zeros, loss_weights=zeros, rollout_logprobs=zeros,
    )  # fmt: skip
    part = share(pack, group, torch.device("cpu"))
    padded = chunks.padded(starts, degree)
    own = chunks.tokens(padded, degree, rank)
    places = chunks.places(starts, degree)

    def mine(x: torch.Tensor) -> torch.Tensor:
        wide = torch.full((int(padded[-1]), *x.shape[1:]), 7.0).double()  # of padding, nothing may be seen
        return wide.index_copy(0, places, x.detach())[own]

    local = [mine(x).requires_grad_() for x in whole]
    attention = PackedAttention(None, pg_collection=SimpleNamespace(cp=group))
    out = attention(*local, packed_seq_params=part.sequences)
    found = part.whole(out.t()).t()
    (found * wanted).sum().backward()
    is_real = torch.zeros(int(padded[-1])).index_fill(0, places, 1.0)[own].bool()
    gaps = part.sequences.cu_seqlens_q_padded - part.sequences.cu_seqlens_q
    difference = {"out": float((found - expected).detach().abs().max()), "gaps": float(gaps.abs().max())}
    for name, x, y in zip("qkv", whole, local, strict=True):
        difference[name] = float((mine(x.grad) - y.grad)[is_real].abs().max())
        difference[f"padding of {name}"] = float(y.grad[~is_real].abs().max()) if not is_real.all() else 0.0
    return difference


def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The oracle: every query of every sequence against the keys up to its own."""
    rows = []
    for start, length in zip([0, *itertools.accumulate(LENGTHS)], LENGTHS, strict=False):
        for here in range(start, start + length):
            heads = []
            for head in range(HEADS):
                group = head * GROUPS // HEADS
                scores = k[start : here + 1, group] @ q[here, head] / DIMENSIONS**0.5
                heads.append(scores.softmax(0) @ v[start : here + 1, group])
            rows.append(torch.cat(heads))
    return torch.stack(rows)


@pytest.mark.ranks
@pytest.mark.parametrize("degree", [2, 4])
def test_attention_over_ranks_is_that_of_one(degree: int) -> None:
    for rank in run_ranks("tests.device.test_context_on_cpu:attention_of", degree, degree=degree):
        assert all(difference < 1e-12 for difference in rank.values()), rank
