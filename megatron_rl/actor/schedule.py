"""One call into Megatron's own forward-backward schedule, for packs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from megatron_rl.actor.vocabulary import Head
from megatron_rl.types import Pack

Loss = Callable[[Head, Pack], tuple[Tensor, Tensor]]  # (head, pack) -> (sum of the loss, tokens)
Read = Callable[[Head, Pack], Tensor]  # (head, pack) -> what is wanted of its logits


def forward_backward(chunks: Sequence[Any], packs: Sequence[Pack], loss: Loss) -> None:
    """Accumulates the gradient of sum(loss) / sum(tokens), over all packs and ranks. Collective over the world."""

    def step(head: Head, pack: Pack) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        total, tokens = loss(head, pack)
        return total, tokens.int(), {}

    _run(chunks, packs, step, forward_only=False)


@torch.no_grad()
def forward(chunks: Sequence[Any], packs: Sequence[Pack], read: Read) -> list[Tensor]:
    """What `read` makes of each pack's head; empty off the last pipeline stage. Collective over the pipeline."""
    result: list[Tensor] = _run(chunks, packs, read, forward_only=True)
    return result


def _run(chunks: Sequence[Any], packs: Sequence[Pack], function: Callable[..., Any], *, forward_only: bool) -> Any:
    from megatron.core.pipeline_parallel import get_forward_backward_func
    from megatron.core.utils import get_attr_wrapped_model

    def head_of(chunk: Any) -> Callable[[Tensor], Head]:
        found: Callable[[Tensor], Head] = get_attr_wrapped_model(chunk, "head")
        return found

    def forward_step(packs_left: Any, chunk: Any) -> tuple[Tensor, Callable[..., Any]]:
        pack = on_device(next(packs_left), next(chunk.parameters()).device)
        output = chunk(pack.token_ids[None], pack.position_ids[None], None, packed_seq_params=_sequences(pack))
        # squeeze, not [0]: the backward pass of an index makes a second tensor of the whole size.
        return output, lambda hidden, non_loss_data=False: function(head_of(chunk)(hidden.squeeze(0)), pack)

    iterators = [iter(packs) for _ in chunks]
    return get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=iterators if len(chunks) > 1 else iterators[0],
        model=list(chunks) if len(chunks) > 1 else chunks[0],
        num_microbatches=len(packs),
        seq_length=len(packs[0].token_ids),
        micro_batch_size=1,
        forward_only=forward_only,
        collect_non_loss_data=forward_only,
    )


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


def _sequences(pack: Pack) -> Any:
    from megatron.core.packed_seq_params import PackedSeqParams

    starts = pack.cumulative_lengths
    return PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=starts,
        cu_seqlens_kv=starts,
        max_seqlen_q=pack.longest,
        max_seqlen_kv=pack.longest,
    )
