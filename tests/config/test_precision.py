"""FP8 that a model's widths, a pack or the other half of the run cannot have is refused, with rule and remedy."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from megatron_rl.config.checks import UserError
from megatron_rl.config.precision import ROLLOUT_SCALING, check_precision
from recipes.prorl_v2 import RECIPE
from recipes.scales import CPU, H100X8, H100X16_TP2, H100X64_TP8_PP2

MODEL = RECIPE.model
BOTH: dict[str, Any] = {"fp8_actor": "blockwise", "fp8_rollout": True}
QWEN_32B = dataclasses.replace(
    MODEL, name="32B", num_layers=64, hidden_size=5120, num_heads=40, num_kv_heads=8, ffn_hidden_size=27648
)


@pytest.mark.parametrize("scaling", ROLLOUT_SCALING)
def test_the_published_model_may_compute_in_fp8_on_both_sides(scaling: Any) -> None:
    check_precision(MODEL, dataclasses.replace(H100X8, fp8_actor=scaling, fp8_rollout=scaling != "off"))


def test_a_model_of_32_billion_weights_may_on_eight_ranks() -> None:
    check_precision(QWEN_32B, dataclasses.replace(H100X64_TP8_PP2, **BOTH))


@pytest.mark.parametrize(
    ("scale", "changes", "pattern"),
    [
        (CPU, BOTH, "fp8_actor='blockwise' needs device='cuda' and precision='bf16', not 'cpu' and 'fp32'"),
        (H100X8, BOTH | {"precision": "fp16"}, "needs device='cuda' and precision='bf16', not 'cuda' and 'fp16'"),
        (H100X8, {"fp8_rollout": True}, "fp8_actor='off' and fp8_rollout=true: with FP8 on one side"),
        (H100X8, {"fp8_actor": "tensorwise"}, "fp8_rollout=false: .* set both, or allows_fp8_on_one_side=true"),
        (
            H100X8,
            BOTH | {"max_tokens_per_microbatch": 17400},
            "max_tokens_per_microbatch=17400 is no multiple of 128, the tokens that fp8_actor='blockwise' takes",
        ),
        (
            H100X16_TP2,
            BOTH | {"max_tokens_per_microbatch": 17536},
            "max_tokens_per_microbatch=17536 is no multiple of 256",
        ),
        (
            H100X8,
            BOTH | {"tensor_parallel": 4},
            "'blockwise' takes widths in multiples of 128, and num_kv_heads x head_dim / tensor_parallel = 64 "
            ".* use a smaller tensor_parallel, or leave FP8 off",
        ),
        (
            H100X8,
            BOTH | {"rollout_tensor_parallel": 4},
            "fp8_rollout=true takes widths in multiples of 128, and num_kv_heads x head_dim / rollout_tensor_parallel",
        ),
        (
            H100X8,
            {"fp8_rollout": True, "allows_fp8_on_one_side": True, "rollout_tensor_parallel": 4},
            "fp8_rollout=true takes widths in multiples of 128",
        ),
    ],
)
def test_fp8_that_cannot_be_is_refused(scale: Any, changes: dict[str, Any], pattern: str) -> None:
    with pytest.raises(UserError, match=pattern):
        check_precision(MODEL, dataclasses.replace(scale, **changes))


@pytest.mark.parametrize("width", ["hidden_size", "ffn_hidden_size"])
def test_each_width_is_looked_at(width: str) -> None:
    model = dataclasses.replace(MODEL, **{width: 1528})
    with pytest.raises(UserError, match=f"multiples of 16, and {width}.* = 1528 of model .* is none"):
        check_precision(model, dataclasses.replace(H100X8, fp8_actor="tensorwise", fp8_rollout=True))


@pytest.mark.parametrize(("scaling", "is_refused"), [("blockwise", True), ("delayed", False)])
def test_a_model_of_nothing_but_first_and_last_layers_has_none_for_fp8(scaling: Any, is_refused: bool) -> None:
    model = dataclasses.replace(MODEL, num_layers=2)
    scale = dataclasses.replace(H100X8, fp8_actor=scaling, fp8_rollout=True)
    if not is_refused:
        check_precision(model, scale)
        return
    with pytest.raises(UserError, match="leaves the first and the last layer in bf16, .* has 2; leave FP8 off"):
        check_precision(model, scale)


def test_one_side_alone_may_be_asked_for() -> None:
    for changes in ({"fp8_actor": "blockwise"}, {"fp8_rollout": True}):
        check_precision(MODEL, dataclasses.replace(H100X8, allows_fp8_on_one_side=True, **changes))
