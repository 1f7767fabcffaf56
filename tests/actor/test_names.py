"""Hugging Face -> Megatron shards -> Hugging Face is the identity, for every family and degree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from megatron_rl.actor.names import Entry, from_shards, parameters, to_shard, whole_shapes
from megatron_rl.actor.slices import LAYER, TOP
from megatron_rl.config.pretrained import read_model
from megatron_rl.config.records import Model
from megatron_rl.config.weights import tensor_names
from tests.folders import write_model

FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen2_tied": {"tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 8},  # not hidden_size / heads
    "llama": {"model_type": "llama"},
    "llama_without_grouped_queries": {"model_type": "llama", "num_key_value_heads": 4},
}
# Key-value heads must divide into the degree.
CASES = [(family, degree) for family in FAMILIES for degree in (1, 2)] + [("llama_without_grouped_queries", 4)]


@pytest.fixture
def model(family: str, tmp_path: Path) -> Model:
    return read_model(write_model(tmp_path / "model", **FAMILIES[family]))


def random_weights(model: Model) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in tensor_names(model).items()}


def table(model: Model) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """Every Megatron parameter a model of this shape can have, with its sharding and whole names."""
    entries = {
        f"decoder.layers.{layer}.{name}": (sharding, tuple(f"model.layers.{layer}.{part}" for part in parts))
        for layer in range(model.num_layers)
        for name, (sharding, parts) in LAYER.items()
    }
    known = tensor_names(model)
    return {name: entry for name, entry in (entries | TOP).items() if set(entry[1]) <= set(known)}


@pytest.mark.parametrize(("family", "degree"), CASES)
def test_the_round_trip_is_bit_identical(model: Model, degree: int) -> None:
    weights = random_weights(model)
    met = set()
    for name, (sharding, tensors) in table(model).items():
        whole = [weights[tensor] for tensor in tensors]
        shards = [to_shard(sharding, whole, model, degree, rank) for rank in range(degree)]
        assert len({shard.shape for shard in shards}) == 1, name
        for before, after in zip(whole, from_shards(sharding, shards, model), strict=True):
            assert torch.equal(before, after), name
        met.update(tensors)
    assert met == set(weights), "tensors that no Megatron parameter holds"


@pytest.mark.parametrize(("family", "degree"), CASES)
def test_whole_shapes_are_told_from_a_shard(model: Model, degree: int) -> None:
    shapes = tensor_names(model)
    for name, (sharding, tensors) in table(model).items():
        shard = to_shard(sharding, [torch.empty(shapes[tensor]) for tensor in tensors], model, degree, degree - 1)
        entry = Entry(
            sharding=sharding,
            hugging_face=tensors,
            shape=tuple(shard.shape),
            dtype=shard.dtype,
            is_tied_copy=False,
        )
        assert whole_shapes(entry, model, degree) == [shapes[tensor] for tensor in tensors], name


@pytest.mark.parametrize(("family", "degree"), CASES)
def test_every_element_is_on_exactly_one_rank(model: Model, degree: int) -> None:
    shapes = tensor_names(model)
    for name, (sharding, tensors) in table(model).items():
        if sharding == "whole":
            continue
        counts = [torch.Size(shapes[tensor]).numel() for tensor in tensors]
        numbers = torch.arange(sum(counts)).split(counts)
        whole = [part.reshape(shapes[tensor]) for part, tensor in zip(numbers, tensors, strict=True)]
        held = torch.cat([to_shard(sharding, whole, model, degree, rank).flatten() for rank in range(degree)])
        assert torch.equal(held.sort().values, torch.arange(sum(counts))), name


def test_queries_keys_and_values_are_interleaved_by_group(tmp_path: Path) -> None:
    model = read_model(write_model(tmp_path / "model"))  # 4 heads in 2 groups, 4 rows each
    q, k, v = (torch.full((rows, 1), 100.0 * (1 + i)) for i, rows in enumerate((16, 8, 8)))
    for tensor in (q, k, v):
        tensor += torch.arange(len(tensor))[:, None] // 4  # the number of the head
    firsts = to_shard("qkv", [q, k, v], model, 2, 0)[::4, 0].tolist()
    seconds = to_shard("qkv", [q, k, v], model, 2, 1)[::4, 0].tolist()
    assert firsts == [100, 101, 200, 300]
    assert seconds == [102, 103, 201, 301]


def test_gate_and_up_are_split_side_by_side(tmp_path: Path) -> None:
    model = read_model(write_model(tmp_path / "model"))
    gate, up = torch.arange(8.0)[:, None], 10 + torch.arange(8.0)[:, None]
    shards = [to_shard("gate_up", [gate, up], model, 2, rank)[:, 0].tolist() for rank in range(2)]
    assert shards == [[0, 1, 2, 3, 10, 11, 12, 13], [4, 5, 6, 7, 14, 15, 16, 17]]


def chunk_of(names: dict[str, int], layer_numbers: list[int]) -> nn.Module:
    """A module tree with parameters at these names, and layers that know their number in the whole model."""
    chunk = nn.Module()
    chunk.decoder = nn.Module()
    chunk.decoder.layers = nn.ModuleList(nn.Module() for _ in layer_numbers)
    for layer, number in zip(chunk.decoder.layers, layer_numbers, strict=True):
        layer.layer_number = number
    for name, size in names.items():
        owner: Any = chunk
        *path, last = name.split(".")
        for part in path:
            if part not in dict(owner.named_children()):
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner.register_parameter(last, nn.Parameter(torch.zeros(size)))
    return chunk


def test_a_layer_has_its_number_in_the_whole_model(tmp_path: Path) -> None:
    model = read_model(write_model(tmp_path / "model"))
    chunk = chunk_of(
        {"decoder.layers.0.input_layernorm.weight": 16, "decoder.layers.1.input_layernorm.weight": 16}, [2, 4]
    )
    assert [entry.hugging_face for entry, _ in parameters([chunk], model)] == [
        ("model.layers.1.input_layernorm.weight",),
        ("model.layers.3.input_layernorm.weight",),
    ]


@pytest.mark.parametrize("tied", [False, True])
def test_the_last_stage_s_copy_of_tied_embeddings_is_known_as_one(tmp_path: Path, tied: bool) -> None:
    model = read_model(write_model(tmp_path / "model", tie_word_embeddings=tied))
    ((entry, _),) = parameters([chunk_of({"output_layer.weight": 64}, [])], model)
    assert entry.is_tied_copy == tied
    assert entry.hugging_face == (("model.embed_tokens.weight",) if tied else ("lm_head.weight",))


@pytest.mark.parametrize("name", ["decoder.layers.0.mlp.router.weight", "encoder.weight", "decoder.layers.0.weight"])
def test_an_unknown_parameter_is_named(tmp_path: Path, name: str) -> None:
    model = read_model(write_model(tmp_path / "model"))
    with pytest.raises(RuntimeError, match=rf"^Megatron parameter {name} has no Hugging Face name"):
        list(parameters([chunk_of({name: 3}, [1])], model))
