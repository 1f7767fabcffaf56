"""What vLLM's CUDA wheel, the cluster's, makes of this project's words where there is no GPU.

A program, run in an environment of cuda.lock; prints JSON. Its configuration, front end, scheduler and FP8 reload are
vLLM's own. The platform says that it is an H100, and where a model would run on it answers come by a rule.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from vllm import platforms
from vllm.platforms.cuda import NonNvmlCudaPlatform
from vllm.platforms.interface import DeviceCapability

from megatron_rl.config.records import Scale, YarnScaling
from megatron_rl.config.weights import tensor_names
from megatron_rl.device.cuda import ENGINE_OPTIONS
from megatron_rl.rollout.engine import Engine, Wanted, arguments
from megatron_rl.rollout.quantization import reload
from megatron_rl.types import Prompt, Request
from recipes.scales import H100X8, H100X64_TP8_PP2
from tests.models import make_folder, make_run

EOS, LIMIT, SEATS = 1, 100, 16
TP4 = dataclasses.replace(H100X64_TP8_PP2, rollout_tensor_parallel=4)


class H100(NonNvmlCudaPlatform):
    @classmethod
    def get_device_capability(cls, device_id: int = 0) -> DeviceCapability:
        return DeviceCapability(9, 0)

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        return "NVIDIA H100 80GB HBM3"

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        return 80 * 2**30

    @classmethod
    def is_sleep_mode_available(cls) -> bool:
        return True

    @classmethod
    def num_compute_units(cls, device_id: int = 0) -> int:
        return 132


platforms._current_platform = H100()
torch.cuda.is_available = lambda: True


def config_of(folder: Path, scale: Scale, **changes: Any) -> Any:
    """vLLM's configuration for rank 3 of a world of `scale`."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    run = make_run(folder)
    model = dataclasses.replace(run.recipe.model, **changes)
    job: Any = SimpleNamespace(model_folder=folder, model=model, scale=scale, max_tokens=256, seed=1)
    told = arguments(job, ENGINE_OPTIONS, world=scale.num_devices, engine_size=scale.rollout_tensor_parallel)
    return EngineArgs(**told).create_engine_config(usage_context=UsageContext.LLM_CLASS)


def choices(config: Any) -> dict[str, Any]:
    """What vLLM chose."""
    return {
        "runner": 2 if config.use_v2_model_runner else 1,
        "scheduler": config.scheduler_config.get_scheduler_cls().__name__,
        "steps_at_once": config.max_concurrent_batches,
        "chunked_prefill": config.scheduler_config.enable_chunked_prefill,
        "graphs": config.compilation_config.cudagraph_mode.name,
        "largest_graph": config.compilation_config.max_cudagraph_capture_size,
        "head": str(config.model_config.head_dtype),
        "gives_memory_back": config.model_config.enable_cumem_allocator,
        "own_all_reduce": not config.parallel_config.disable_custom_all_reduce,
        "quantization": config.model_config.quantization,
    }


def sharpness(folder: Path) -> float:
    """Of attention in a YaRN model whose config gives 1.3, and whose factor alone would give 1.14."""
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding import get_rope

    yarn = YarnScaling(
        factor=4.0, original_max_positions=64, beta_fast=32, beta_slow=1, attention_factor=1.3, truncates=True
    )
    config = config_of(folder, H100X8, rope_scaling=yarn, max_positions=256)
    with set_current_vllm_config(config):
        read = config.model_config.hf_config.rope_parameters
        return float(get_rope(32, 256, rope_parameters=read, dtype=torch.float32).mscale)


def answer(position: int, seed: int) -> int:
    """The token that follows so many."""
    return EOS if (position * 7919 + seed * 104729) % 97 == 0 else 3 + (position + seed) % 100


def expected(request: Request, index: int) -> list[int]:
    """One sample of a request, alone in the world."""
    tokens: list[int] = []
    while len(tokens) < LIMIT and EOS not in tokens:
        tokens.append(answer(len(request.prompt.token_ids) + len(tokens), request.seed + index))
    return tokens


