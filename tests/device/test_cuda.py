"""What CUDA is told that a machine without a GPU can hold: options that exist, variables, which GPU is whose."""

from __future__ import annotations

import dataclasses
import os
import re
from typing import Any

import pytest
import torch

from megatron_rl.config.checks import MachineError, UserError
from megatron_rl.config.records import YarnScaling
from megatron_rl.device.cuda import (
    ATTENTION_VARIABLES,
    ENGINE_OPTIONS,
    GIB,
    check_environment,
    cuda,
    gpu_of,
    prepare_rollout,
    transformer_options,
    without_device,
    without_kernel,
)
from megatron_rl.rollout.engine import config_overrides
from megatron_rl.runtime.ranks import process_environment
from recipes.prorl_v2 import RECIPE
from recipes.scales import CPU, GPU1, H100X8, H100X64_TP8_PP2
from tests.ranks import run_ranks

DETERMINISTIC = dataclasses.replace(H100X8, deterministic=True)


def test_a_rank_takes_its_own_gpu_or_the_only_one_it_sees() -> None:
    assert [gpu_of(rank, 8) for rank in range(8)] == list(range(8))
    assert [gpu_of(rank, 1) for rank in range(8)] == [0] * 8
    with pytest.raises(UserError, match="rank 4 of this machine sees 4 GPUs: each rank needs its own"):
        gpu_of(4, 4)


def test_a_machine_without_a_gpu_says_so_once_and_a_rank_that_is_bound_to_one_itself() -> None:
    visible = {"RANK": "13", "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(8)))}
    of_all, of_one = (
        without_device(H100X8, "2.11.0", "node2", visible | changed) for changed in ({}, {"CUDA_VISIBLE_DEVICES": "5"})
    )
    said = "no CUDA device is visible to torch 2.11.0 on {}, CUDA_VISIBLE_DEVICES={}, and each rank needs one; run on a"
    assert of_all.is_of_all and said.format("node2", "0,1,2,3,4,5,6,7") in str(of_all)
    assert not of_one.is_of_all and said.format("rank 13 on node2", "5") in str(of_one)
    plain = without_device(H100X8, "2.11.0", "laptop", {})
    assert plain.is_of_all and said.format("laptop", "(not set)") in str(plain)
    assert without_device(GPU1, "2.11.0", "laptop", {"CUDA_VISIBLE_DEVICES": "0"}).is_of_all


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_scale_of_gpus_is_refused_where_there_is_none() -> None:
    with pytest.raises(MachineError, match=r"scale 'h100x8': no CUDA device is visible to torch .* device='cpu'$"):
        cuda(H100X8, torch.bfloat16)


@pytest.mark.parametrize(
    ("capability", "has_flash_attention", "said"),
    [
        ((8, 0), False, "8.0: Transformer Engine 2.16 has no attention for packs below 9.0 .* or install flash-attn$"),
        ((8, 9), False, "8.9: .* below 9.0 "),
        ((12, 0), True, "12.0: Transformer Engine 2.16 gives wrong gradients .* from 12.0 on; take an H100, H200 or B"),
        ((12, 1), False, "12.1: .* from 12.0 on"),
    ],
)
def test_a_gpu_without_a_right_kernel_for_packs_is_refused(
    capability: tuple[int, int], has_flash_attention: bool, said: str
) -> None:
    lack = without_kernel("NVIDIA X", capability, has_flash_attention)
    assert lack is not None and lack.is_of_all and re.match(f"NVIDIA X, compute capability {said}", str(lack))


def test_a_gpu_with_a_kernel_for_packs_is_taken() -> None:
    assert [without_kernel("NVIDIA H100", capability, False) for capability in ((9, 0), (10, 0), (10, 3))] == [None] * 3
    assert without_kernel("NVIDIA A100", (8, 0), True) is None


def test_the_gpu_is_looked_at_before_a_model_is_built_and_not_for_an_engine_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = {"is_available": True, "device_count": 1, "set_device": None, "current_device": 0}
    changed |= {"get_device_name": "NVIDIA A100-SXM4-80GB", "get_device_capability": (8, 0)}
    for name, value in changed.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setenv("LOCAL_RANK", "0")
    device = cuda(GPU1, torch.bfloat16)
    with pytest.raises(MachineError, match="NVIDIA A100-SXM4-80GB, compute capability 8.0: "):
        device.block_spec(None, None)


def test_vllm_is_told_the_visible_gpu_and_the_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "5")
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")  # what is set below is undone
    prepare_rollout(0, 40 * GIB, 80 * GIB)
    assert os.environ["LOCAL_RANK"] == "0" and os.environ["VLLM_USE_V2_MODEL_RUNNER"] == "1"


def test_a_gpu_that_others_hold_is_told_before_vllm_refuses_it() -> None:
    said = r"GPU 3 of .*: 30\.5 of its 79\.1 GiB are free, and the rollout engine starts with 50% at least; end what"
    with pytest.raises(MachineError, match=said) as raised:
        prepare_rollout(3, int(30.5 * GIB), int(79.1 * GIB))
    assert not raised.value.is_of_all


