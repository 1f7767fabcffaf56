"""CUDA: NCCL, Transformer Engine layers, vLLM with sleep mode."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Mapping
from typing import Any

import torch

from megatron_rl.config.checks import MachineError, require
from megatron_rl.config.records import Scale
from megatron_rl.device import Device

# Transformer Engine chooses attention by these, and Megatron accepts no other value of them; images often set one.
ATTENTION_VARIABLES = ("NVTE_FLASH_ATTN", "NVTE_FUSED_ATTN", "NVTE_UNFUSED_ATTN")

GIB = 2**30  # bytes

# Compute capabilities with cuDNN's attention for packs: from an H100 on, and before its gradients were wrong.
FIRST_CAPABILITY, FIRST_WRONG_CAPABILITY = (9, 0), (12, 0)


def cuda(scale: Scale, dtype: torch.dtype) -> Device:
    """This process's GPU as a Device. Raises MachineError without one."""
    if not torch.cuda.is_available():
        raise without_device(scale, torch.__version__, socket.gethostname(), os.environ)
    check_environment(os.environ)
    torch.cuda.set_device(gpu_of(int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()))
    return Device(
        name="cuda",
        torch_device=torch.device("cuda", torch.cuda.current_device()),
        collective_backend="cpu:gloo,cuda:nccl",
        dtype=dtype,
        prepare_megatron=lambda: None,
        prepare_rollout=lambda attempt: prepare_rollout(torch.cuda.current_device(), *torch.cuda.mem_get_info()),
        block_spec=_block_spec,
        transformer_options=transformer_options(scale),
        engine_options=ENGINE_OPTIONS,
        packs_need_one_length=interleaves_two_stages(scale),  # their lengths always go in a batch
        product_in_fp32=_product_in_fp32,
        release_memory=torch.cuda.empty_cache,
        host_copy=_pinned_copy,
        host_buffer=lambda num_bytes: torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True),
        saves_in_background=True,
    )


def without_device(scale: Scale, version: str, host: str, environment: Mapping[str, str]) -> MachineError:
    """What is said where torch sees no GPU: by each rank of its own GPU where Slurm has bound it to one."""
    name = "CUDA_VISIBLE_DEVICES"
    visible = environment.get(name, "")
    is_bound = visible != "" and "," not in visible and scale.devices_per_node > 1
    who = f"rank {environment.get('RANK', '0')} on {host}" if is_bound else host
    return MachineError(
        f"scale '{scale.name}': no CUDA device is visible to torch {version} on {who}, {name}={visible or '(not set)'},"
        " and each rank needs one; run on a GPU machine with a torch built for CUDA, or choose a scale with "
        "device='cpu'",
        is_of_all=not is_bound,
    )


def gpu_of(local_rank: int, num_visible: int) -> int:
    """Which of the GPUs that a process sees is its own: all of a machine's, or the one that Slurm bound it to.

    >>> [gpu_of(rank, 8) for rank in (0, 7)], [gpu_of(rank, 1) for rank in (0, 7)]
    ([0, 7], [0, 0])

    Raises UserError where there are fewer GPUs than ranks of this machine.
    """
    require(
        num_visible == 1 or local_rank < num_visible,
        f"rank {local_rank} of this machine sees {num_visible} GPUs: each rank needs its own; start "
        f"{num_visible} ranks on a machine, or ask for more GPUs (--gpus-per-node)",
    )
    return 0 if num_visible == 1 else local_rank


def check_environment(environment: Mapping[str, str]) -> None:
    """Raises UserError for a variable of an image or a module that would stop Megatron later."""
    for name in ATTENTION_VARIABLES:
        value = environment.get(name, "1")
        require(value == "1", f"{name}={value}: Megatron chooses the attention kernel itself; unset {name}")


