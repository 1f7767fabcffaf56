"""FP8 rollouts as far as a CPU holds them: what vLLM is told, and its layer-wise reload, here of bf16's own layers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_rl import device
from megatron_rl.rollout.quantization import quantization, reload
from megatron_rl.runtime import parallel
from megatron_rl.types import Prompt, Request
from recipes.prorl_v2 import RECIPE
from recipes.scales import H100X8
from tests.models import make_folder, make_run
from tests.ranks import run_ranks

PROMPT = Prompt(serial=0, id="0", domain="math", token_ids=(3, 4, 5, 6), opens_thought=False, item={})
BOTH: dict[str, Any] = {"fp8_actor": "blockwise", "fp8_rollout": True}


def reloads(folder: str) -> dict[str, Any]:
    """Runs on one rank: the same weights by vLLM's plain loader and by its reload, then by one that lacks a tensor."""
    from safetensors.torch import load_file

    from megatron_rl.rollout.engine import Engine

    run = make_run(folder)
    hardware = device.select(run.scale)
    engine = Engine(run, parallel.start(run.scale, hardware, 60), hardware)
    weights = load_file(Path(folder) / "model.safetensors")

    def sampled() -> Any:
        requests = [Request(prompt=PROMPT, seed=7, num_samples=2)]
        made = engine.generate(requests, max_response_tokens=12, temperature=1.0, top_p=1.0)
        return [[list(sample.token_ids), list(sample.logprobs)] for sample in made[0]]

    engine.load(iter(weights.items()), 1)
    plain = {name: parameter.clone() for name, parameter in engine.network.named_parameters()}
    before = sampled()
    filled = reload(engine.worker, weights.items())
    found = {
        "filled": sorted(filled) == sorted(plain) == sorted(engine.parameter_names),
        "differing": [n for n, p in engine.network.named_parameters() if not torch.equal(p, plain[n])],
        "samples": sampled() == before,
    }
    rest = {name: tensor for name, tensor in weights.items() if ".1.mlp.gate" not in name and ".1.mlp.up" not in name}
    del rest["model.norm.weight"]
    found["lacking"] = sorted(engine.parameter_names - reload(engine.worker, rest.items()))
    engine.close()
    return found


@pytest.mark.ranks
def test_a_reload_fills_every_parameter_as_the_plain_loader_does(tmp_path: Path) -> None:
    (found,) = run_ranks("tests.rollout.test_quantization:reloads", 1, folder=str(make_folder(tmp_path / "model")))
    assert found["filled"] and found["differing"] == [] and found["samples"]
    assert found["lacking"] == ["model.layers.1.mlp.gate_up_proj.weight", "model.norm.weight"]


@pytest.mark.parametrize(
    ("scaling", "name"),
    [("blockwise", "fp8_per_block"), ("tensorwise", "fp8_per_tensor"), ("delayed", "fp8_per_tensor")],
)
def test_the_engine_scales_as_the_actor_does(scaling: Any, name: str) -> None:
    from vllm.config.quantization import resolve_quantization_config

    options = quantization(RECIPE.model, dataclasses.replace(H100X8, fp8_actor=scaling, fp8_rollout=True))
    assert options["quantization"] == name
    resolved = resolve_quantization_config(options["quantization"], options.get("quantization_config"))
    assert resolved is not None and resolved.linear is not None and "8" in str(resolved.linear.weight)


def test_the_layers_that_the_actor_keeps_in_bf16_are_so_in_the_engine() -> None:
    from vllm.model_executor.layers.quantization.compressed_tensors.utils import should_ignore_layer

    ignored = quantization(RECIPE.model, dataclasses.replace(H100X8, **BOTH))["quantization_config"]["ignore"]
    fused = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
    kept = {
        layer
        for layer in range(28)
        for part in ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
        if should_ignore_layer(f"model.layers.{layer}.{part}", ignore=ignored, fused_mapping=fused)
    }
    assert kept == {0, 27}


def test_vllm_is_told_nothing_without_fp8() -> None:
    assert quantization(RECIPE.model, H100X8) == {}
