"""Tiny Hugging Face folders and runs over them, for tests that need a real model but not a trained one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from megatron_rl.config.fit import fitted
from megatron_rl.config.pretrained import read_model
from megatron_rl.config.records import Scale
from megatron_rl.config.run import Run
from recipes import prorl_v2
from recipes.scales import SCALES


def make_folder(
    folder: Path, family: str = "qwen2", tied: bool = False, num_key_value_heads: int = 2, **sizes: int
) -> Path:
    """A random model with visible biases and norms, so that a mix-up shows."""
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

    shape = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 4, "vocab_size": 128} | sizes
    config = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}[family](
        num_attention_heads=4,
        num_key_value_heads=num_key_value_heads,
        max_position_embeddings=1024,
        tie_word_embeddings=tied,
        eos_token_id=1,
        bos_token_id=1,
        **({"head_dim": 32} if family == "qwen3" else {}),
        **shape,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
            elif "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.normal_(0, 0.05)
    model.save_pretrained(folder)
    return folder


def make_run(folder: str | Path, *, recipe: dict[str, Any] | None = None, **scale: Any) -> Run:
    """ProRL v2 at a one-process CPU scale with `scale`'s changes; `recipe` maps dotted names to values."""
    model = read_model(Path(folder))
    base: Scale = dataclasses.replace(SCALES["cpu"], **({"devices_per_node": 1} | scale))
    chosen = fitted(prorl_v2.RECIPE, model, base)
    for name, value in (recipe or {}).items():
        chosen = replaced(chosen, name.split("."), value)
    return Run(
        recipe=chosen,
        published=prorl_v2.RECIPE,
        scale=base,
        directory=Path(folder) / "run",
        model_folder=Path(folder),
        data_folder=Path(folder),
    )


def replaced(record: Any, path: list[str], value: Any) -> Any:
    if len(path) > 1:
        value = replaced(getattr(record, path[0]), path[1:], value)
    return dataclasses.replace(record, **{path[0]: value})
