"""How fast a refit is against the floor of the same run; prints one line of JSON.

On bare tensors of both engines' shapes: what is measured is the transfer, and no engine is started. In one process, the
same layout against a copy of the same tensors one by one. In two, over gloo, the actor's TP 2 to engines of one rank
each, which lack half of the model: against a message of as many bytes each way, and against the full gather that public
systems use, written plainly.

Not covered: NCCL, pinned memory, several machines, the first refit, which makes the plan.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from megatron_rl.actor import slices
from megatron_rl.config.records import Model
from megatron_rl.refit import plan
from megatron_rl.refit.plan import Layout
from megatron_rl.runtime.ranks import free_port

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from megatron_rl.refit.transfer import Transfer

ONE = Layout(tensor_parallel=1, pipeline_parallel=1, virtual_pipeline=1, replicas=1, rollout_tensor_parallel=1)
TWO = Layout(tensor_parallel=2, pipeline_parallel=1, virtual_pipeline=1, replicas=1, rollout_tensor_parallel=1)
# Layers, width, width of the gated layer, heads, vocabulary.
SIZES = {"20m": (8, 384, 1152, 6, 4096), "100m": (12, 768, 2304, 12, 16384), "500m": (15, 1536, 5120, 12, 16384)}
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
Figures = dict[str, float]


def main() -> None:
    """Starts both ranks; prints what the first one measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=sizes_of, default=",".join(SIZES), help="of " + ", ".join(SIZES))
    parser.add_argument("--repeats", type=int, default=7, help="turns of each measurement")
    options = parser.parse_args()
    if "RANK" in os.environ:
        figures = measured(options.sizes, options.repeats)
        if os.environ["RANK"] == "0":
            print(json.dumps({name: float(f"{value:.4g}") for name, value in figures.items()}))
        return
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen([sys.executable, *sys.argv], env=os.environ | place | {"RANK": str(rank)}) for rank in (0, 1)
    ]
    sys.exit(max(abs(rank.wait()) for rank in ranks))


def sizes_of(words: str) -> list[str]:
    """The sizes that are named, with commas. Raises argparse's error for one that there is not."""
    sizes = words.split(",")
    if unknown := [size for size in sizes if size not in SIZES]:
        raise argparse.ArgumentTypeError(f"there is no {unknown[0]!r}; there are {', '.join(SIZES)}")
    return sizes


