"""In which precision the actor computes: what Megatron is told for fp16 and FP8, and what FP8 keeps beside the weights.

FP8 is Transformer Engine's: the linear layers of all but the first and the last layer multiply in it. Weights,
gradients and optimizer stay as they are in bf16, and so do checkpoints, refits and exports. No GPU has run it yet.

Not covered: weights kept in FP8, attention and the head in FP8, mixture of experts.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from megatron_rl.config.precision import bf16_layers
from megatron_rl.config.records import Model, Scale

Remembered = dict[str, dict[str, Any]]  # of a layer: its "tensors" and its "variables", by name
UNPICKLES = "NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE"  # Transformer Engine's own word for: this pickle is trusted
QUANTIZED = "_fp8_workspaces"  # where a layer of Transformer Engine 2.16 keeps its weights' FP8 copies, and for ever
SETTLING_PASSES = 3  # what one layer clipped in the first pass was wrong in the layers above it
# Of the loss, where gradients are fp16. Any power of two does: the first update halves it until nothing overflows.
INITIAL_LOSS_SCALE = 2.0**16
UPDATES_BEFORE_DOUBLING = 1000  # without an overflow; Megatron's own


def transformer_options(model: Model, scale: Scale, dtype: torch.dtype) -> dict[str, Any]:
    """Fields of Megatron's TransformerConfig; `dtype` is that of weights and activations."""
    options: dict[str, Any] = {
        "params_dtype": dtype,
        "pipeline_dtype": dtype,
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
    }
    if scale.fp8_actor == "off":
        return options
    kept = bf16_layers(model, scale)
    return options | {
        # Blocks are fine enough for three bits of mantissa in gradients, too; whole tensors need their range.
        "fp8": "e4m3" if scale.fp8_actor == "blockwise" else "hybrid",
        "fp8_recipe": scale.fp8_actor,
        "fp8_param": False,
        "first_last_layers_bf16": bool(kept),
        "num_layers_at_start_in_bf16": len(kept) // 2,
        "num_layers_at_end_in_bf16": len(kept) // 2,
    }


def optimizer_options(dtype: torch.dtype) -> dict[str, Any]:
    """Fields of Megatron's OptimizerConfig. An overflow of fp16 halves the scale at once: the update is made again."""
    options: dict[str, Any] = {"params_dtype": dtype, "bf16": dtype == torch.bfloat16, "fp16": dtype == torch.float16}
    scaling = {
        "initial_loss_scale": INITIAL_LOSS_SCALE,
        "min_loss_scale": 1.0,
        "loss_scale_window": UPDATES_BEFORE_DOUBLING,
        "hysteresis": 1,
    }
    return options | (scaling if options["fp16"] else {})


def check_hardware(scale: Scale) -> None:
    """Raises RuntimeError where this process's GPU, or its CUDA, has no FP8 of the kind that the scale asks for."""
    if scale.fp8_actor == "off":
        return
    from transformer_engine.pytorch import is_fp8_available, is_fp8_block_scaling_available

    asked = is_fp8_block_scaling_available if scale.fp8_actor == "blockwise" else is_fp8_available
    has_it, reason = asked(return_reason=True)
    if not has_it:
        raise RuntimeError(
            f"scale '{scale.name}': fp8_actor='{scale.fp8_actor}' cannot run here: {reason}; take another GPU, or "
            "fp8_actor='off'"
        )


def drop_quantized(chunks: Sequence[torch.nn.Module]) -> None:
    """Gives back the memory of the weights' FP8 copies; the next pass makes them anew, as it does of new weights."""
    for chunk in chunks:
        for module in chunk.modules():
            getattr(module, QUANTIZED, {}).clear()


def scaling_state(chunks: Sequence[torch.nn.Module]) -> list[dict[str, Remembered]]:
    """What the layers of each chunk remember of the largest numbers they met, which delayed scaling goes by.

    Transformer Engine gives it as a pickle, which no checkpoint may hold: to read one is to run what is in it.
    """
    return [
        {
            name: _remembered(state)
            for name, module in _with_state(chunk)
            if (state := module.get_extra_state()) is not None and state.numel() > 0
        }
        for chunk in chunks
    ]


def load_scaling_state(
    chunks: Sequence[torch.nn.Module], saved: Sequence[Mapping[str, Remembered]], config: Any
) -> None:
    """Restores what `scaling_state` gave, on the same layout; `config` is Megatron's TransformerConfig."""
    from megatron.core.fp8_utils import get_fp8_recipe

    recipe = get_fp8_recipe(config)
    with _pickles_taken():
        for chunk, states in zip(chunks, saved, strict=True):
            modules = dict(_with_state(chunk))
            for name, found in states.items():
                content = {**found["tensors"], "recipe": recipe, "extra_fp8_variables": found["variables"]}
                state = torch.frombuffer(bytearray(pickle.dumps(content)), dtype=torch.uint8)
                modules[name].set_extra_state(state)


def _remembered(state: Tensor) -> Remembered:
    """The tensors and the plain values of a layer's state; its recipe is the run's."""
    content = pickle.loads(state.numpy().tobytes())
    variables = content["extra_fp8_variables"].items()
    return {
        "tensors": {name: value for name, value in content.items() if isinstance(value, Tensor)},
        "variables": {name: value for name, value in variables if isinstance(value, bool | int | float | str)},
    }


@contextmanager
def _pickles_taken() -> Iterator[None]:
    """Inside, Transformer Engine 2.16 unpickles a layer's state, which it refuses otherwise."""
    before = os.environ.get(UNPICKLES)
    os.environ[UNPICKLES] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[UNPICKLES]
        else:
            os.environ[UNPICKLES] = before


def _with_state(chunk: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    none = torch.nn.Module.get_extra_state
    return [(name, module) for name, module in chunk.named_modules() if type(module).get_extra_state is not none]