def executor(num_blocks: int) -> type:
    """Where the model would run: a step's answers come later than it is launched, as the V2 runner's do."""
    from vllm.v1.executor.abstract import Executor
    from vllm.v1.kv_cache_interface import FullAttentionSpec
    from vllm.v1.outputs import LogprobsLists, ModelRunnerOutput

    spec = FullAttentionSpec(block_size=16, num_kv_heads=2, head_size=32, dtype=torch.bfloat16)

    class ByRule(Executor):
        supported_tasks = ("generate",)

        def _init_executor(self) -> None:
            self.known: dict[str, list[Any]] = {}  # request -> tokens given, tokens computed, sampling parameters

        def collective_rpc(self, *arguments: Any, **options: Any) -> list[None]:
            return [None]

        def check_health(self) -> None: ...

        def get_kv_cache_specs(self) -> list[dict[str, Any]]:
            return [{"layer": spec}]

        def determine_available_memory(self) -> list[int]:
            return [num_blocks * spec.page_size_bytes]

        def initialize_from_config(self, configs: Any) -> None: ...

        def execute_model(self, step: Any, non_block: bool = False) -> Future[Any]:
            for name in step.finished_req_ids:
                self.known.pop(name, None)
            for new in step.scheduled_new_reqs:
                self.known[new.req_id] = [len(new.prefill_token_ids), new.num_computed_tokens, new.sampling_params]
            self.step = step
            empty = ModelRunnerOutput(req_ids=[], req_id_to_index={})
            return done(None if step.total_num_scheduled_tokens else empty)

        def sample_tokens(self, grammar: Any, non_block: bool = False) -> Future[Any]:
            names, sampled = list(self.step.num_scheduled_tokens), []
            for name in names:
                known = self.known[name]
                known[1] += self.step.num_scheduled_tokens[name]
                sampled.append([answer(known[1], known[2].seed or 0)] if known[1] >= known[0] else [])
            chosen = np.array([[tokens[0] if tokens else 0] for tokens in sampled])
            logprobs = LogprobsLists(chosen, np.full(chosen.shape, -0.5, np.float32), np.zeros(len(names), np.int64))
            return done(
                ModelRunnerOutput(
                    req_ids=names,
                    req_id_to_index={name: i for i, name in enumerate(names)},
                    sampled_token_ids=sampled,
                    logprobs=logprobs,
                )
            )

        def shutdown(self) -> None: ...

    return ByRule


def done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def engine_of(folder: Path, num_blocks: int) -> Any:
    """An Engine around vLLM's front end and its asynchronous scheduler."""
    import vllm
    from vllm.entrypoints.llm import LLM
    from vllm.v1.engine.llm_engine import LLMEngine

    config = config_of(folder, dataclasses.replace(H100X8, max_requests_in_flight=SEATS))
    engine, llm = Engine.__new__(Engine), LLM.__new__(LLM)
    llm.llm_engine = LLMEngine(config, executor_class=executor(num_blocks), log_stats=False, multiprocess_mode=False)
    engine.vllm, engine.llm, engine.version, engine.stop_tokens = vllm, llm, 3, (EOS,)
    engine.max_requests_in_flight, engine.can_sleep, engine.asleep = SEATS, True, set()
    engine.cache = llm.llm_engine.engine_core.engine_core.scheduler.kv_cache_manager
    engine.cache.log_stats = True
    engine.cache.make_prefix_cache_stats()
    return engine


def streamed(folder: Path, num_blocks: int) -> dict[str, Any]:
    """Whether samples are those of each request alone: at once, with little cache, after leaving, after a sleep."""
    engine = engine_of(folder, num_blocks)
    core = engine.llm.llm_engine.engine_core.engine_core
    prompts = [tuple((5 + i * j) % 90 + 3 for j in range(40 + 13 * i)) for i in range(4)]
    requests = [
        Request(
            prompt=Prompt(serial=i, id=str(i), domain="math", token_ids=tokens, opens_thought=False, item={}),
            seed=i << 40,
            num_samples=count,
        )
        for i, (tokens, count) in enumerate(zip(prompts, (5, 1, 40, 16), strict=True))
    ]
    num_preempted, preempt = 0, core.scheduler._preempt_request

    def counted(*given: Any, **options: Any) -> Any:
        nonlocal num_preempted
        num_preempted += 1
        return preempt(*given, **options)

    core.scheduler._preempt_request = counted

    def differing() -> int:
        made = engine.generate(requests, max_response_tokens=LIMIT, temperature=1.2, top_p=1.0)
        pairs = [(s, expected(r, i)) for r, group in zip(requests, made, strict=True) for i, s in enumerate(group)]
        assert all(len(s.logprobs) == len(s.token_ids) and s.policy_version == engine.version for s, _ in pairs)
        return sum(list(sample.token_ids) != tokens for sample, tokens in pairs)

    found = {"at_once": differing(), "num_preempted": num_preempted, "found_cached": engine.cached_tokens > 0}
    looks = iter([False, False, True])
    whole = list(engine.stream([Wanted(requests, LIMIT, 1.2, 1.0)], has_to_leave=lambda: next(looks)))
    found["left"] = [len(whole), len(core.batch_queue), len(core.scheduler.requests)]
    found["after_leaving"] = differing()
    engine.sleep()
    engine.wake("weights")
    engine.holds(4)
    engine.wake("kv_cache")
    return found | {"after_sleep": differing()}


