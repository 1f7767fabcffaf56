"""CPU against CUDA: everything that differs between them, as data, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from megatron_rl.config.records import Scale


@dataclass(frozen=True, kw_only=True)
class Device:
    """What the rest of the code asks instead of `if cpu`."""

    name: str
    torch_device: torch.device
    collective_backend: str  # for torch.distributed; host tensors can always be sent
    dtype: torch.dtype  # of weights, activations and rollouts
    prepare_megatron: Callable[[], None]  # before a Megatron object is made
    prepare_rollout: Callable[[str], None]  # before vLLM is imported; takes a name unique to this attempt of the run
    block_spec: Callable[[Any, int | None], Any]  # (TransformerConfig, virtual stage) -> Megatron's layer spec
    transformer_options: Mapping[str, Any]  # fields of Megatron's TransformerConfig
    engine_options: Mapping[str, Any]  # arguments of vllm.LLM
    packs_need_one_length: bool  # when pipeline stages are interleaved
    product_in_fp32: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of two matrices, whatever their precision
    release_memory: Callable[[], None]  # what torch keeps for itself and does not use
    host_copy: Callable[[torch.Tensor], torch.Tensor]  # a tensor's values in host memory of their own
    host_buffer: Callable[[int], torch.Tensor]  # so many bytes of host memory, which the device copies to at full speed
    saves_in_background: bool  # checkpoints are written while training goes on


def select(scale: Scale) -> Device:
    """The device of `scale`, ready for this process. Raises MachineError when the machine has none."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[scale.precision]
    torch.set_num_threads(scale.threads_per_process)  # vLLM makes later calls a no-op
    if scale.device == "cpu":
        from megatron_rl.device.cpu import cpu

        return cpu(dtype)
    from megatron_rl.device.cuda import cuda

    return cuda(scale, dtype)


def memory_in_use(scale: Scale) -> dict[str, int]:
    """Bytes that this process holds on its host, and that are in use on its device; the same where that is the host."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    host = pages * os.sysconf("SC_PAGE_SIZE")
    if scale.device == "cpu" or not torch.cuda.is_initialized():
        return {"host": host, "device": host}
    free, total = torch.cuda.mem_get_info()
    return {"host": host, "device": total - free}
