"""Model and data folders written by hand, without torch: the right names and shapes over zeros."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron_rl.config.lineage import FILE_NAME, Parent, model_folder_of
from megatron_rl.config.pretrained import read_model
from megatron_rl.config.weights import tensor_names
from megatron_rl.runtime.rundir import CHECKPOINT_FORMAT, sealed

CONFIG = {
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "eos_token_id": 1,
}
ADDED = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
TOKENIZER = {
    "added_tokens": [{"id": 0, "content": "<pad>"} | ADDED, {"id": 1, "content": "<eos>"} | ADDED],
    "model": {"type": "BPE", "vocab": {chr(95 + number): number for number in range(2, 28)}, "merges": []},
}


def write_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "F32", num_bytes: int = 4
) -> None:
    """A safetensors file of zeros, written from the published format."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + num_bytes * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def write_model(folder: Path, num_shards: int = 1, **config: Any) -> Path:
    """A Hugging Face folder of CONFIG with these changes; None leaves a field out."""
    folder.mkdir(parents=True)
    fields = {key: value for key, value in (CONFIG | config).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>", "pad_token": "<pad>"}))
    shapes = tensor_names(read_model(folder))
    if num_shards == 1:
        write_safetensors(folder / "model.safetensors", shapes)
        return folder
    weight_map: dict[str, str] = {}
    for shard in range(num_shards):
        name = f"model-{shard + 1:05d}-of-{num_shards:05d}.safetensors"
        part = dict(list(shapes.items())[shard::num_shards])
        write_safetensors(folder / name, part)
        weight_map |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def write_data(folder: Path) -> Path:
    """A data folder with two problems to train on and one to validate with."""
    folder.mkdir(parents=True)
    items = [
        {"id": f"sum-{i}", "domain": "math", "prompt": f"{i} + 1 = ?", "item": {"answer": str(i + 1)}} for i in range(3)
    ]
    for name, part in {"train": items[:2], "validation": items[2:]}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in part))
    return folder


def manifest(
    fingerprint: str,
    layout: dict[str, Any],
    identity: Mapping[str, str],
    *,
    data: str = "",
    num_steps: int = 150,
    validated: int = 1024,
) -> dict[str, Any]:
    """What a checkpoint says of itself, as far as a start looks at it."""
    facts = {"format": CHECKPOINT_FORMAT, "fingerprint": fingerprint, "layout": layout, "seed": 1, "data": data}
    facts |= {"identity": dict(identity), "num_steps": num_steps, "max_validation_prompts": validated}
    return sealed(facts | {"state": {}, "prompt_position": 0, "files": {}})


def parent_facts(release: str, older: Parent | None = None) -> Parent:
    """What a finished run of that recipe says of itself."""
    return Parent(
        release=release,
        fingerprint="0" * 16,
        scale="cpu",
        step=7,
        samples_seen=700,
        policy_digest="1" * 16,
        parent=older,
    )


def write_finished_run(directory: Path, release: str) -> Path:
    """The directory of a run that has ended: its policy with its lineage, and the file that says it is a run."""
    folder = write_model(model_folder_of(directory))
    (folder / FILE_NAME).write_text(parent_facts(release).to_json())
    (directory / "run.json").write_text("{}")
    return directory


def write_run(directory: Path, scale: str = "cpu") -> Path:
    """A run's directory as far as `evaluate` reads it, with the policy that it ended with."""
    model = write_model(directory.parent / f"{directory.name}_start", max_position_embeddings=65536)
    write_finished_run(directory, "prorl_v2 2.0.0")
    config = model_folder_of(directory) / "config.json"
    config.write_text((model / "config.json").read_text())
    facts = {"model_folder": str(model), "scale": {"name": scale}, "modified": []}
    (directory / "run.json").write_text(json.dumps({"run": facts}))
    return directory
