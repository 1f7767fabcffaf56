"""Context parallelism: what one of the ranks that share a pack computes of it, and all of it put together again.

A pack is whole and without padding everywhere else: algorithms, metrics and the loss never know. The schedule gives a
rank its chunks of every sequence, by the algebra of chunks.py; attention brings the keys and values of the others; and
what a rank finds of its tokens is gathered, so that each has the same loss of the whole pack. In the backward pass a
rank gets the gradient of its own tokens, and Megatron adds up over the ranks.

Over gloo this is proven against one rank. On a GPU attention is Transformer Engine's ring, or its exchange of heads:
no GPU has run it yet.

Not covered: attention with a sliding window, packs of another kind than whole sequences.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_rl import chunks
from megatron_rl.types import Pack


@dataclass(frozen=True, kw_only=True)
class Share:
    """A pack, and what this context-parallel rank has of it: T' tokens, of a padded pack of ranks x T'."""

    pack: Pack
    token_ids: Tensor  # [T'] int64
    targets: Tensor  # [T'] int64
    position_ids: Tensor  # [T'] int64
    sequences: Any  # Megatron's PackedSeqParams, of the whole pack
    places: Tensor | None  # [T]: where the pack's tokens lie in what the ranks have, one after the other; None: as here
    group: Any  # of the ranks that share the pack

    @property
    def is_first(self) -> bool:
        """True on the one rank of those that share the pack whose sums stand for it."""
        return bool(self.group.rank() == 0)

    def whole(self, values: Tensor) -> Tensor:
        """Values of this rank's tokens [..., T'] as those of the whole pack [..., T], differentiable.

        Each rank must go on with them in the same way: its gradient is that of its own tokens. Collective over the
        context-parallel group.
        """
        if self.places is None:
            return values
        whole: Tensor = _Whole.apply(values, self.places, self.group)
        return whole


def share(pack: Pack, group: Any, device: torch.device) -> Share:
    """What this rank of the context-parallel `group` has of a pack, on `device`."""
    here, degree = on_device(pack, device), group.size()
    if degree == 1:
        return Share(
            pack=here,
            token_ids=here.token_ids,
            targets=here.targets,
            position_ids=here.position_ids,
            sequences=_sequences(here.cumulative_lengths, pack.longest, is_shared=False),
            places=None,
            group=group,
        )
    starts = pack.cumulative_lengths.cpu()  # lengths are needed on the host
    padded, places = chunks.padded(starts, degree), chunks.places(starts, degree)
    own = chunks.tokens(padded, degree, group.rank()).to(device)

    def mine(values: Tensor) -> Tensor:
        return values.new_zeros(int(padded[-1])).index_copy(0, places.to(device), values)[own]

    return Share(
        pack=here,
        token_ids=mine(here.token_ids),
        targets=mine(here.targets),
        position_ids=chunks.positions(padded, degree, group.rank()).to(device),
        sequences=_sequences(padded.to(device), int(padded.diff().max()), is_shared=True),
        places=chunks.gathered(padded, degree)[places].to(device),
        group=group,
    )


def num_tokens(pack: Pack, degree: int) -> int:
    """Tokens of the pack once its sequences are padded for `degree` ranks."""
    return int(chunks.padded(pack.cumulative_lengths, degree)[-1])


def on_device(pack: Pack, device: torch.device) -> Pack:
    """The pack with its tensors on `device`; itself when they are there."""
    if pack.token_ids.device == device:
        return pack
    moved = {
        field.name: value.to(device, non_blocking=True)
        for field in dataclasses.fields(pack)
        if isinstance(value := getattr(pack, field.name), Tensor)
    }
    return dataclasses.replace(pack, **moved)


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, places: Tensor, group: Any) -> Tensor:
        ctx.places, ctx.group, ctx.shape, own = places, group, own.shape, own.contiguous()
        parts = [torch.empty_like(own) for _ in range(group.size())]
        dist.all_gather(parts, own, group=group)
        return torch.cat(parts, -1).index_select(-1, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Of padding zero, of the other ranks' tokens nothing: they have the same loss."""
        everyone = gradients[0].new_zeros(*ctx.shape[:-1], ctx.shape[-1] * ctx.group.size())
        everyone = everyone.index_copy(-1, ctx.places, gradients[0])
        return everyone.chunk(ctx.group.size(), -1)[ctx.group.rank()], None, None


def _sequences(starts: Tensor, longest: int, is_shared: bool) -> Any:
    """Megatron's PackedSeqParams. Where ranks share the pack, padding is the end of its sequence, not a gap after it.

    The causal mask hides it from every token before, and nothing has a gradient there. Told of gaps, Transformer Engine
    2.16 looks for them between sequences only: where the last one alone is padded, its ring would cut that one's true
    length into chunks and leave tokens out.
    """
    from megatron.core.packed_seq_params import PackedSeqParams

    return PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=starts,
        cu_seqlens_kv=starts,
        cu_seqlens_q_padded=starts if is_shared else None,
        cu_seqlens_kv_padded=starts if is_shared else None,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
    )