def reloaded(folder: Path, scaling: Any) -> dict[str, Any]:
    """Weights that vLLM quantises at two refits, and what it tells of tensors that stay away."""
    import vllm.distributed.parallel_state as state
    from vllm.config import set_current_vllm_config
    from vllm.config.device import DeviceConfig
    from vllm.model_executor.layers.quantization.online import fp8
    from vllm.model_executor.model_loader import get_model_loader
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    # The kernels need a GPU; what they make of the numbers beforehand is nothing on an H100, with scales in fp32.
    fp8.init_fp8_linear_kernel = lambda **_: SimpleNamespace(process_weights_after_loading=lambda layer: None)
    torch.accelerator.max_memory_allocated = lambda *_: 0
    torch.accelerator.get_memory_info = lambda *_: (80 * 2**30, 80 * 2**30)
    config = config_of(folder, dataclasses.replace(H100X8, fp8_actor=scaling, fp8_rollout=True))
    config.device_config, config.compilation_config.mode = DeviceConfig("cpu"), 0
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    with set_current_vllm_config(config):
        state.init_distributed_environment(1, 0, "env://", 0, "gloo")
        state.initialize_model_parallel(1, 1, backend="gloo")
        network = get_model_loader(config.load_config).load_model(vllm_config=config, model_config=config.model_config)
    ignore: Any = lambda: None  # noqa: E731
    runner: Any = SimpleNamespace(
        get_model=lambda: network, model_config=config.model_config, load_config=config.load_config,
        reset_encoder_cache=ignore, reset_mm_cache=ignore,
    )  # fmt: skip
    worker = SimpleNamespace(
        get_model=lambda: network, reload_weights=lambda **given: GPUModelRunner.reload_weights(runner, **given)
    )
    before = {name: parameter.data_ptr() for name, parameter in network.named_parameters()}
    names = {name: torch.empty(shape) for name, shape in tensor_names(make_run(folder).recipe.model).items()}
    fused, bf16 = f"model.layers.{1}.self_attn.qkv_proj.weight", "model.layers.0.mlp.down_proj.weight"
    gaps = []
    for seed in range(2):
        torch.manual_seed(seed)
        weights = {name: (torch.randn(shaped.shape) * 0.02).bfloat16() for name, shaped in names.items()}
        filled = reload(worker, weights.items())
        held = dict(network.named_parameters())
        wanted = torch.cat([weights[fused.replace("qkv", part)] for part in "qkv"]).float()
        scales = held[f"{fused}_scale_inv"].repeat_interleave(128, 0).repeat_interleave(128, 1)
        gaps.append(float((held[fused].float() * scales - wanted).abs().max() / wanted.abs().max()))
        assert filled == before.keys() and torch.equal(held[bf16], weights[bf16])
    rest = {name: tensor for name, tensor in weights.items() if ".1.mlp.gate" not in name and ".1.mlp.up" not in name}
    return {
        "gaps": gaps,
        "in_place": {name: parameter.data_ptr() for name, parameter in network.named_parameters()} == before,
        "lacking": sorted(before.keys() - reload(worker, rest.items())),
    }


def main() -> None:
    """Prints what is asked for."""
    folder = Path(sys.argv[1])
    os.environ.update(RANK="3", LOCAL_RANK="3", WORLD_SIZE="8")
    plain = make_folder(folder / "plain")
    if sys.argv[2] == "reload":
        sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3}
        found = reloaded(make_folder(folder / "wide", **sizes), "blockwise")
    else:
        found = {
            "h100x8": choices(config_of(plain, H100X8)),
            "tp8": choices(config_of(make_folder(folder / "heads", num_key_value_heads=4), TP4)),
            "sharpness": sharpness(plain),
            "plenty": streamed(plain, 1024),
            "little": streamed(plain, 27),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
