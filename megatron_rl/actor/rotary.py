"""Rotary frequencies of a model, with the rounding of transformers: Megatron makes only those without a scaling."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from megatron_rl.config.records import LinearScaling, Llama3Scaling, Model, YarnScaling


def frequencies(model: Model) -> Tensor:
    """Radians per position [head_dim / 2] float32, from the fastest to the slowest.

    Source: Llama 3.1's and YaRN's (arXiv 2309.00071) as transformers computes them, operation by operation, for what a
    frequency rounds by is multiplied by the position.

    >>> from recipes.prorl_v2 import RECIPE
    >>> from dataclasses import replace
    >>> model = replace(RECIPE.model, head_dim=4, rope_theta=100.0)
    >>> [round(f, 4) for f in frequencies(model).tolist()]
    [1.0, 0.1]
    >>> halved = frequencies(replace(model, rope_scaling=LinearScaling(factor=2.0)))
    >>> [round(f, 4) for f in halved.tolist()]
    [0.5, 0.05]
    """
    steps = torch.arange(0, model.head_dim, 2, dtype=torch.float32) / model.head_dim
    periods = model.rope_theta**steps
    plain, scaling = 1.0 / periods, model.rope_scaling
    if scaling is None:
        return plain
    if isinstance(scaling, LinearScaling):
        return plain / scaling.factor
    return _llama3(plain, scaling) if isinstance(scaling, Llama3Scaling) else _yarn(periods, model, scaling)


def softmax_scale(model: Model) -> float | None:
    """What attention multiplies its scores by; None for 1 / sqrt(head_dim).

    YaRN's factor of queries and keys, all of whose dimensions are rotated, taken together.
    """
    scaling = model.rope_scaling
    return scaling.attention_factor**2 / math.sqrt(model.head_dim) if isinstance(scaling, YarnScaling) else None


def _llama3(plain: Tensor, scaling: Llama3Scaling) -> Tensor:
    low, high, original = scaling.low_frequency_factor, scaling.high_frequency_factor, scaling.original_max_positions
    lengths = 2 * math.pi / plain
    slowed = torch.where(lengths > original / low, plain / scaling.factor, plain)
    share = (original / lengths - low) / (high - low)
    between = (1 - share) * slowed / scaling.factor + share * slowed
    is_between = ~(lengths < original / high) & ~(lengths > original / low)
    return torch.where(is_between, between, slowed)


def _yarn(periods: Tensor, model: Model, scaling: YarnScaling) -> Tensor:
    size, count = model.head_dim, model.head_dim // 2

    def dimension(turns: float) -> float:
        """The one that turns so often in the original context."""
        ratio = scaling.original_max_positions / (turns * 2 * math.pi)
        return size * math.log(ratio) / (2 * math.log(model.rope_theta))

    first, last = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncates:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, size - 1)
    width = last - first if last != first else 0.001
    kept = 1 - ((torch.arange(count, dtype=torch.float32) - first) / width).clamp(0, 1)
    return 1.0 / (scaling.factor * periods) * (1 - kept) + 1.0 / periods * kept
