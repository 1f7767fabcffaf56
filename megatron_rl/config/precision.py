"""What FP8 asks of a model's widths, of a pack's length and of the two engines together, before torch is imported."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from megatron_rl.config.checks import require

if TYPE_CHECKING:
    from megatron_rl.config.records import Model, Scale

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}  # of a weight, an activation, a number of the cache
BLOCK = 128  # numbers that one scale stands for, along either side of a weight; vLLM's kernel takes no other
# Scaling of the actor -> what tokens and widths are multiples of. The tensor cores take multiples of 16; a block that
# is not full would be gathered in bf16 under sequence parallelism.
FP8_MULTIPLE = {"off": 1, "blockwise": BLOCK, "tensorwise": 16, "delayed": 16}
# Scaling of the actor -> vLLM's name for the same.
ROLLOUT_SCALING = {
    "off": "fp8_per_block",
    "blockwise": "fp8_per_block",
    "tensorwise": "fp8_per_tensor",
    "delayed": "fp8_per_tensor",
}


def token_multiple(scale: Scale) -> int:
    """What the tokens of a pack are a multiple of: sequence parallelism splits them, and FP8 takes whole blocks.

    Under context parallelism each rank has two chunks of one size, and what it has is that multiple.

    >>> from dataclasses import replace
    >>> from recipes.scales import H100X8, H100X16_TP2
    >>> fp8 = replace(H100X16_TP2, fp8_actor="blockwise")
    >>> token_multiple(H100X8), token_multiple(H100X16_TP2), token_multiple(fp8)
    (1, 2, 256)
    >>> token_multiple(replace(H100X8, context_parallel=4)), token_multiple(replace(fp8, context_parallel=4))
    (8, 1024)
    """
    of_rank = (scale.tensor_parallel if scale.sequence_parallel else 1) * FP8_MULTIPLE[scale.fp8_actor]
    degree = scale.context_parallel
    return of_rank if degree == 1 else degree * math.lcm(2, of_rank)


def bf16_layers(model: Model, scale: Scale) -> tuple[int, ...]:
    """The layers that stay in bf16 in an actor or engine of FP8: the first and the last; none with delayed scaling.

    Transformer Engine gathers the history of delayed scaling once for all layers.
    """
    return () if scale.fp8_actor == "delayed" else (0, model.num_layers - 1)


def check_precision(model: Model, scale: Scale) -> None:
    """Raises UserError where a model at a scale cannot compute in FP8 as asked, or only half of the run would."""
    actor, where = scale.fp8_actor, f"scale '{scale.name}'"
    if actor == "off" and not scale.fp8_rollout:
        return
    asked = f"fp8_actor='{actor}'" if actor != "off" else "fp8_rollout=true"
    require(
        scale.device == "cuda" and scale.precision == "bf16",
        f"{where}: {asked} needs device='cuda' and precision='bf16', not '{scale.device}' and '{scale.precision}'; "
        "leave FP8 off, or change them",
    )
    require(
        (actor != "off") == scale.fp8_rollout or scale.allows_fp8_on_one_side,
        f"{where}: fp8_actor='{actor}' and fp8_rollout={str(scale.fp8_rollout).lower()}: with FP8 on one side what is "
        "sampled is not what is trained; set both, or allows_fp8_on_one_side=true",
    )
    require(
        actor == "off" or scale.max_tokens_per_microbatch % token_multiple(scale) == 0,
        f"{where}: max_tokens_per_microbatch={scale.max_tokens_per_microbatch} is no multiple of "
        f"{token_multiple(scale)}, the tokens that fp8_actor='{actor}' takes at a time; use one",
    )
    kept = bf16_layers(model, scale)
    require(
        model.num_layers > len(kept),
        f"{where}: {asked} leaves the first and the last layer in bf16, and model {model.name} has "
        f"{model.num_layers}; leave FP8 off",
    )
    for asker, degree_name, multiple in _demands(scale):
        for name, width in _widths(model, getattr(scale, degree_name), degree_name):
            require(
                width % multiple == 0,
                f"{where}: {asker} takes widths in multiples of {multiple}, and {name} = {width} of model {model.name} "
                f"is none; use a smaller {degree_name}, or leave FP8 off",
            )


def _demands(scale: Scale) -> Iterator[tuple[str, str, int]]:
    """(who asks, the field with the degree of its tensor parallelism, what widths must be multiples of)."""
    if scale.fp8_actor != "off":
        yield f"fp8_actor='{scale.fp8_actor}'", "tensor_parallel", FP8_MULTIPLE[scale.fp8_actor]
    if scale.fp8_rollout:
        is_by_block = ROLLOUT_SCALING[scale.fp8_actor] == "fp8_per_block"
        yield "fp8_rollout=true", "rollout_tensor_parallel", BLOCK if is_by_block else 16


def _widths(model: Model, degree: int, degree_name: str) -> Iterator[tuple[str, int]]:
    """Name and size of every side of a linear layer's weights on one of `degree` ranks; queries, keys, values apart."""
    yield "hidden_size", model.hidden_size
    yield f"num_heads x head_dim / {degree_name}", model.num_heads * model.head_dim // degree
    yield f"num_kv_heads x head_dim / {degree_name}", model.num_kv_heads * model.head_dim // degree
    yield f"ffn_hidden_size / {degree_name}", model.ffn_hidden_size // degree
