"""What the tables and the algebra say of a shard is what Megatron holds, for every family and degree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from megatron_rl.actor import slices
from megatron_rl.actor.names import load, matrix, parameters
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


def shard_of(model: Model, name: str, weights: dict[str, Tensor], degree: int, rank: int) -> Tensor:
    """A rank's shard put together by its parts; NaN where no part lies."""
    sharding, tensors = table(model)[name]
    shard = torch.full(slices.shard_shape(sharding, tensors, model, degree), torch.nan)
    for part in slices.parts(sharding, tensors, model, degree, rank):
        whole = part.whole
        matrix(shard, part.row, part.column, whole).copy_(matrix(weights[part.tensor], whole.row, whole.column, whole))
    return shard


def by_definition(sharding: str, tensors: list[Tensor], model: Model, degree: int, rank: int) -> Tensor:
    """A rank's shard as Megatron fuses and splits it."""
    if sharding == "whole":
        return tensors[0]
    if sharding in ("rows", "columns"):
        return tensors[0].chunk(degree, 0 if sharding == "rows" else 1)[rank]
    if sharding == "gate_up":
        return torch.cat([tensor.chunk(degree, 0)[rank] for tensor in tensors])
    grouped = [tensor.reshape(model.num_kv_heads, -1, *tensor.shape[1:]) for tensor in tensors]
    return torch.cat(grouped, 1).flatten(0, 1).chunk(degree, 0)[rank]


@pytest.mark.parametrize(("family", "degree"), CASES)
def test_the_parts_of_a_shard_are_what_megatron_holds(model: Model, degree: int) -> None:
    weights = random_weights(model)
    met = set()
    for name, (sharding, tensors) in table(model).items():
        for rank in range(degree):
            expected = by_definition(sharding, [weights[tensor] for tensor in tensors], model, degree, rank)
            found = shard_of(model, name, weights, degree, rank)
            assert torch.equal(found, expected.reshape(len(expected), -1)), name
        met.update(tensors)
    assert met == set(weights), "tensors that no Megatron parameter holds"


@pytest.mark.parametrize(("family", "degree"), CASES)
def test_every_element_is_on_exactly_one_rank(model: Model, degree: int) -> None:
    for name, (sharding, tensors) in table(model).items():
        if sharding == "whole":
            continue
        for tensor in tensors:
            counts = torch.zeros(slices.matrix(tensor, model))
            for rank in range(degree):
                for part in slices.parts(sharding, tensors, model, degree, rank):
                    if part.tensor == tensor:
                        matrix(counts, part.whole.row, part.whole.column, part.whole).add_(1)
            assert (counts == 1).all(), name


def test_queries_keys_and_values_are_interleaved_by_group(tmp_path: Path) -> None:
    model = read_model(write_model(tmp_path / "model"))  # 4 heads in 2 groups, 4 rows each
    weights = {}
    for i, (x, rows) in enumerate(zip("qkv", (16, 8, 8), strict=True)):
        heads = torch.arange(rows)[:, None] // 4
        weights[f"model.layers.0.self_attn.{x}_proj.weight"] = (100.0 * (1 + i) + heads).expand(rows, 16)
    name = "decoder.layers.0.self_attention.linear_qkv.weight"
    firsts, seconds = (shard_of(model, name, weights, 2, rank)[::4, 0].tolist() for rank in range(2))
    assert firsts == [100, 101, 200, 300]
    assert seconds == [102, 103, 201, 301]


def test_gate_and_up_are_split_side_by_side(tmp_path: Path) -> None:
    model = read_model(write_model(tmp_path / "model", intermediate_size=8))
    gate, up = (torch.arange(8.0)[:, None].expand(8, 16) + first for first in (0, 10))
    weights = {"model.layers.0.mlp.gate_proj.weight": gate, "model.layers.0.mlp.up_proj.weight": up}
    name = "decoder.layers.0.mlp.linear_fc1.weight"
    shards = [shard_of(model, name, weights, 2, rank)[:, 0].tolist() for rank in range(2)]
    assert shards == [[0, 1, 2, 3, 10, 11, 12, 13], [4, 5, 6, 7, 14, 15, 16, 17]]


def test_the_last_rank_pads_a_vocabulary_that_does_not_divide(tmp_path: Path) -> None:
    model = read_model(write_model(tmp_path / "model", vocab_size=10, eos_token_id=1))
    weights = random_weights(model)
    name = "embedding.word_embeddings.weight"
    shards = [shard_of(model, name, weights, 4, rank) for rank in range(4)]
    assert {tuple(shard.shape) for shard in shards} == {(3, 16)}
    assert torch.equal(torch.cat(shards)[:10], weights["model.embed_tokens.weight"]) and shards[3][1:].isnan().all()


def test_loading_reads_each_element_that_a_rank_holds_once(tmp_path: Path) -> None:
    model = read_model(write_model(tmp_path / "model"))
    weights, read = random_weights(model), []
    known = {name: entry for name, entry in table(model).items() if not name.startswith("decoder.layers.")}
    known |= {name: entry for name, entry in table(model).items() if name.startswith("decoder.layers.1.")}
    shapes = {
        name.replace("layers.1.", "layers.0."): by_definition(kind, [weights[x] for x in tensors], model, 2, 1).shape
        for name, (kind, tensors) in known.items()
    }
    chunk = chunk_of(shapes, [2])

    def part_of(name: str, box: slices.Box) -> Tensor:
        read.append(box.elements)
        return matrix(weights[name], box.row, box.column, box)

    load([chunk], model, part_of, 2, 1)
    held = dict(chunk.named_parameters())
    for name, (kind, tensors) in known.items():
        expected = by_definition(kind, [weights[x] for x in tensors], model, 2, 1)
        assert torch.equal(held[name.replace("layers.1.", "layers.0.")], expected), name
    assert sum(read) == sum(parameter.numel() for parameter in held.values())


def chunk_of(names: dict[str, Any], layer_numbers: list[int]) -> nn.Module:
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
