"""Process groups: who this process is among the ranks, and the few collectives on host data that the loop needs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_rl.config.checks import UserError
from megatron_rl.config.records import Scale
from megatron_rl.device import Device


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process's place in the layout."""

    rank: int
    world: int
    tensor: int
    pipeline: int
    data: int
    tensor_parallel: int
    pipeline_parallel: int
    data_parallel: int
    engine: int  # index of the rollout engine this rank belongs to
    engine_rank: int  # its place among the engine's ranks
    engine_size: int
    is_first_of_machine: bool
    context: int = 0
    context_parallel: int = 1
    engine_group: Any = None  # of the engine's ranks, on the host; None where an engine has one

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def has_loss(self) -> bool:
        """True on the last pipeline stage, where logits exist."""
        return self.pipeline == self.pipeline_parallel - 1

    @property
    def counts_tokens(self) -> bool:
        """True on one rank per data-parallel replica: the one whose sums stand for the replica."""
        return self.has_loss and self.tensor == 0 and self.context == 0

    @property
    def first_replica(self) -> int:
        """The first rank that has the same share of the model; context- and data-parallel ranks have equal ones."""
        return self.rank - (self.data * self.context_parallel + self.context) * self.tensor_parallel

    def data_of(self, rank: int) -> int:
        """The data-parallel index of any rank: tensor varies fastest, then context, then data, then pipeline."""
        return rank // (self.tensor_parallel * self.context_parallel) % self.data_parallel


def start(scale: Scale, device: Device, timeout_seconds: float) -> Ranks:
    """Joins the process group and makes Megatron's. Collective over the world.

    The environment of torchrun (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) names the world; without it this process
    is the whole world. Raises UserError when the world is not of the scale's size.
    """
    rank, world = int(os.environ.setdefault("RANK", "0")), int(os.environ.setdefault("WORLD_SIZE", "1"))
    os.environ.setdefault("LOCAL_RANK", str(rank % scale.devices_per_node))
    if world != scale.num_devices:
        raise UserError(
            f"scale '{scale.name}' needs {scale.num_devices} ranks, but {world} were started; "
            f"start {scale.num_devices} (srun --ntasks, torchrun) or choose another scale"
        )
    timeout = timedelta(seconds=timeout_seconds)
    if not dist.is_initialized():
        if world == 1:
            dist.init_process_group(
                device.collective_backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout
            )
        else:
            dist.init_process_group(device.collective_backend, timeout=timeout)
    device.prepare_megatron()
    from megatron.core import parallel_state, tensor_parallel

    parallel_state.initialize_model_parallel(
        scale.tensor_parallel,
        scale.pipeline_parallel,
        scale.virtual_pipeline if scale.virtual_pipeline > 1 else None,
        context_parallel_size=scale.context_parallel,
        distributed_timeout_minutes=max(1, round(timeout_seconds / 60)),
    )
    tensor_parallel.model_parallel_cuda_manual_seed(1234)
    size = scale.rollout_tensor_parallel
    starts = range(0, world, size) if size > 1 else ()
    groups = [dist.new_group(range(first, first + size), timeout, backend="gloo") for first in starts]
    ranks = Ranks(
        rank=rank,
        world=world,
        tensor=parallel_state.get_tensor_model_parallel_rank(),
        pipeline=parallel_state.get_pipeline_model_parallel_rank(),
        data=parallel_state.get_data_parallel_rank(),
        context=parallel_state.get_context_parallel_rank(),
        tensor_parallel=scale.tensor_parallel,
        pipeline_parallel=scale.pipeline_parallel,
        data_parallel=scale.data_parallel,
        context_parallel=scale.context_parallel,
        engine=rank // size,
        engine_rank=rank % size,
        engine_size=size,
        engine_group=groups[rank // size] if groups else None,
        is_first_of_machine=os.environ["LOCAL_RANK"] == "0",
    )
    assert ranks.data_of(rank) == ranks.data, "Megatron's rank order is not tensor, context, data, pipeline"
    return ranks


def reseed() -> None:
    """Gives Megatron its random state again, after vLLM has reseeded the global generators."""
    from megatron.core import tensor_parallel

    tensor_parallel.model_parallel_cuda_manual_seed(1234, force_reset_rng=True)


def stop() -> None:
    """Leaves the process groups, where the rollout engine has not done so already. Collective over the world."""
    from megatron.core import parallel_state

    parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()


def gather(value: Any) -> list[Any]:
    """The small host object of every rank, in rank order. Collective over the world."""
    if dist.get_world_size() == 1:
        return [value]
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, value)
    return everyone


def as_engine_leader(ranks: Ranks, value: bool) -> bool:
    """What the first rank of this rank's rollout engine says. Collective over the engine."""
    if ranks.engine_size == 1:
        return value
    said = [value]
    dist.broadcast_object_list(said, src=ranks.rank - ranks.engine_rank, group=ranks.engine_group)
    return said[0]


def raise_together(trouble: str | None, kind: type[Exception] = RuntimeError) -> None:
    """Raises `kind` on every rank with the first trouble that one of them has. Collective over the world."""
    if found := [one for one in gather(trouble) if one]:
        raise kind(found[0])


def total(values: Tensor) -> Tensor:
    """The sum of a host tensor over all ranks. Collective over the world."""
    if dist.get_world_size() > 1:
        dist.all_reduce(values)
    return values


def exchange(outgoing: list[Tensor], incoming_sizes: list[int]) -> list[Tensor]:
    """Sends `outgoing[r]` (host, [n] int32) to rank r; returns what each rank sent here. Collective over the world."""
    if dist.get_world_size() == 1:
        return outgoing
    received = torch.empty(sum(incoming_sizes), dtype=torch.int32)
    dist.all_to_all_single(received, torch.cat(outgoing), incoming_sizes, [len(part) for part in outgoing])
    return list(received.split(incoming_sizes))


def barrier() -> None:
    """Waits for all ranks, on the host. Collective over the world."""
    total(torch.zeros(1))