def prepare_rollout(gpu: int, free_bytes: int, total_bytes: int) -> None:
    """What vLLM reads from the environment when it is imported and when an engine starts.

    Raises MachineError where others hold so much of the GPU that vLLM would refuse to start.
    """
    share = ENGINE_OPTIONS["gpu_memory_utilization"]
    if free_bytes < share * total_bytes:
        raise MachineError(
            f"GPU {gpu} of {socket.gethostname()}: {free_bytes / GIB:.1f} of its {total_bytes / GIB:.1f} GiB are free, "
            f"and the rollout engine starts with {share:.0%} at least; end what holds the rest (nvidia-smi), or ask "
            "for the machine alone (--exclusive)",
            is_of_all=False,
        )
    # Its launcher takes this for the index of a visible GPU, which it is not where Slurm binds each task to one.
    os.environ["LOCAL_RANK"] = str(gpu)
    # Dense models run on this runner anyway; without the word, an option it lacks would bring the slow one back.
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "1"


ENGINE_OPTIONS: Mapping[str, Any] = {
    "enable_sleep_mode": True,
    # The size of the cache is pinned by the scale. This share must be free at the start, or vLLM refuses; its own 0.92
    # would, where another process has not quite left the GPU yet.
    "gpu_memory_utilization": 0.5,
    # vLLM's own all-reduce hands the buffers of CUDA graphs to other ranks by cudaIpcGetMemHandle, which refuses
    # expandable segments and ends the process (vllm#42609). PyTorch's symmetric memory takes its place, or NCCL.
    "disable_custom_all_reduce": True,
}


def interleaves_two_stages(scale: Scale) -> bool:
    """True where either of two stages is both the one before and the one after the other, at once.

    Of messages sent in a batch Megatron 0.18 then takes what comes first from the other stage for what it asked first:
    gradients for activations, and the lengths of the one for the other's (Megatron-LM#1450, open).
    """
    return scale.pipeline_parallel == 2 and scale.virtual_pipeline > 1


def transformer_options(scale: Scale) -> dict[str, Any]:
    """Fields of Megatron's TransformerConfig on a GPU."""
    return {
        "batch_p2p_comm": not interleaves_two_stages(scale),
        "apply_rope_fusion": scale.fuses_rope,
        "bias_activation_fusion": scale.fuses_swiglu,
        "bias_dropout_fusion": False,
        "deterministic_mode": scale.deterministic,
        "cp_comm_type": scale.context_exchange,
        # Only apex brings the kernel that Megatron's own output layer needs for it.
        "gradient_accumulation_fusion": importlib.util.find_spec("fused_weight_gradient_mlp_cuda") is not None,
    }


def _product_in_fp32(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Of tensor cores that add up in fp32, without rounding the sums."""
    return torch.mm(left, right, out_dtype=torch.float32) if left.itemsize == 2 else left @ right


def without_kernel(name: str, capability: tuple[int, int], has_flash_attention: bool) -> MachineError | None:
    """What is said of a GPU on which packs cannot be trained: by its name and compute capability; else None.

    Source: Transformer Engine 2.16, nvte_get_fused_attn_backend; TransformerEngine#3333, mended after 2.17, for 12.0.
    """
    where = f"{name}, compute capability {capability[0]}.{capability[1]}"
    if capability < FIRST_CAPABILITY and not has_flash_attention:
        lacks = "has no attention for packs below 9.0 that spares memory, and an update would run out of it"
        remedy = "take an H100 or newer, or install flash-attn"
    elif capability >= FIRST_WRONG_CAPABILITY:
        lacks = "gives wrong gradients of packs' attention from 12.0 on"
        remedy = "take an H100, H200 or B200"
    else:
        return None
    return MachineError(f"{where}: Transformer Engine 2.16 {lacks}; {remedy}", is_of_all=True)


def _block_spec(config: Any, virtual_stage: int | None) -> Any:
    has_flash_attention = importlib.util.find_spec("flash_attn") is not None
    if lack := without_kernel(torch.cuda.get_device_name(), torch.cuda.get_device_capability(), has_flash_attention):
        raise lack
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_with_transformer_engine_spec

    return get_gpt_layer_with_transformer_engine_spec(qk_layernorm=config.qk_layernorm)


def _pinned_copy(tensor: torch.Tensor) -> torch.Tensor:
    """The copy goes at the full speed of the bus; torch keeps the memory for the next save."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor)
