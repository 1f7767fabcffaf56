"""CUDA: NCCL, Transformer Engine layers, vLLM with sleep mode."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch

from megatron_rl.device import Device


def cuda(dtype: torch.dtype) -> Device:
    """This process's GPU as a Device. Raises RuntimeError without one."""
    if not torch.cuda.is_available():
        raise RuntimeError("no CUDA device is visible to torch; use a scale with device='cpu', or run on a GPU machine")
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return Device(
        name="cuda",
        torch_device=torch.device("cuda", torch.cuda.current_device()),
        collective_backend="cpu:gloo,cuda:nccl",
        dtype=dtype,
        prepare_megatron=lambda: None,
        prepare_rollout=lambda attempt: None,
        block_spec=_block_spec,
        transformer_options={
            "bias_activation_fusion": False,
            "bias_dropout_fusion": False,
            # Only apex brings the kernel that Megatron's own output layer needs for it.
            "gradient_accumulation_fusion": importlib.util.find_spec("fused_weight_gradient_mlp_cuda") is not None,
        },
        engine_options={
            "enable_sleep_mode": True,
            # The size of the cache is pinned by the scale. This share must be free at the start, or vLLM refuses; its
            # own 0.92 would, where another process has not quite left the GPU yet.
            "gpu_memory_utilization": 0.5,
        },
        packs_need_one_length=False,
        release_memory=torch.cuda.empty_cache,
        host_copy=_pinned_copy,
        saves_in_background=True,
    )


def _block_spec(config: Any, virtual_stage: int | None) -> Any:
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_with_transformer_engine_spec

    return get_gpt_layer_with_transformer_engine_spec(qk_layernorm=config.qk_layernorm)


def _pinned_copy(tensor: torch.Tensor) -> torch.Tensor:
    """The copy goes at the full speed of the bus; torch keeps the memory for the next save."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor)
