import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.config.checks import UserError
from megatron_rl.config.pretrained import read_model, unknown_fields
from megatron_rl.config.weights import check_tensors, digest_of_weights, read_tensors, tensor_names
from recipes.prorl_v2 import RECIPE
from tests.folders import write_model, write_safetensors


def rejects(folder: Path, pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern) as caught:
        check_tensors(folder, read_model(folder))
    assert "\n" not in str(caught.value)


def place(path: Path, name: str, content: bytes) -> None:
    """Writes over the first bytes of a tensor."""
    tensor = read_tensors(path.parent)[name]
    with path.open("r+b") as file:
        file.seek(tensor.start)
        file.write(content)


def test_a_folder_with_all_its_tensors_is_accepted(tmp_path: Path) -> None:
    for family in ("qwen2", "qwen3", "llama"):
        for num_shards in (1, 3):
            folder = write_model(tmp_path / f"{family}{num_shards}", num_shards, model_type=family)
            check_tensors(folder, read_model(folder))


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_names_and_shapes_are_those_that_transformers_writes(family: str, tied: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tests.models import make_folder

    folder = make_folder(tmp_path / "model", family, tied, hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    model = read_model(folder)
    check_tensors(folder, model)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.num_parameters() == model.num_parameters
    assert len(tensor_names(model)) == len(dict(loaded.named_parameters()))


def test_the_published_shape_has_the_published_number_of_weights() -> None:
    shapes = tensor_names(RECIPE.model)
    assert sum(shape[0] * (shape[1] if len(shape) == 2 else 1) for shape in shapes.values()) == 1_777_088_000
    assert len(shapes) == 28 * 12 + 3


@pytest.mark.parametrize(
    ("config", "theta"),
    [
        ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, 5e5),
        ({"rope_parameters": None, "rope_theta": 1e6, "rope_scaling": None}, 1e6),
        ({"rope_parameters": None}, 1e4),
    ],
)
def test_the_rotary_base_is_read_as_old_and_new_transformers_write_it(
    config: dict[str, Any], theta: float, tmp_path: Path
) -> None:
    assert read_model(write_model(tmp_path / "model", **config)).rope_theta == theta


def test_head_dim_is_read_or_derived(tmp_path: Path) -> None:
    assert read_model(write_model(tmp_path / "a")).head_dim == 4
    assert read_model(write_model(tmp_path / "b", model_type="llama", head_dim=8)).head_dim == 8


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"rope_parameters": {"rope_theta": 1e4, "rope_type": "longrope"}}, "rope scaling 'longrope', which is not"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, "rope_scaling asks for rope scaling 'dynamic'"),
        ({"model_type": "gpt2"}, "model_type='gpt2' is not supported"),
        ({"hidden_size": None}, "has no field hidden_size"),
        ({"vocab_size": "many"}, "vocab_size='many' must be a whole number"),
        ({"vocab_size": True}, "vocab_size=True must be a whole number"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
        ({"use_sliding_window": True}, "use_sliding_window=True is not supported"),
        ({"num_key_value_heads": 3}, "4 heads do not divide into 3 groups"),
        ({"rms_norm_eps": 0}, "rms_norm_eps=0 must be a number above 0"),
    ],
)
def test_a_config_that_can_not_be_computed_is_rejected(change: dict[str, Any], pattern: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    config = {**json.loads((folder / "config.json").read_text()), **change}
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    with pytest.raises(ValueError, match=pattern):
        read_model(folder)


def test_a_missing_folder_config_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'none'}: there is no such folder")):
        read_model(tmp_path / "none")
    folder = write_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    rejects(folder, "has neither model.safetensors nor model.safetensors.index.json")
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json: is no JSON"):
        read_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"has no config.json"):
        read_model(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", num_shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    rejects(folder, "shard model-00002-of-00003.safetensors of model.safetensors.index.json is missing")


def test_a_tensor_that_the_index_promises_and_the_shard_lacks_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", num_shards=2)
    index = folder / "model.safetensors.index.json"
    promises = json.loads(index.read_text())
    promises["weight_map"]["model.extra.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(promises))
    rejects(folder, "holds no tensor model.extra.weight")


def test_a_missing_extra_or_misshapen_tensor_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    shapes = tensor_names(read_model(folder))
    path = folder / "model.safetensors"
    write_safetensors(path, {name: shape for name, shape in shapes.items() if name != "model.norm.weight"})
    rejects(folder, "tensor model.norm.weight is missing")
    write_safetensors(path, {name: shape for name, shape in shapes.items() if ".layers.3." not in name})
    rejects(folder, "and 10 more are missing")
    write_safetensors(path, {**shapes, "model.layers.0.self_attn.o_proj.bias": (16,)})
    rejects(folder, "tensor model.layers.0.self_attn.o_proj.bias is not part of a qwen2 model")
    write_safetensors(path, {**shapes, "model.norm.weight": (8,)})
    rejects(folder, r"tensor model.norm.weight has shape \[8\], config.json says \[16\]")
    write_safetensors(path, {**shapes, "model.layers.0.self_attn.rotary_emb.inv_freq": (2,)})
    check_tensors(folder, read_model(folder))


def test_a_tied_model_has_no_output_table(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", tie_word_embeddings=True)
    shapes = tensor_names(read_model(folder))
    assert "lm_head.weight" not in shapes
    path = folder / "model.safetensors"
    write_safetensors(path, {**shapes, "lm_head.weight": (64, 16)})
    check_tensors(folder, read_model(folder))  # a copy of the embeddings: all are zeros here
    write_safetensors(path, {"lm_head.weight": (64, 16), **shapes})
    place(path, "lm_head.weight", struct.pack("<f", 1.0))
    rejects(folder, "config.json ties lm_head.weight to model.embed_tokens.weight, and its files hold two different")
    write_safetensors(path, {**shapes, "lm_head.weight": (64, 8)})
    rejects(folder, "two different ones; set tie_word_embeddings to false, or take the head out")


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1", struct.pack("<Q", 2) + b"{"])
def test_a_file_that_is_no_safetensors_is_rejected(content: bytes, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(content)
    rejects(folder, "download it again")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("reversed", {"data_offsets": [64, 0]}),
        ("negative", {"data_offsets": [-64, 0]}),
        ("over another", {"data_offsets": [64, 128]}),
        ("too short", {"data_offsets": [0, 32]}),
        ("of another type", {"dtype": "BF16"}),
        ("no numbers", {"data_offsets": [0.0, 64.0]}),
        ("a shape of texts", {"shape": ["16"]}),
        ("a negative shape", {"shape": [-16, -1]}),
    ],
)
def test_a_header_that_no_writer_makes_is_rejected(name: str, change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    whole = {"dtype": "F32", "shape": [16]}
    header = {"a": {**whole, "data_offsets": [0, 64]}, "b": {**whole, "data_offsets": [64, 128]}}
    assert write_header(path, header) and set(read_tensors(tmp_path)) == {"a", "b"}
    write_header(path, header | {"a": header["a"] | change})
    with pytest.raises(UserError, match="download it again"):
        read_tensors(tmp_path)


def write_header(path: Path, header: dict[str, Any]) -> int:
    text = json.dumps(header).encode()
    return path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(128))


def test_a_file_that_was_cut_short_is_rejected(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    rejects(folder, "its header says")


def test_integer_weights_are_rejected(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    write_safetensors(folder / "model.safetensors", tensor_names(read_model(folder)), dtype="I32")
    rejects(folder, "is I32; only BF16, F16, F32")


@pytest.mark.parametrize(("dtype", "content"), [("F32", struct.pack("<f", float("nan"))), ("F32", b"\0\0\x80\xff")])
def test_a_tensor_that_is_not_finite_is_named(dtype: str, content: bytes, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    place(folder / "model.safetensors", "model.layers.1.mlp.down_proj.weight", content)
    rejects(folder, "tensor model.layers.1.mlp.down_proj.weight has values that are not finite")


@pytest.mark.parametrize(
    ("dtype", "size", "infinity"),
    [("BF16", 2, b"\x80\x7f"), ("F16", 2, b"\0\xfc"), ("F64", 8, b"\0" * 6 + b"\xf0\x7f")],
)
def test_an_infinity_is_seen_in_every_precision(dtype: str, size: int, infinity: bytes, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    shapes, path = tensor_names(read_model(folder)), folder / "model.safetensors"
    write_safetensors(path, shapes, dtype, num_bytes=size)
    check_tensors(folder, read_model(folder))
    place(path, "model.norm.weight", infinity)
    rejects(folder, "tensor model.norm.weight has values that are not finite")


def test_other_safetensors_files_are_not_read(tmp_path: Path) -> None:
    for num_shards in (1, 2):
        folder = write_model(tmp_path / f"model{num_shards}", num_shards)
        before = digest_of_weights(folder)
        write_safetensors(folder / "training_backup.safetensors", {"model.norm.weight": (3,)})
        check_tensors(folder, read_model(folder))
        assert "training_backup.safetensors" not in {tensor.path.name for tensor in read_tensors(folder).values()}
        assert digest_of_weights(folder) == before


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", num_shards=2)
    path = folder / "model-00001-of-00002.safetensors"
    write_safetensors(path, {name: tensor.shape for name, tensor in read_tensors(folder).items()})
    rejects(folder, "is in two of the files of model.safetensors.index.json")


def test_weights_have_one_digest_wherever_they_lie_and_another_when_they_change(tmp_path: Path) -> None:
    whole, sharded = write_model(tmp_path / "a"), write_model(tmp_path / "elsewhere" / "b", num_shards=3)
    assert digest_of_weights(whole) == digest_of_weights(sharded)
    place(whole / "model.safetensors", "model.norm.weight", b"\0\0\x80\x3f")
    assert digest_of_weights(whole) != digest_of_weights(sharded)


def test_a_large_tensor_is_known_by_its_beginning_middle_and_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megatron_rl.config.weights.BLOCK_BYTES", 64)
    found = set()
    for number, at in enumerate((0, 1024, 2047)):  # of 64 x 16 numbers of 2 bytes
        folder = write_model(tmp_path / str(number))
        path = folder / "model.safetensors"
        write_safetensors(path, tensor_names(read_model(folder)), "BF16", num_bytes=2)
        found.add(digest_of_weights(folder))
        with path.open("r+b") as file:
            file.seek(read_tensors(folder)["model.embed_tokens.weight"].start + at)
            file.write(b"\1")
        found.add(digest_of_weights(folder))
    assert len(found) == 4


NEUTRAL = {
    "use_sliding_window": False,
    "sliding_window": 8,
    "attention_bias": None,
    "mlp_bias": None,
    "quantization_config": None,
    "is_causal": True,
    "layer_types": ["full_attention"] * 4,
    "pretraining_tp": 2,
    "torch_dtype": "bfloat16",
    "use_mrope": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
}


def with_fields(folder: Path, **fields: Any) -> Path:
    """The folder with these fields put into its config.json, nulls included."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return folder


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("field", NEUTRAL)
def test_fields_that_change_nothing_are_accepted(family: str, field: str, tmp_path: Path) -> None:
    value = 2048 if (family, field) == ("llama", "sliding_window") else NEUTRAL[field]  # no narrower than the context
    folder = with_fields(write_model(tmp_path / "model", model_type=family), **{field: value})
    read_model(folder)
    assert unknown_fields(folder) == []


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("llama", {"sliding_window": 8}),
        ("llama", {"logit_scale": 0.5}),
        ("llama", {"attention_bias": True}),
        ("llama", {"mlp_bias": True}),
        ("llama", {"qkv_bias": True}),
        ("llama", {"bias": True}),
        ("llama", {"hidden_size": 18, "head_dim": 4}),
        ("qwen2", {"head_dim": 8}),
        ("qwen2", {"qk_norm": True}),
        ("qwen2", {"use_sliding_window": True}),
        ("qwen3", {"attention_bias": True}),
        ("qwen3", {"use_sliding_window": True}),
        ("qwen3", {"dual_chunk_attention_config": {"chunk_size": 8}}),
        ("qwen3", {"is_causal": False}),
        ("qwen3", {"head_dim": 5}),
        ("qwen3", {"model_max_length": 8}),
        ("qwen2", {"layer_types": ["full_attention"] * 3 + ["sliding_attention"]}),
        ("qwen2", {"layer_types": ["full_attention"]}),
        ("qwen2", {"quantization_config": {"quant_method": "fp8"}}),
        ("qwen2", {"partial_rotary_factor": 0.5}),
        ("qwen2", {"architectures": ["Qwen2ForSequenceClassification"]}),
        ("qwen2", {"tie_word_embeddings": "yes"}),
        ("qwen2", {"rms_norm_eps": True}),
    ],
)
def test_what_the_engines_would_compute_differently_is_refused_by_name(
    family: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    folder = with_fields(write_model(tmp_path / "model", model_type=family), **fields)
    with pytest.raises(ValueError, match=next(iter(fields))):
        read_model(folder)


def test_fields_that_nobody_is_known_to_read_are_listed(tmp_path: Path) -> None:
    folder = with_fields(write_model(tmp_path / "model"), embedding_multiplier=12.0, torch_dtype="float32")
    assert unknown_fields(folder) == ["embedding_multiplier"]


def test_an_adapter_or_a_quantization_beside_the_weights_is_refused(tmp_path: Path) -> None:
    for name in ("adapter_config.json", "hf_quant_config.json"):
        folder = write_model(tmp_path / name.partition(".")[0])
        (folder / name).write_text("{}")
        with pytest.raises(ValueError, match=name):
            read_model(folder)
