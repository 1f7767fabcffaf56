"""Hugging Face model folders, read without torch: the shape they declare and the tensors they hold."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from megatron_rl.config.checks import UserError, require
from megatron_rl.config.records import Model

FAMILIES = ("qwen2", "qwen3", "llama")
# Fields that change the forward pass, with the one value this project computes.
ONLY_VALUES = {
    "hidden_act": "silu",
    "use_sliding_window": False,
    "attention_bias": False,
    "mlp_bias": False,
    "quantization_config": None,
}
FLOATS = ("BF16", "F16", "F32", "F64")


def read_model(folder: Path) -> Model:
    """The shape that `folder`/config.json declares; its name is the folder.

    Raises UserError where the folder or the file is missing or malformed, or describes another architecture.
    """
    require(folder.is_dir(), f"model folder {folder}: there is no such folder")
    path = folder / "config.json"
    require(path.is_file(), f"model folder {folder}: has no config.json; it must be a Hugging Face model folder")
    config = _json_object(path)
    family = config.get("model_type")
    require(
        family in FAMILIES, f"{path}: model_type={family!r} is not supported; the families are {', '.join(FAMILIES)}"
    )
    for field, value in ONLY_VALUES.items():
        require(config.get(field, value) == value, f"{path}: {field}={config.get(field)!r} is not supported")
    layer_types = set(config.get("layer_types") or ["full_attention"])
    require(layer_types == {"full_attention"}, f"{path}: layer_types {sorted(layer_types)} are not supported")
    hidden_size, num_heads = _size(path, config, "hidden_size"), _size(path, config, "num_attention_heads")
    num_kv_heads = _size(path, config, "num_key_value_heads", num_heads)
    require(num_heads % num_kv_heads == 0, f"{path}: {num_heads} heads do not divide into {num_kv_heads} groups")
    return Model(
        name=str(folder),
        family=cast('Literal["qwen2", "qwen3", "llama"]', family),
        num_layers=_size(path, config, "num_hidden_layers"),
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        # Qwen3Config's own default; the other two families derive it.
        head_dim=_size(path, config, "head_dim", 128 if family == "qwen3" else hidden_size // num_heads),
        ffn_hidden_size=_size(path, config, "intermediate_size"),
        vocab_size=_size(path, config, "vocab_size"),
        max_positions=_size(path, config, "max_position_embeddings"),
        rope_theta=_rope_theta(path, config),
        norm_epsilon=_number(path, "rms_norm_eps", config.get("rms_norm_eps", 1e-6)),
        tied_embeddings=config.get("tie_word_embeddings", False) is True,
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
    )


def tensor_names(model: Model) -> dict[str, tuple[int, ...]]:
    """Every tensor of a Hugging Face folder of this shape, with its shape."""
    hidden, ffn, head = model.hidden_size, model.ffn_hidden_size, model.head_dim
    query, key = model.num_heads * head, model.num_kv_heads * head
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (query, hidden),
        "self_attn.k_proj.weight": (key, hidden),
        "self_attn.v_proj.weight": (key, hidden),
        "self_attn.o_proj.weight": (hidden, query),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (ffn, hidden),
        "mlp.up_proj.weight": (ffn, hidden),
        "mlp.down_proj.weight": (hidden, ffn),
    }
    if model.qkv_bias:
        layer |= {"self_attn.q_proj.bias": (query,), "self_attn.k_proj.bias": (key,), "self_attn.v_proj.bias": (key,)}
    if model.qk_norm:
        layer |= {"self_attn.q_norm.weight": (head,), "self_attn.k_norm.weight": (head,)}
    names: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (model.vocab_size, hidden)}
    for i in range(model.num_layers):
        names |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    names["model.norm.weight"] = (hidden,)
    if not model.tied_embeddings:
        names["lm_head.weight"] = (model.vocab_size, hidden)
    return names


def check_tensors(folder: Path, model: Model) -> None:
    """Raises UserError unless the safetensors files of `folder` hold exactly the tensors of `model`."""
    found = read_shapes(folder)
    wanted = tensor_names(model)
    if missing := [name for name in wanted if name not in found]:
        raise UserError(f"model folder {folder}: {_some(missing)} missing from its safetensors files")
    if extra := [name for name in found if name not in wanted and not name.endswith("rotary_emb.inv_freq")]:
        raise UserError(f"model folder {folder}: {_some(extra)} not part of a {model.family} model of its config.json")
    for name, shape in wanted.items():
        require(
            found[name] == shape,
            f"model folder {folder}: tensor {name} has shape {list(found[name])}, config.json says {list(shape)}",
        )


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in the safetensors files of `folder`, from their headers.

    Raises UserError where a file is missing, cut short or not safetensors.
    """
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if not index.is_file():
        require(
            single.is_file(),
            f"model folder {folder}: has neither {single.name} nor {index.name}; download its safetensors files",
        )
        return _header(single)
    weight_map = _json_object(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise UserError(f"{index}: has no weight_map")
    shapes: dict[str, tuple[int, ...]] = {}
    for shard in sorted(set(weight_map.values())):
        require((folder / shard).is_file(), f"model folder {folder}: shard {shard} of {index.name} is missing")
        shapes |= _header(folder / shard)
    for name, shard in weight_map.items():
        require(name in shapes, f"{folder / shard}: holds no tensor {name}, though {index.name} says so")
    return shapes


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes from a safetensors header: its length in 8 little-endian bytes, then JSON, then the data."""
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else num_bytes
        require(8 + length <= num_bytes, f"{path}: {num_bytes} bytes are no safetensors file; download it again")
        text = file.read(length)
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: its header is no JSON ({error}); download it again") from None
    entries.pop("__metadata__", None)
    end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    require(
        8 + length + end == num_bytes,
        f"{path}: has {num_bytes} bytes, its header says {8 + length + end}; download it again",
    )
    for name, entry in entries.items():
        require(entry["dtype"] in FLOATS, f"{path}: tensor {name} is {entry['dtype']}; only {', '.join(FLOATS)} load")
    return {name: tuple(entry["shape"]) for name, entry in entries.items()}


def _rope_theta(path: Path, config: Mapping[str, Any]) -> float:
    """The rotary base: transformers 5 writes it into rope_parameters, older versions beside the other fields."""
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    require(kind == "default", f"{path}: rope scaling {kind!r} is not supported; only plain rotary positions are")
    partial = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    require(partial == 1.0, f"{path}: partial_rotary_factor={partial} is not supported")
    return _number(path, "rope_theta", rope.get("rope_theta", config.get("rope_theta", 10000.0)))


def _size(path: Path, config: Mapping[str, Any], field: str, default: int | None = None) -> int:
    value = config.get(field)
    value = default if value is None else value
    require(value is not None, f"{path}: has no field {field}")
    require(type(value) is int and value >= 1, f"{path}: {field}={value!r} must be a whole number above 0")
    return cast(int, value)


def _number(path: Path, field: str, value: Any) -> float:
    require(isinstance(value, int | float) and value > 0, f"{path}: {field}={value!r} must be a number above 0")
    return float(value)


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error})") from None
    require(isinstance(value, dict), f"{path}: holds no JSON object")
    return cast("dict[str, Any]", value)


def _some(names: list[str]) -> str:
    """`tensor a is`, `tensors a, b and 7 more are`."""
    if len(names) == 1:
        return f"tensor {names[0]} is"
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"tensors {', '.join(names[:2])}{more} are"
