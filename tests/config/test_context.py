"""What context parallelism cannot share is refused before anything starts, with the rule and the remedy."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from megatron_rl.config.checks import UserError, check_scale
from megatron_rl.config.context import check_context
from megatron_rl.config.records import Recipe
from megatron_rl.config.run import batch_algebra
from recipes.models import QWEN2_5_32B
from recipes.prorl_v2 import RECIPE
from recipes.scales import CPU, H100X8, H100X64_TP8_PP2
from tests.config.test_config import make_run

LARGE = dataclasses.replace(RECIPE, model=QWEN2_5_32B)


def with_heads(dimensions: int) -> Recipe:
    return dataclasses.replace(RECIPE, model=dataclasses.replace(RECIPE.model, head_dim=dimensions))


def scaled(base: Any = H100X8, **changes: Any) -> Any:
    return dataclasses.replace(base, **changes)


def test_ranks_that_share_sequences_are_no_data_parallel_ranks() -> None:
    scale = scaled(H100X64_TP8_PP2, context_parallel=2)
    check_scale(scale)
    assert (scale.data_parallel, H100X64_TP8_PP2.data_parallel) == (2, 4)


@pytest.mark.parametrize("changes", [{"context_parallel": 2}, {"context_parallel": 8}, {"context_parallel": 1}])
def test_what_can_be_shared_is_accepted(changes: dict[str, Any]) -> None:
    check_scale(scaled(**changes))
    check_context(RECIPE, scaled(**changes))


@pytest.mark.parametrize(
    ("scale", "pattern"),
    [
        (
            scaled(context_parallel=3),
            r"8 ranks do not divide into tensor_parallel=1 x pipeline_parallel=1 x context_parallel=3; .* of 3",
        ),
        (scaled(context_parallel=0), "context_parallel=0 must be at least 1"),
    ],
)
def test_ranks_that_do_not_divide_are_refused(scale: Any, pattern: str) -> None:
    with pytest.raises(UserError, match=pattern):
        check_scale(scale)


@pytest.mark.parametrize(
    ("recipe", "scale", "pattern"),
    [
        (
            RECIPE,
            scaled(context_parallel=4, max_tokens_per_microbatch=17412),
            "max_tokens_per_microbatch=17412 is no multiple of 8, .* context_parallel=4 .*; use 17416",
        ),
        (
            RECIPE,  # each rank takes whole blocks of FP8: 2 x 128, for it has two chunks
            scaled(context_parallel=2, fp8_actor="blockwise", max_tokens_per_microbatch=17536),
            "no multiple of 256, .*; use 17664",
        ),
        (
            RECIPE,
            scaled(H100X64_TP8_PP2, context_parallel=2, fp8_actor="blockwise"),
            "max_tokens_per_microbatch=17408 is no multiple of 2048, .*; use 18432",
        ),
        (
            dataclasses.replace(RECIPE, sampling=dataclasses.replace(RECIPE.sampling, max_prompt_tokens=1025)),
            scaled(context_parallel=2, max_tokens_per_microbatch=9216),
            "9216 cannot hold a sequence of 9217 tokens, padded for context_parallel=2; use at least 9220",
        ),
        (
            LARGE,
            scaled(H100X64_TP8_PP2, context_parallel=2, context_exchange="a2a"),
            "num_heads / tensor_parallel = 5 of model Qwen/Qwen2.5-32B does not divide into context_parallel=2; use "
            "context_exchange='p2p'",
        ),
        (RECIPE, scaled(context_exchange="a2a"), "set device='cuda' and context_parallel of 2 or more"),
        (RECIPE, scaled(CPU, context_parallel=2, context_exchange="a2a"), "is of context parallelism on a GPU"),
        (RECIPE, scaled(context_parallel=2, precision="fp32"), "takes no fp32; use precision='bf16' or 'fp16', or"),
        (with_heads(100), scaled(context_parallel=2), "multiple of 8, 256 at most, and head_dim=100 of model"),
        (with_heads(264), scaled(context_parallel=2), "head_dim=264 of model .* is none; use context_parallel=1"),
    ],
)
def test_what_cannot_be_shared_is_refused(recipe: Any, scale: Any, pattern: str) -> None:
    with pytest.raises(UserError, match=pattern):
        check_context(recipe, scale)


@pytest.mark.parametrize(
    ("recipe", "scale"), [(with_heads(100), scaled()), (with_heads(256), scaled(context_parallel=2))]
)
def test_heads_are_limited_by_the_kernel_of_shared_packs_only(recipe: Any, scale: Any) -> None:
    check_context(recipe, scale)


def test_the_batch_algebra_says_who_shares() -> None:
    run = make_run(scale=scaled(context_parallel=2))
    assert batch_algebra(run).endswith("in microbatches of at most 17408 tokens, each over 2 context-parallel ranks")
