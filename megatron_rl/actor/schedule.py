"""One call into Megatron's own forward-backward schedule, for packs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from megatron_rl.actor import context
from megatron_rl.actor.context import Share
from megatron_rl.actor.vocabulary import Head
from megatron_rl.types import Pack

Loss = Callable[[Head, Share], tuple[Tensor, Tensor]]  # -> (sum of the loss, tokens) of the whole pack
Read = Callable[[Head, Share], Tensor]  # -> what is wanted of its logits


def forward_backward(chunks: Sequence[Any], packs: Sequence[Pack], loss: Loss) -> None:
    """Accumulates the gradient of sum(loss) / sum(tokens), over all packs and ranks. Collective over the world."""

    def step(head: Head, share: Share) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        total, tokens = loss(head, share)
        # Megatron adds up the tokens of all ranks, and those that share a pack would each count the whole of it.
        return total, tokens.int() * share.is_first, {}

    _run(chunks, packs, step, forward_only=False)


@torch.no_grad()
def forward(chunks: Sequence[Any], packs: Sequence[Pack], read: Read) -> list[Tensor]:
    """What `read` makes of each pack's head; empty off the last pipeline stage. Collective over the replica's ranks."""
    with _without_recomputation(chunks):
        result: list[Tensor] = _run(chunks, packs, read, forward_only=True)
    return result


@contextmanager
def _without_recomputation(chunks: Sequence[Any]) -> Iterator[None]:
    """Passes inside remember nothing for a backward pass that does not come.

    Megatron recomputes whether or not there are gradients. In FP8 Transformer Engine 2.16 then notes, layer by layer,
    the scales to recompute with; a pass without gradients would leave its notes to the next update, which takes the
    oldest first, and they would be more with each step.
    """
    from megatron.core.utils import get_model_config

    config = get_model_config(chunks[0])
    layers = [module for chunk in chunks for module in chunk.modules() if getattr(module, "recompute_mlp", False)]
    granularity, config.recompute_granularity = config.recompute_granularity, None
    for layer in layers:
        layer.recompute_mlp = False
    try:
        yield
    finally:
        config.recompute_granularity = granularity
        for layer in layers:
            layer.recompute_mlp = True


def _run(chunks: Sequence[Any], packs: Sequence[Pack], function: Callable[..., Any], *, forward_only: bool) -> Any:
    from megatron.core import parallel_state
    from megatron.core.pipeline_parallel import get_forward_backward_func
    from megatron.core.utils import get_attr_wrapped_model

    def head_of(chunk: Any) -> Callable[[Tensor], Head]:
        found: Callable[[Tensor], Head] = get_attr_wrapped_model(chunk, "head")
        return found

    group = parallel_state.get_context_parallel_group()

    def forward_step(packs_left: Any, chunk: Any) -> tuple[Tensor, Callable[..., Any]]:
        share = context.share(next(packs_left), group, next(chunk.parameters()).device)
        output = chunk(share.token_ids[None], share.position_ids[None], None, packed_seq_params=share.sequences)
        # squeeze, not [0]: the backward pass of an index makes a second tensor of the whole size.
        return output, lambda hidden, non_loss_data=False: function(head_of(chunk)(hidden.squeeze(0)), share)

    iterators = [iter(packs) for _ in chunks]
    return get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=iterators if len(chunks) > 1 else iterators[0],
        model=list(chunks) if len(chunks) > 1 else chunks[0],
        num_microbatches=len(packs),
        seq_length=context.num_tokens(packs[0], group.size()),
        micro_batch_size=1,
        forward_only=forward_only,
        collect_non_loss_data=forward_only,
    )
