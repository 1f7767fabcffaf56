"""A rank of another layout reads its share of the files and nothing else, and holds what the export says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from megatron_rl.actor import names, reshard, slices
from megatron_rl.config.pretrained import read_model
from megatron_rl.config.records import Model
from tests.actor.test_names import by_definition, random_weights
from tests.folders import write_model

OLD_DEGREE, OLD_REPLICAS = 2, 3  # three, so that the optimizer's pieces begin and end within rows
SHAPE = {"num_key_value_heads": 4, "num_attention_heads": 8, "num_hidden_layers": 2, "hidden_size": 32}


class Traffic(TorchDispatchMode):
    """Counts the bytes that are copied out of the files, and those of all memory that is taken meanwhile."""

    def __init__(self, files: list[dict[str, Any]]) -> None:
        super().__init__()
        self.in_files = {tensor.untyped_storage().data_ptr() for file in files for tensor in tensors_in(file)}
        self.known, self.read, self.taken = set(self.in_files), 0, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.copy_.default and self.storage(args[1]) in self.in_files:
            self.read += args[1].nbytes
        if isinstance(result, Tensor) and self.storage(result) not in self.known:
            self.known.add(self.storage(result))
            self.taken += result.untyped_storage().nbytes()
        return result

    def storage(self, tensor: Tensor) -> int:
        return tensor.untyped_storage().data_ptr()


def tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for one in inner for tensor in tensors_in(one)]


def shard(model: Model, entry: Any, what: dict[str, Tensor], degree: int, rank: int) -> Tensor:
    sharding, key = entry
    return by_definition(sharding, [what[name] for name in key], model, degree, rank).contiguous()


def saved(model: Model, weights: dict[str, Tensor], main: dict[str, Tensor]) -> list[dict[str, Any]]:
    """The files of OLD_DEGREE tensor-parallel ranks and OLD_REPLICAS replicas, of which the first has the weights."""
    entries, files = slices.parameters_of(model), []
    for replica in range(OLD_REPLICAS):
        for rank in range(OLD_DEGREE):
            shards = [shard(model, entry, weights, OLD_DEGREE, rank) for entry in entries]
            flat = [shard(model, entry, main, OLD_DEGREE, rank).flatten() for entry in entries]
            ends = [[len(one) * i // OLD_REPLICAS for i in (replica, replica + 1)] for one in flat]
            pieces = [one[start:end].clone() for one, (start, end) in zip(flat, ends, strict=True)]
            files.append(
                {
                    "weights": shards if replica == 0 else None,
                    "reference": None,
                    "best": None,
                    "places": {
                        "tensor": (rank, OLD_DEGREE),
                        "parameters": [(key, False) for _, key in entries],
                        "optimizer": [[(i, start, end) for i, (start, end) in enumerate(ends)]],
                    },
                    "optimizer": [
                        {
                            "moments": {
                                "state": {
                                    i: {"exp_avg": -piece, "step": torch.tensor(3.0)} for i, piece in enumerate(pieces)
                                },
                                "param_groups": [{}],
                            },
                            "parameters": pieces,
                        }
                    ],
                }
            )
    return files


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return read_model(write_model(tmp_path / "model", **SHAPE))


@pytest.mark.parametrize(("degree", "rank"), [(1, 0), (4, 1), (4, 3)])
def test_a_rank_reads_each_byte_of_its_share_once_and_takes_no_memory_besides(
    model: Model, degree: int, rank: int
) -> None:
    weights, main = random_weights(model), {name: 2 * tensor for name, tensor in random_weights(model).items()}
    mine = [entry for entry in slices.parameters_of(model) if "layers.0" not in entry[1][0]]  # a stage of two
    shards = [shard(model, entry, weights, degree, rank) for entry in mine]
    ranges = [(i, one.numel() // 7, one.numel() * 5 // 6) for i, one in enumerate(shards)]
    own = {
        "places": {"tensor": (rank, degree), "optimizer": [ranges]},
        "optimizer": [{"moments": {"param_groups": [{"lr": 1.0}]}}],
    }
    entries = [
        names.Entry(sharding=sharding, hugging_face=key, shape=tuple(one.shape), dtype=one.dtype, is_tied_copy=False)
        for (sharding, key), one in zip(mine, shards, strict=True)
    ]
    files = saved(model, weights, main)
    with Traffic(files) as traffic:
        found = reshard.resharded(files, own, entries, model)
    assert all(torch.equal(*pair) for pair in zip(found["weights"], shards, strict=True))
    part, moments = found["optimizer"][0]["parameters"], found["optimizer"][0]["moments"]
    for i, start, end in ranges:
        expected = shard(model, mine[i], main, degree, rank).flatten()[start:end]
        assert torch.equal(part[i], expected) and torch.equal(moments["state"][i]["exp_avg"], -expected)
    held = sum(tensor.nbytes for tensor in [*found["weights"], *part]) + sum(tensor.nbytes for tensor in part)
    assert traffic.read == held
    assert held <= traffic.taken <= held + 64 * len(ranges)  # step counts


def test_a_group_that_has_nothing_on_a_rank_says_no_step(model: Model) -> None:
    """Transformer Engine's AdamW counts steps for each group, and leaves out one that has no parameter on a rank."""
    weights = random_weights(model)
    files = saved(model, weights, weights)
    for file in files:
        moments = file["optimizer"][0]["moments"]
        moments["param_groups"] = [{"params": [0, 1], "step": 900}, {"params": [], "step": 4}, {"params": []}]
    own = {
        "places": {"tensor": (0, 1), "optimizer": [[]]},
        "optimizer": [{"moments": {"param_groups": [{"lr": 1.0}, {"lr": 2.0}]}}],
    }
    found = reshard.resharded(files, own, [], model)["optimizer"][0]["moments"]["param_groups"]
    assert found == [{"lr": 1.0, "step": 900}, {"lr": 2.0, "step": 900}]


def test_a_piece_that_is_missing_is_named(model: Model) -> None:
    weights = random_weights(model)
    files = saved(model, weights, weights)
    entry = next(entry for entry in slices.parameters_of(model) if entry[0] == "qkv")
    shape = slices.shard_shape(*entry, model, 1)
    mine = names.Entry(sharding=entry[0], hugging_face=entry[1], shape=shape, dtype=torch.float32, is_tied_copy=False)
    own = {
        "places": {"tensor": (0, 1), "optimizer": [[(0, 0, math.prod(shape))]]},
        "optimizer": [{"moments": {"param_groups": [{}]}}],
    }
    with pytest.raises(
        RuntimeError, match=r"does not have all .* of model\.layers\.0\.self_attn\.q_proj\.weight, .*damaged"
    ):
        reshard.resharded(files[:-1], own, [mine], model)
