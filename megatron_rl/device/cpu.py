"""The CPU: gloo, attention through torch, and what Megatron and vLLM must be told to run without CUDA."""

from __future__ import annotations

import logging
import os

import torch
import torch._dynamo.config

from megatron_rl.device import Device
from megatron_rl.device.attention_on_cpu import block_spec
from megatron_rl.device.megatron_on_cpu import adapt_megatron
from megatron_rl.device.products_on_cpu import linear, product


def cpu(dtype: torch.dtype) -> Device:
    """The CPU as a Device."""
    return Device(
        name="cpu",
        torch_device=torch.device("cpu"),
        collective_backend="gloo",
        dtype=dtype,
        prepare_megatron=adapt_megatron,
        prepare_rollout=_prepare_rollout,
        block_spec=block_spec,
        transformer_options={
            # In a batch two interleaved stages take each other's messages for others, without an error; see cuda.py.
            "batch_p2p_comm": False,
            "overlap_p2p_comm": False,
            "bias_activation_fusion": True,  # which asks for our own, see megatron_on_cpu.py
            "bias_dropout_fusion": False,
            "apply_rope_fusion": False,
            "persist_layer_norm": False,
        },
        engine_options={
            # A seeded request that is prefilled in two pieces fails: "CPU Generator does not use offset".
            "enable_chunked_prefill": False,
            "enforce_eager": True,
            "block_size": 32,
        },
        packs_need_one_length=True,
        product_in_fp32=_product_in_fp32,
        release_memory=lambda: None,
        host_copy=torch.clone,
        host_buffer=lambda num_bytes: torch.empty(num_bytes, dtype=torch.uint8),
        saves_in_background=False,  # the cores are busy already
    )


def _product_in_fp32(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    precision = torch.promote_types(left.dtype, torch.float32)
    return product(left.to(precision), right.to(precision))


def _prepare_rollout(attempt: str) -> None:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    # Compiling vLLM's small sampler functions takes 17 s of a start and gains nothing at this size.
    torch._dynamo.config.disable = True
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)  # there is none for a CPU
    import vllm.model_executor.layers.utils as layers
    from vllm.distributed.device_communicators import cpu_communicator

    def use_live_weights(layer: torch.nn.Module, remove_weight: bool) -> None:
        # vLLM packs linear weights once at load and drops the originals; a refit would never reach the packed copy.
        layer.cpu_linear = linear

    layers.dispatch_cpu_unquantized_gemm = use_live_weights
    shared = cpu_communicator._CPUSHMDistributed
    original = shared.make_group_name

    def unique_group_name(communicator: object) -> str:
        # The name holds neither job nor port: two runs on a machine collide, and a killed run blocks the next start.
        return f"{original(communicator)}_{attempt}"

    shared.make_group_name = staticmethod(unique_group_name)