def started(local_rank: int) -> bool:
    """Whether a rank still knows after vLLM's start that it is not the first of its machine."""
    from megatron_rl import device
    from megatron_rl.runtime import parallel

    os.environ["LOCAL_RANK"] = str(local_rank)
    scale = dataclasses.replace(CPU, devices_per_node=1)
    ranks = parallel.start(scale, device.select(scale), 60.0)
    prepare_rollout(0, 40 * GIB, 80 * GIB)
    return ranks.is_first_of_machine


@pytest.mark.ranks
def test_a_bound_gpu_does_not_make_every_rank_the_first_of_its_machine() -> None:
    assert run_ranks("tests.device.test_cuda:started", 1, local_rank=5) == [False]
    assert run_ranks("tests.device.test_cuda:started", 1, local_rank=0) == [True]


@pytest.mark.parametrize("name", ATTENTION_VARIABLES)
def test_an_attention_backend_that_was_switched_off_outside_is_refused(name: str) -> None:
    check_environment({name: "1"})
    with pytest.raises(UserError, match=f"{name}=0: .* unset {name}"):
        check_environment({name: "0"})


@pytest.mark.parametrize("scale", [H100X8, DETERMINISTIC])
def test_megatron_knows_every_option(scale: Any) -> None:
    from megatron.core.transformer import TransformerConfig

    known = {field.name for field in dataclasses.fields(TransformerConfig)}
    assert transformer_options(scale).keys() <= known
    assert transformer_options(scale)["deterministic_mode"] is scale.deterministic


def test_vllm_knows_every_option() -> None:
    from vllm.engine.arg_utils import EngineArgs

    known = {field.name for field in dataclasses.fields(EngineArgs)}
    assert {*ENGINE_OPTIONS, "hf_overrides"} <= known
    assert config_overrides(RECIPE.model, H100X8)["head_dtype"] == "float32"
    assert "head_dtype" not in config_overrides(RECIPE.model, CPU)


def test_vllm_of_either_version_is_told_how_yarn_sharpens_attention() -> None:
    yarn = YarnScaling(
        factor=4.0, original_max_positions=64, beta_fast=32, beta_slow=1, attention_factor=1.3, truncates=True
    )
    told = config_overrides(dataclasses.replace(RECIPE.model, rope_scaling=yarn), H100X8)["rope_parameters"]
    assert told["attention_factor"] == 1.3  # of 0.32, on a CPU
    assert (told["attn_factor"], told["apply_yarn_scaling"]) == (1.3, False)  # of 0.26, which else takes 1.14


def test_determinism_is_asked_of_all_who_add_up() -> None:
    # Megatron refuses its deterministic mode without the first of them.
    asked = {"NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0", "NCCL_ALGO": "Ring", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    assert asked.items() <= process_environment(DETERMINISTIC).items()
    assert not asked.keys() & process_environment(H100X8).keys()
    assert not asked.keys() & process_environment(dataclasses.replace(CPU, deterministic=True)).keys()


@pytest.mark.parametrize("degree", ["tensor_parallel", "context_parallel"])
def test_kernels_queue_behind_communication_where_ranks_share_a_sequence(degree: str) -> None:
    name = "CUDA_DEVICE_MAX_CONNECTIONS"
    assert process_environment(dataclasses.replace(H100X8, **{degree: 2}))[name] == "1"
    assert name not in process_environment(H100X8)
    assert name not in process_environment(dataclasses.replace(CPU, **{degree: 2}))


def test_a_tensor_parallel_engine_shares_no_memory_that_grows_in_place() -> None:
    # vLLM's all-reduce would hand its CUDA graphs' buffers to the other ranks, which CUDA refuses of such memory.
    assert process_environment(H100X64_TP8_PP2, {})["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    assert ENGINE_OPTIONS["disable_custom_all_reduce"] is True


@pytest.mark.parametrize("changes", [{"fp8_actor": "blockwise"}, {"fp8_rollout": True}])
def test_scales_of_blocks_are_rounded_by_neither_engine(changes: dict[str, Any]) -> None:
    asked = {"NVTE_FP8_BLOCK_SCALING_FP32_SCALES": "1", "VLLM_USE_DEEP_GEMM_E8M0": "0"}
    assert asked.items() <= process_environment(dataclasses.replace(H100X8, **changes)).items()
    assert not asked.keys() & process_environment(H100X8).keys()


def test_memory_grows_in_place_unless_the_site_says_otherwise() -> None:
    name = "PYTORCH_CUDA_ALLOC_CONF"
    assert process_environment(H100X8, {})[name] == "expandable_segments:True"
    assert process_environment(H100X8, {name: "max_split_size_mb:128"})[name] == "max_split_size_mb:128"
    assert name not in process_environment(CPU, {})
