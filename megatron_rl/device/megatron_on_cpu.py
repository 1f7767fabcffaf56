"""Lets Megatron-core train on a machine without CUDA, in fp32 or bf16 over gloo.

Five kinds of adaptation, all in this process only:
1. CUDA calls that raise on a CPU build of torch get their CPU meaning.
2. In the Megatron modules that write device="cuda" as a literal, the module's global `torch` becomes a facade whose
   factories read "cuda" as "cpu". torch itself is not changed.
3. Three functions compare Tensor.type() with "torch.cuda.*"; while one of them runs, CPU tensors answer that.
4. The rotary embedding of packs is our own, and so is the gate: a tenth of a small model's step went into making the
   tables of the one, a fiftieth of its update into copies by the other.
5. The products of its linear layers in fp32 are oneDNN's: torch's, which are MKL's, were 25 of the 32 seconds that the
   actor took of a 17M model's step.

Not covered: mixture of experts, CUDA graphs, Megatron's own distributed checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import types
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from megatron_rl.device.attention_on_cpu import PackRotation, gated_silu
from megatron_rl.device.products_on_cpu import by_onednn

CPU = torch.device("cpu")
MODULES_WITH_LITERAL_CUDA = (
    "pipeline_parallel.schedules",
    "optimizer.optimizer",
    "optimizer.clip_grads",
    "optimizer.grad_scaler",
    "utils",
    "transformer.utils",
)

# What Megatron 0.16 says on this torch without Transformer Engine, and what nobody here can do anything about.
EXPECTED_WARNINGS = (
    "Transformer Engine and Apex are not installed",
    "Apex is not installed",
    "full scope is deprecated",
    "The .grad attribute of a Tensor that is not a leaf",
    "`torch.distributed.[a-z_]*` is deprecated",
)


class _NoStream:
    """A CUDA stream or event where all work is synchronous."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class _TorchFacade(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class _CudaTypeNames(TorchFunctionMode):
    def __torch_function__(self, function: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.type and len(args) == 1 and not kwargs:
            return function(*args).replace("torch.", "torch.cuda.", 1)
        return function(*args, **(kwargs or {}))


def _made_on_cpu(factory: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(factory)
    def make(*args: Any, device: Any = None, **kwargs: Any) -> Any:
        return factory(*args, device=CPU if str(device).startswith("cuda") else device, **kwargs)

    return make


def _with_cuda_type_names(owner: Any, name: str) -> None:
    function = getattr(owner, name)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _CudaTypeNames():
            return function(*args, **kwargs)

    setattr(owner, name, call)


@functools.cache
def adapt_megatron() -> None:
    """Installs the adaptation once per process."""
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    cuda: Any = torch.cuda
    cuda.current_device = lambda: CPU  # Megatron only passes it on as device=
    cuda.synchronize = lambda device=None: None
    cuda.manual_seed = torch.manual_seed
    cuda.get_rng_state = cuda.random.get_rng_state = lambda device=None: torch.get_rng_state()
    cuda.Stream = _NoStream
    cuda.current_stream = cuda.default_stream = lambda device=None: _NoStream()
    cuda.stream = lambda stream: contextlib.nullcontext()
    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[method-assign,assignment]

    from megatron.core.tensor_parallel import random

    random._set_cuda_rng_state = lambda state, device=-1, graph_safe=False: torch.set_rng_state(state)
    logging.getLogger(random.__name__).addFilter(lambda record: "CPU RNG state changed" not in record.getMessage())

    facade = _TorchFacade("torch")
    for name in ("zeros", "ones", "empty", "tensor", "empty_like"):
        setattr(facade, name, _made_on_cpu(getattr(torch, name)))
    for module in MODULES_WITH_LITERAL_CUDA:
        importlib.import_module(f"megatron.core.{module}").torch = facade  # type: ignore[attr-defined]

    from megatron.core.models.common.embeddings import rope_utils

    rope_utils._apply_rotary_pos_emb_thd = PackRotation()

    from megatron.core.tensor_parallel import layers

    for name in ("LinearWithGradAccumulationAndAsyncCommunication", "LinearWithFrozenWeight"):
        linear = getattr(layers, name)
        linear.forward, linear.backward = (staticmethod(by_onednn(one)) for one in (linear.forward, linear.backward))

    from megatron.core.transformer import mlp

    mlp.bias_swiglu_impl = gated_silu

    from megatron.core.optimizer import distrib_optimizer, optimizer

    _with_cuda_type_names(optimizer.Float16OptimizerWithFloat16Params, "__init__")
    _with_cuda_type_names(distrib_optimizer.DistributedOptimizer, "__init__")
    _with_cuda_type_names(optimizer, "clip_grad_by_total_norm_fp32")
