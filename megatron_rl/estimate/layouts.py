"""Layouts of a model on so many GPUs: every one that divides, what it needs, and why one is proposed before another.

The least model parallelism that fits wins, because each degree of it is messages in every layer, and then the least
that a rollout engine spans. Sequences are shared by context-parallel ranks only where the same tensor and pipeline
parallelism does not fit without. Memory is that of estimate/memory.py, and no more certain; speed is not measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from megatron_rl.config.checks import UserError
from megatron_rl.config.precision import BYTES, token_multiple
from megatron_rl.config.records import Model, Scale
from megatron_rl.config.run import Run
from megatron_rl.estimate.memory import RESERVED_BYTES, Memory, estimate, shortage

GIB = 2**30
MAX_KV_CACHE_BYTES = 40 * GIB  # 1.5 million tokens of a 1.5B model; more gains nothing there
SEQUENCES_AT_ONCE = 32  # of full length, that an engine's cache should hold, before it spans more GPUs
DEGREES = (1, 2, 4, 8, 16)
OFFLOADS: tuple[Literal["nothing", "optimizer", "weights"], ...] = ("nothing", "optimizer", "weights")  # tried in order
SPARE_BYTES = 2 * GIB  # that a cache of the largest size leaves


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way to place a model: the scale, and what speaks for or against it."""

    scale: Scale
    memory: Memory | None  # None where the layout itself is refused
    lacks: int  # bytes on a device; 0 or less where it fits
    sequences_at_once: int  # of full length in the cache of an engine
    verdict: str

    @property
    def fits(self) -> bool:
        return self.memory is not None and self.lacks <= 0

    @property
    def name(self) -> str:
        """The degrees, as in `tensor 4 x pipeline 2 x data 8, rollout tensor 4`."""
        scale = self.scale
        context = f"context {scale.context_parallel} x " if scale.context_parallel > 1 else ""
        return (
            f"tensor {scale.tensor_parallel} x pipeline {scale.pipeline_parallel} x {context}"
            f"data {scale.data_parallel}, rollout tensor {scale.rollout_tensor_parallel}"
        )


def layouts(run_at: Callable[[Scale], Run], base: Scale) -> list[Layout]:
    """Layouts for each degree of tensor and pipeline parallelism on the devices of `base`, the best first.

    `run_at` makes the run at a scale, and raises UserError where the model does not divide.
    """
    found = []
    for scale in _degrees(base):
        found.append(_placed(run_at, scale))
        degrees = iter(DEGREES[1:])
        while not found[-1].fits and found[-1].memory is not None and (shared := _shared(scale, next(degrees, 0))):
            found.append(_placed(run_at, shared))
    return sorted(found, key=lambda layout: (not layout.fits, layout.memory is None, _cost(layout.scale)))


def _degrees(base: Scale) -> Iterator[Scale]:
    for tensor in (degree for degree in DEGREES if base.devices_per_node % degree == 0):
        for pipeline in DEGREES:
            if base.num_devices % (tensor * pipeline) == 0:
                tokens = -(-base.max_tokens_per_microbatch // tensor) * tensor
                yield dataclasses.replace(
                    base,
                    tensor_parallel=tensor,
                    pipeline_parallel=pipeline,
                    sequence_parallel=tensor > 1,
                    max_tokens_per_microbatch=tokens,
                )


def _shared(scale: Scale, degree: int) -> Scale | None:
    """The scale with each sequence shared by so many ranks; None where the devices do not divide."""
    if degree == 0 or scale.num_devices % (scale.tensor_parallel * scale.pipeline_parallel * degree):
        return None
    shared = dataclasses.replace(scale, context_parallel=degree)
    tokens, multiple = scale.max_tokens_per_microbatch, token_multiple(shared)
    return dataclasses.replace(shared, max_tokens_per_microbatch=-(-tokens // multiple) * multiple)


def _cost(scale: Scale) -> tuple[int, int, int, int]:
    """What is preferred to be low: ranks of a replica; stages, which leave ranks idle; ranks that share sequences and
    have the same weights; and ranks of an engine.
    """
    replica = scale.tensor_parallel * scale.pipeline_parallel * scale.context_parallel
    return replica, scale.pipeline_parallel, scale.context_parallel, scale.rollout_tensor_parallel


def _placed(run_at: Callable[[Scale], Run], scale: Scale) -> Layout:
    """The best engines beside an actor so laid out: the smallest that hold enough, else those that hold most."""
    options = [
        _option(run_at, dataclasses.replace(scale, rollout_tensor_parallel=degree, offloads=offloads))
        for degree in DEGREES
        if scale.devices_per_node % degree == 0
        for offloads in OFFLOADS
    ]
    fitting = [option for option in options if option.fits]
    enough = [option for option in fitting if option.sequences_at_once >= SEQUENCES_AT_ONCE]
    if enough:
        return enough[0]
    if fitting:
        return max(fitting, key=lambda option: option.sequences_at_once)
    return min(options, key=lambda option: (option.memory is None, option.lacks))


def _option(run_at: Callable[[Scale], Run], scale: Scale) -> Layout:
    try:
        smallest = run_at(dataclasses.replace(scale, kv_cache_bytes=MAX_KV_CACHE_BYTES))
    except UserError as error:
        return Layout(scale=scale, memory=None, lacks=0, sequences_at_once=0, verdict=str(error))
    one = kv_bytes_per_token(smallest.model, scale) * smallest.max_tokens
    without = estimate(smallest)
    room = scale.device_memory_bytes - RESERVED_BYTES[scale.device] - SPARE_BYTES
    free = room - (without.generation - without.kv_cache)
    cache = max(2 * one, min(MAX_KV_CACHE_BYTES, free)) // GIB * GIB or 2 * one
    run = run_at(dataclasses.replace(scale, kv_cache_bytes=cache))
    memory, lacks = estimate(run), shortage(estimate(run), run.scale)
    held = cache // one
    return Layout(scale=run.scale, memory=memory, lacks=lacks, sequences_at_once=held, verdict=_why(memory, run, lacks))


def _why(memory: Memory, run: Run, lacks: int) -> str:
    if lacks > 0:
        phase = "training" if memory.training >= memory.generation else "generating"
        return f"lacks {lacks / GIB:.1f} GiB while {phase}"
    leaves = "" if run.scale.offloads == "nothing" else f"; {run.scale.offloads} offloaded in rollouts"
    return (
        f"fits with {-lacks / GIB:.1f} GiB to spare; {run.scale.kv_cache_bytes // GIB} GiB of cache for each of "
        f"{run.scale.num_engines} engines' ranks{leaves}"
    )


def kv_bytes_per_token(model: Model, scale: Scale) -> int:
    """Bytes of keys and values of one token on one rank of an engine."""
    numbers = 2 * model.num_layers * model.num_kv_heads * model.head_dim // scale.rollout_tensor_parallel
    return BYTES[scale.precision] * numbers