def measured(sizes: list[str], repeats: int) -> Figures:
    """All figures, on the first rank; the second helps with half of them."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=timedelta(seconds=300))
    figures: Figures = {}
    for size in sizes:
        for name, dtype in DTYPES.items():
            found = same_layout(size, getattr(torch, dtype), repeats) if dist.get_rank() == 0 else {}
            dist.barrier()
            found |= resharding(size, getattr(torch, dtype), repeats)
            figures |= {f"{key}_{size}_{name}": value for key, value in found.items()}
    return figures


def model_of(size: str) -> Model:
    """An untied Qwen2 shape."""
    layers, width, gated, heads, vocabulary = SIZES[size]
    return Model(
        name=size, family="qwen2", num_layers=layers, hidden_size=width, num_heads=heads, num_kv_heads=2,
        head_dim=width // heads, ffn_hidden_size=gated, vocab_size=vocabulary, max_positions=1024, rope_theta=1e4,
        norm_epsilon=1e-6, tied_embeddings=False, qkv_bias=True, qk_norm=False,
    )  # fmt: skip


def transfer_of(size: str, layout: Layout, rank: int, dtype: torch.dtype, group: Any) -> Transfer:
    """A transfer between new tensors."""
    import torch

    from megatron_rl.refit.transfer import BUCKET_BYTES, Transfer

    what = plan.make(model_of(size), layout, rank, BUCKET_BYTES // dtype.itemsize)
    sources = {name: torch.randn(shape, dtype=dtype) for name, shape in what.sources.items()}
    targets = {name: torch.zeros(shape, dtype=dtype) for name, shape in what.targets.items()}
    return Transfer(what, sources, targets, group, BUCKET_BYTES)


def same_layout(size: str, dtype: torch.dtype, repeats: int) -> Figures:
    """One process: the transfer against a copy of the same tensors into memory that is there."""
    one = transfer_of(size, ONE, 0, dtype, None)
    sources = list(one.sources.values())
    copies = [source.clone() for source in sources]

    def copy() -> None:
        for target, source in zip(copies, sources, strict=True):
            target.copy_(source)

    ours, floor = seconds_of(repeats, one.run, copy)
    say(f"{size} {dtype}: same layout {ours:.4g} s, copy {floor:.4g} s")
    return {
        "same_layout_ratio": ours / floor,
        "same_layout_milliseconds": 1e3 * ours,
        "copy_milliseconds": 1e3 * floor,
        "megabytes": sum(source.nbytes for source in sources) / 1e6,
    }


def resharding(size: str, dtype: torch.dtype, repeats: int) -> Figures:
    """Two processes: the transfer against plain messages of the same bytes, and against a full gather."""
    import torch
    import torch.distributed as dist

    rank, world = dist.get_rank(), dist.get_world_size()
    one = transfer_of(size, TWO, rank, dtype, dist.group.WORLD)
    outgoing = torch.zeros(one.bytes_received, dtype=torch.uint8)  # each rank sends as much as it gets
    incoming = torch.zeros_like(outgoing)
    split = [0 if other == rank else len(outgoing) for other in range(world)]
    gather = full_gather(model_of(size), one.sources, {name: torch.zeros_like(t) for name, t in one.targets.items()})

    def floor() -> None:
        dist.all_to_all_single(incoming, outgoing, split, split)

    dist.barrier()
    held = gather()
    one.run()
    assert all(torch.equal(held[name], tensor) for name, tensor in one.targets.items()), "both must fill alike"
    ours, plain, gathered = seconds_of(repeats, one.run, floor, gather, before=dist.barrier)
    if rank == 0:
        say(f"{size} {dtype}: resharding {ours:.4g} s, messages {plain:.4g} s, full gather {gathered:.4g} s")
    return {
        "resharding_ratio": ours / plain,
        "resharding_milliseconds": 1e3 * ours,
        "messages_milliseconds": 1e3 * plain,
        "full_gather_ratio": gathered / ours,
        "received_megabytes": one.bytes_received / 1e6,
    }


def full_gather(
    model: Model, sources: dict[str, Tensor], targets: dict[str, Tensor]
) -> Callable[[], dict[str, Tensor]]:
    """What public systems do: every tensor whole on every rank, by its name in Hugging Face, and then into vLLM's."""
    import torch
    import torch.distributed as dist

    def whole(kind: str, shard: Tensor) -> list[Tensor]:
        if kind == "whole":
            return [shard]
        shards = [torch.empty_like(shard) for _ in range(dist.get_world_size())]
        dist.all_gather(shards, shard)
        if kind == "gate_up":
            return [torch.cat(halves) for halves in zip(*(one.chunk(2) for one in shards), strict=True)]
        fused = torch.cat(shards, 1 if kind == "columns" else 0)
        if kind != "qkv":
            return [fused]
        queries = model.num_heads // model.num_kv_heads
        grouped = fused.view(model.num_kv_heads, queries + 2, model.head_dim, -1)
        return [part.reshape(-1, fused.shape[1]) for part in grouped.split([queries, 1, 1], 1)]

    def gather() -> dict[str, Tensor]:
        for kind, names in slices.parameters_of(model):
            row = 0
            target = targets[names[0].replace("q_proj", "qkv_proj").replace("gate_proj", "gate_up_proj")]
            for tensor in whole(kind, sources[names[0]]):
                target[row : row + len(tensor)].copy_(tensor)
                row += len(tensor)
        return targets

    return gather


def seconds_of(repeats: int, *functions: Callable[[], object], before: Callable[[], object] = int) -> list[float]:
    """Median wall seconds of each function; they take turns, after one turn that is not counted."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(repeats + 1):
        for function, found in zip(functions, times, strict=True):
            before()
            began = time.perf_counter()
            function()
            if turn:
                found.append(time.perf_counter() - began)
    return [statistics.median(found) for found in times]


def say(line: str) -> None:
    """Writes a line of progress; standard output is for the figures."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
