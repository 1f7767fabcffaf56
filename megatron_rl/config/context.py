"""What context parallelism makes of the lengths of sequences, and what it asks of a scale, before torch is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megatron_rl.config.checks import longest_sequence, require
from megatron_rl.config.precision import token_multiple

if TYPE_CHECKING:
    from megatron_rl.config.records import Recipe, Scale

HEAD_MULTIPLE, LARGEST_HEAD = 8, 256


def sequence_multiple(degree: int) -> int:
    """What the tokens of each sequence are padded to a multiple of: each of `degree` ranks has two chunks of it.

    >>> [sequence_multiple(degree) for degree in (1, 2, 4)]
    [1, 4, 8]
    """
    return 2 * degree if degree > 1 else 1


def padded_length(length: int, degree: int) -> int:
    """Tokens of a sequence with its padding.

    >>> [padded_length(length, 2) for length in (1, 4, 5)], padded_length(5, 1)
    ([4, 4, 8], 5)
    """
    multiple = sequence_multiple(degree)
    return -(-length // multiple) * multiple


def check_context(recipe: Recipe, scale: Scale) -> None:
    """Raises UserError where sequences or heads cannot be shared by so many context-parallel ranks."""
    degree, model, where = scale.context_parallel, recipe.model, f"scale '{scale.name}'"
    asked, exchange = f"context_parallel={degree}", scale.context_exchange
    require(
        exchange == "p2p" or (degree > 1 and scale.device == "cuda"),
        f"{where}: context_exchange='{exchange}' is of context parallelism on a GPU; set device='cuda' and "
        "context_parallel of 2 or more, or context_exchange='p2p'",
    )
    if degree == 1:
        return
    if scale.device == "cuda":
        _check_kernel(recipe, scale)
    tokens, multiple = scale.max_tokens_per_microbatch, token_multiple(scale)
    require(
        tokens % multiple == 0,
        f"{where}: max_tokens_per_microbatch={tokens} is no multiple of {multiple}, the tokens that {asked} shares out "
        f"at a time; use {-(-tokens // multiple) * multiple}",
    )
    longest = longest_sequence(recipe)
    needed = -(-padded_length(longest, degree) // multiple) * multiple
    require(
        needed <= tokens,
        f"{where}: max_tokens_per_microbatch={tokens} cannot hold a sequence of {longest} tokens, padded for {asked}; "
        f"use at least {needed}",
    )
    for field in ("num_heads", "num_kv_heads") if exchange == "a2a" else ():
        of_rank = getattr(model, field) // scale.tensor_parallel
        require(
            of_rank % degree == 0,
            f"{where}: context_exchange='a2a' deals out heads, and {field} / tensor_parallel = {of_rank} of model "
            f"{model.name} does not divide into {asked}; use context_exchange='p2p'",
        )


def _check_kernel(recipe: Recipe, scale: Scale) -> None:
    """Raises UserError where cuDNN has no attention for packs that ranks of an H100 share; there is no other for them.

    Source: Transformer Engine 2.16, get_attention_backend, and nvte_get_fused_attn_backend with cuDNN 9.19.
    """
    model, where, asked = recipe.model, f"scale '{scale.name}'", f"context_parallel={scale.context_parallel}"
    require(
        scale.precision != "fp32",
        f"{where}: {asked} on a GPU needs cuDNN's attention, which takes no fp32; use precision='bf16' or 'fp16', or "
        "context_parallel=1",
    )
    require(
        model.head_dim % HEAD_MULTIPLE == 0 and model.head_dim <= LARGEST_HEAD,
        f"{where}: {asked} on a GPU needs cuDNN's attention, which takes heads of a multiple of {HEAD_MULTIPLE}, "
        f"{LARGEST_HEAD} at most, and head_dim={model.head_dim} of model {model.name} is none; use context_parallel=1",
    )
