import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.config.pretrained import check_tensors, read_model, tensor_names
from recipes.prorl_v2 import RECIPE
from tests.folders import write_model, write_safetensors


def rejects(folder: Path, pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern) as caught:
        check_tensors(folder, read_model(folder))
    assert "\n" not in str(caught.value)


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
    assert read_model(write_model(tmp_path / "b", head_dim=8)).head_dim == 8


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn"}}, "rope scaling 'yarn' is not supported"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope scaling 'linear' is not supported"),
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
    if "rope_scaling" in change:
        config.pop("rope_parameters")
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
    write_safetensors(folder / "model.safetensors", {**shapes, "lm_head.weight": (64, 16)})
    rejects(folder, "tensor lm_head.weight is not part")


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1", struct.pack("<Q", 2) + b"{"])
def test_a_file_that_is_no_safetensors_is_rejected(content: bytes, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(content)
    rejects(folder, "download it again")


def test_a_file_that_was_cut_short_is_rejected(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    rejects(folder, "its header says")


def test_integer_weights_are_rejected(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    write_safetensors(folder / "model.safetensors", tensor_names(read_model(folder)), dtype="I32")
    rejects(folder, "is I32; only BF16, F16, F32")
