"""Rollouts in FP8: what vLLM is told, and weights that it quantises anew at each refit.

vLLM's own parameters are then not what a refit streams: whole layers in bf16 go in, and it makes of them FP8 numbers
and their scales. No GPU has run it yet.

Not covered: a key-value cache in FP8, whose scales vLLM 0.26 does not restore after a sleep.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from megatron_rl.config.precision import ROLLOUT_SCALING, bf16_layers
from megatron_rl.config.records import Model, Scale


def quantization(model: Model, scale: Scale) -> dict[str, Any]:
    """Arguments of vllm.LLM: the scaling of the actor, and bf16 in the layers that the actor has in bf16."""
    if not scale.fp8_rollout:
        return {}
    kept = "|".join(str(layer) for layer in bf16_layers(model, scale))
    ignored = {"quantization_config": {"ignore": [rf"re:.*\.layers\.({kept})\..*"]}} if kept else {}
    return {"quantization": ROLLOUT_SCALING[scale.fp8_actor], **ignored}


@torch.no_grad()
def reload(worker: Any, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
    """Quantises whole tensors by Hugging Face name into a vLLM worker; returns vLLM's names of what was filled.

    vLLM tells of none, and keeps what it is given until a layer is complete: so it gets tensors of their own, and all
    its parameters hold no number before. That a part of a fused layer stays away is for the stream to find.
    """
    network = worker.get_model()
    for parameter in network.parameters():
        _bytes(parameter).fill_(0xFF)  # NaN in every floating-point format
    worker.reload_weights(weights_iterator=((name, tensor.clone()) for name, tensor in weights))
    return {name for name, parameter in network.named_parameters() if not _has_nan(parameter)}


def _bytes(parameter: Tensor) -> Tensor:
    return parameter.data.view(torch.uint8)


def _has_nan(parameter: Tensor) -> bool:
    if parameter.itemsize == 1:  # e4m3, for which torch's own test is missing
        return bool((_bytes(parameter) & 0x7F == 0x7F).any())
    return bool(parameter.isnan().any())
