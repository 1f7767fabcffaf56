"""Rotary positions are what transformers makes of a config.json, however it writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.config.positions import rope_parameters
from megatron_rl.config.pretrained import read_model
from megatron_rl.config.records import LinearScaling, Llama3Scaling, Model, YarnScaling
from tests.folders import CONFIG, write_model

KINDS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 2},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
}
YARN, LINEAR = KINDS["yarn"], KINDS["linear"]
PLAIN = {"rope_type": "default", "rope_theta": 5e5}
# Every way to write positions into a config.json; None stands for a field that is not there.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"rope_parameters": PLAIN},
    "nothing": {"rope_parameters": None},
    "old_base": {"rope_parameters": None, "rope_theta": 1e6},
    "old_scaling": {"rope_parameters": None, "rope_theta": 1e6, "rope_scaling": YARN},
    "both": {"rope_parameters": PLAIN, "rope_scaling": YARN},
    "both_and_a_base_beside": {"rope_parameters": PLAIN, "rope_scaling": YARN, "rope_theta": 3e4},
    "both_with_a_base_inside": {"rope_parameters": PLAIN, "rope_scaling": {**LINEAR, "rope_theta": 7e3}},
    "empty_scaling": {"rope_parameters": {**PLAIN, **LINEAR}, "rope_scaling": {}},
    "old_word_for_the_kind": {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.5}},
    "both_words": {"rope_parameters": {**PLAIN, **LINEAR, "type": "linear"}},
    "base_beside": {"rope_parameters": {"rope_type": "default"}, "rope_theta": 3e4},
    "llama3": {"rope_parameters": {**KINDS["llama3"], "rope_theta": 5e5}},
    "original_beside": {"rope_parameters": {**YARN, "rope_theta": 1e4}, "original_max_position_embeddings": 128},
    "original_left_out": {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}},
    "factor_null": {"rope_parameters": {**YARN, "factor": None, "rope_theta": 1e4}},
    "yarn_in_full": {
        "rope_parameters": {
            **YARN, "rope_theta": 1e4, "beta_fast": 24, "beta_slow": 2, "attention_factor": 1.3, "truncate": False
        }
    },
    "yarn_by_mscale": {"rope_parameters": {**YARN, "rope_theta": 1e4, "mscale": 0.7, "mscale_all_dim": 1.1}},
    "yarn_with_nulls": {
        "rope_parameters": {**YARN, "rope_theta": 1e4, "beta_fast": None, "beta_slow": None, "attention_factor": None}
    },
    "strange_keys": {"rope_parameters": {**YARN, "rope_theta": 1e4, "finetuned": True}},
}  # fmt: skip


def folder_of(place: Path, **fields: Any) -> Path:
    return write_model(place, **{"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 1, **fields})


def by_transformers(folder: Path) -> tuple[list[float], float]:
    """The frequencies and the attention factor that transformers computes with."""
    from transformers import AutoConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rotary = LlamaRotaryEmbedding(AutoConfig.from_pretrained(folder))
    return rotary.inv_freq.tolist(), rotary.attention_scaling


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("way", WAYS)
def test_positions_are_resolved_as_transformers_resolves_them(family: str, way: str, tmp_path: Path) -> None:
    from megatron_rl.actor.rotary import frequencies

    folder = folder_of(tmp_path / "model", model_type=family, **WAYS[way])
    model = read_model(folder)
    expected, factor = by_transformers(folder)
    assert frequencies(model).tolist() == expected
    scaling = model.rope_scaling
    assert (scaling.attention_factor if isinstance(scaling, YarnScaling) else 1.0) == factor


@pytest.mark.parametrize("way", WAYS)
def test_what_is_read_is_written_again(way: str, tmp_path: Path) -> None:
    model = read_model(folder_of(tmp_path / "a", **WAYS[way]))
    written = folder_of(tmp_path / "b", rope_parameters=rope_parameters(model))
    again = read_model(written)
    assert (again.rope_theta, again.rope_scaling) == (model.rope_theta, model.rope_scaling)


def test_a_scaled_model_has_the_positions_that_its_scaling_is_for(tmp_path: Path) -> None:
    def reach(name: str, **fields: Any) -> int:
        return read_model(folder_of(tmp_path / name, max_position_embeddings=64, **fields)).max_positions

    assert reach("plain") == 64
    assert reach("linear", rope_parameters={**LINEAR, "rope_theta": 1e4}) == 128
    assert reach("llama3", rope_parameters={**KINDS["llama3"], "rope_theta": 1e4}) == 64
    assert reach("yarn", rope_parameters={**YARN, "rope_theta": 1e4}) == 256


def test_each_kind_has_its_own_record(tmp_path: Path) -> None:
    def scaling(kind: str) -> Any:
        return read_model(folder_of(tmp_path / kind, rope_parameters={**KINDS[kind], "rope_theta": 1e4})).rope_scaling

    assert scaling("linear") == LinearScaling(factor=2.0)
    assert isinstance(scaling("llama3"), Llama3Scaling) and isinstance(scaling("yarn"), YarnScaling)


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling asks for rope scaling 'dynamic'"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope_parameters asks for rope scaling 'longrope'"),
        ({"rope_parameters": {"rope_type": "mrope", "mrope_section": [1]}}, "rope scaling 'mrope'"),
        ({"rope_parameters": {"full_attention": PLAIN}}, "differs by the kind of layer"),
        ({"rope_parameters": "yarn"}, "rope_parameters='yarn' must be an object"),
        ({"rope_scaling": {"rope_type": "linear"}}, "rope_scaling has no factor"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling has no factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": -1}}, "rope_scaling.factor=-1 must be a number above 0"),
        ({"rope_scaling": {"rope_type": "linear", "factor": "2"}}, "factor='2' must be a number"),
        ({"rope_scaling": {**KINDS["llama3"], "low_freq_factor": 4.0}}, "low_freq_factor=4 must be below"),
        ({"rope_scaling": {**YARN, "original_max_position_embeddings": 1.5}}, "original_max_position_embeddings=1.5"),
        ({"rope_parameters": {**PLAIN, "partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5 is not supported"),
        ({"rope_parameters": {"rope_theta": "1e4"}}, "rope_parameters.rope_theta='1e4' must be a number"),
    ],
)
def test_positions_that_can_not_be_computed_are_refused(fields: dict[str, Any], pattern: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({**CONFIG, **fields}))
    with pytest.raises(ValueError, match=pattern):
        read_model(folder)


def test_a_model_without_a_scaling_keeps_its_fingerprint() -> None:
    import dataclasses

    from recipes.prorl_v2 import RECIPE

    def fingerprint(model: Model) -> str:
        return dataclasses.replace(RECIPE, model=model).fingerprint

    scaled = [dataclasses.replace(RECIPE.model, rope_scaling=LinearScaling(factor=factor)) for factor in (2.0, 4.0)]
    assert fingerprint(RECIPE.model) == RECIPE.fingerprint
    assert len({RECIPE.fingerprint, *map(fingerprint, scaled)}) == 3
