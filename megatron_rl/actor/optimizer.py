"""AdamW as Megatron's distributed optimizer; norms and biases are spared weight decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from megatron_rl.actor import precision
from megatron_rl.config.records import Optimizer


def wrapped(chunks: list[Any], config: Any) -> list[Any]:
    """The chunks under Megatron's data parallelism; gradients are reduced in fp32."""
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig

    options = DistributedDataParallelConfig(
        use_distributed_optimizer=True, grad_reduce_in_fp32=True, overlap_grad_reduce=False
    )
    return [DistributedDataParallel(config, options, chunk) for chunk in chunks]


def build(chunks: list[Any], values: Optimizer, dtype: torch.dtype) -> Any:
    """Megatron's optimizer for wrapped chunks, its states sharded over the data-parallel ranks."""
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer

    options = OptimizerConfig(
        optimizer="adam",
        lr=values.learning_rate,
        min_lr=values.learning_rate,
        weight_decay=values.weight_decay,
        adam_beta1=values.beta1,
        adam_beta2=values.beta2,
        adam_eps=values.epsilon,
        clip_grad=values.max_grad_norm,
        use_distributed_optimizer=True,
        **precision.optimizer_options(dtype),
    )
    return get_megatron_optimizer(options, chunks)


def learning_rate(values: Optimizer, step: int) -> float:
    """Constant after a linear warm-up that does not start at zero.

    >>> from megatron_rl.config.records import Optimizer
    >>> values = Optimizer(learning_rate=1.0, warmup_steps=4, beta1=.9, beta2=.9, epsilon=1., weight_decay=0.,
    ...                    max_grad_norm=1.)
    >>> [learning_rate(values, step) for step in (0, 1, 3, 9)]
    [0.25, 0.5, 1.0, 1.0]
    """
    return values.learning_rate * min(1.0, (step + 1) / max(values.warmup_steps, 1))


def set_rates(optimizer: Any, values: Optimizer, step: int) -> float:
    """Sets this step's learning rate and each group's weight decay; returns the rate.

    Megatron puts norms and biases into groups with `wd_mult` 0 but leaves applying it to a scheduler.
    """
    rate = learning_rate(values, step)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_mult"]
        group["weight_decay"] = values.weight_decay * group["wd_mult"]
    return rate


def clear(optimizer: Any) -> None:
    """Forgets the moments and the step count."""
    for part in _parts(optimizer):
        part.optimizer.state.clear()
        for group in part.optimizer.param_groups:
            group.pop("step", None)  # Transformer Engine's AdamW counts there


def state(optimizer: Any) -> list[dict[str, Any]]:
    """This rank's shard of the optimizer: main parameters and moments."""
    return [
        {
            "moments": part.optimizer.state_dict(),
            "parameters": [parameter.detach() for parameter in _parameters(part.optimizer)],
        }
        for part in _parts(optimizer)
    ]


def ranges(optimizer: Any, parameters: Sequence[Tensor]) -> list[list[tuple[int, int, int]]]:
    """Where each main parameter of `state` lies: its place in `parameters`, and start and end in that one, flattened.

    The distributed optimizer cuts the flat buffer of all parameters into equal parts, one per data-parallel rank,
    wherever that cuts a parameter.
    """
    numbers = {parameter: number for number, parameter in enumerate(parameters)}
    found = []
    for part in _parts(optimizer):
        places = {}
        for parameter, group_and_order in part.model_param_group_index_map.items():
            own = part._get_model_param_range_map(parameter)["param"]
            places[group_and_order] = (numbers[parameter], own.start, own.end)
        found.append([places[group_and_order] for group_and_order in sorted(places)])
    return found


@torch.no_grad()
def load_state(optimizer: Any, saved: list[dict[str, Any]]) -> None:
    """Restores what `state` gave, on the same layout."""
    for part, values in zip(_parts(optimizer), saved, strict=True):
        part.optimizer.load_state_dict(values["moments"])
        for parameter, value in zip(_parameters(part.optimizer), values["parameters"], strict=True):
            parameter.copy_(value)


def tensors(optimizer: Any) -> list[Tensor]:
    """All that this rank's shard holds: main parameters, and moments once there are some."""
    found = []
    for part in _parts(optimizer):
        found += [parameter.detach() for parameter in _parameters(part.optimizer)]
        states = part.optimizer.state.values()
        found += [value for state in states for value in state.values() if isinstance(value, Tensor)]
    return found


def loss_scaler(optimizer: Any) -> Any | None:
    """What holds the factor of the loss, where gradients are fp16; Megatron halves it at an overflow."""
    part, *others = _parts(optimizer)
    assert not others, "parts of the optimizer with a loss scale each"
    return part.grad_scaler


def _parts(optimizer: Any) -> list[Any]:
    """Megatron's optimizers inside the one it gives; each wraps one of torch."""
    return getattr(optimizer, "chained_optimizers", [optimizer])


def _parameters(torch_optimizer: Any) -> list[Tensor]:
    return [parameter for group in torch_optimizer.param_groups for parameter in group["params"]]
