"""The config.json of a Hugging Face model folder, read without torch: the shape it declares, and what it may say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from megatron_rl.config.checks import UserError, require
from megatron_rl.config.positions import read_positions
from megatron_rl.config.records import Model
from megatron_rl.config.words import lack

ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}
FAMILIES = tuple(ARCHITECTURES)
# Fields that change what transformers or vLLM compute, with the values under which all compute what this project does.
# Some of them only one of the engines obeys: vLLM gives a Llama the window and the logit scale, transformers does not.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "is_causal": (True, None),
    "is_decoder": (True, False, None),
    "is_encoder_decoder": (False, None),
    "add_cross_attention": (False, None),
    "quantization_config": (None,),
    "compression_config": (None,),
    "dual_chunk_attention_config": (None,),
    "attention_chunk_size": (None,),
    "mrope_section": (None,),
    "xdrope_section": (None,),
    "text_config": (None,),
    "per_layer_config": (None,),
    "rotary_pct": (None, 1.0),
    "rotary_emb_fraction": (None, 1.0),
    "rotary_emb_base": (None,),
    "chunk_size_feed_forward": (0, None),
}
NEUTRAL_OF: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "qwen2": {"use_sliding_window": (False, None), "qk_norm": (False, None)},
    "qwen3": {"use_sliding_window": (False, None), "attention_bias": (False, None)},
    "llama": {
        "attention_bias": (False, None),
        "bias": (False, None),
        "qkv_bias": (False, None),
        "mlp_bias": (False, None),
        "logit_scale": (1.0,),
        "target_layer_count": (),
    },
}
FOREIGN_FILES = {
    "adapter_config.json": "an adapter that only transformers would load; merge it into the weights",
    "hf_quant_config.json": "by which vLLM would quantize the model; take the model that it was made from",
}
# Fields that vLLM takes for a limit of the context.
OTHER_LIMITS = ["n_positions", "max_seq_len", "seq_length", "model_max_length", "max_target_positions"]
OTHER_LIMITS += ["max_sequence_length", "max_seq_length", "seq_len"]
# What a config may hold besides: read above, or without a part in what is computed.
READ = {"model_type", "architectures", "layer_types", "sliding_window", "max_window_layers", "hidden_size"}
READ |= {"num_attention_heads", "num_key_value_heads", "num_hidden_layers", "head_dim", "intermediate_size"}
READ |= {"vocab_size", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "eos_token_id"}
READ |= {"rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor", "original_max_position_embeddings"}
IDLE = {"attention_dropout", "bos_token_id", "pad_token_id", "initializer_range", "use_cache", "torch_dtype", "dtype"}
IDLE |= {"transformers_version", "_name_or_path", "pretraining_tp", "output_attentions", "output_hidden_states"}
IDLE |= {"return_dict", "unk_token_id", "sep_token_id", "decoder_start_token_id", "id2label", "label2id", "use_mrope"}
IDLE |= {"_attn_implementation", "_attn_implementation_autoset", "attn_implementation", "unsloth_version", "no_bias"}
IDLE |= {"problem_type", "num_labels", "tokenizer_class", "prefix", "torchscript", "hidden_dropout", "resid_pdrop"}


def read_model(folder: Path) -> Model:
    """The shape that `folder`/config.json declares; its name is the folder.

    Raises UserError where the folder or the file is missing or malformed, describes another architecture, or asks one
    of the engines for something else than the others compute.
    """
    path, config = read_config(folder)
    family = str(given := config.get("model_type"))
    require(given in FAMILIES, f"{path}: model_type={given!r} is not supported; the families are {', '.join(FAMILIES)}")
    hidden_size, num_heads = _size(path, config, "hidden_size"), _size(path, config, "num_attention_heads")
    num_kv_heads = _size(path, config, "num_key_value_heads", num_heads)
    require(num_heads % num_kv_heads == 0, f"{path}: {num_heads} heads do not divide into {num_kv_heads} groups")
    # Qwen3Config's own default; the other two families derive it.
    head_dim = _size(path, config, "head_dim", 128 if family == "qwen3" else max(1, hidden_size // num_heads))
    num_layers, _ = _size(path, config, "num_hidden_layers"), _size(path, config, "max_position_embeddings")
    _check_fields(path, config, family)
    _check_attention(path, config, family, num_layers, head_dim)
    positions = read_positions(path, config)
    return Model(
        name=str(folder),
        family=cast('Literal["qwen2", "qwen3", "llama"]', family),
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        ffn_hidden_size=_size(path, config, "intermediate_size"),
        vocab_size=_size(path, config, "vocab_size"),
        max_positions=positions.max_positions,
        rope_theta=positions.base,
        norm_epsilon=_number(path, "rms_norm_eps", config.get("rms_norm_eps", 1e-6)),
        tied_embeddings=_flag(path, config, "tie_word_embeddings"),
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        rope_scaling=positions.scaling,
    )


def read_config(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The config.json of a model folder, and its path. Raises UserError where there is none or it is no JSON."""
    require(
        folder.is_dir(),
        f"model folder {folder}: {lack(folder, 'folder')}; give that of a Hugging Face model, with its config.json",
    )
    for name, means in FOREIGN_FILES.items():
        require(not (folder / name).exists(), f"model folder {folder}: has {name}, {means}")
    path = folder / "config.json"
    require(path.is_file(), f"model folder {folder}: has no config.json; it must be a Hugging Face model folder")
    return path, read_object(path)


def unknown_fields(folder: Path) -> list[str]:
    """Fields of config.json that nothing here reads, nor any of the engines as far as is known."""
    _, config = read_config(folder)
    known = READ | IDLE | set(NEUTRAL) | set(NEUTRAL_OF[config["model_type"]]) | set(OTHER_LIMITS)
    others = set().union(*NEUTRAL_OF.values())  # of another family
    return sorted(name for name in config if name not in known | others)


def _check_fields(path: Path, config: Mapping[str, Any], family: str) -> None:
    """Raises UserError for a field that asks for what is not computed here."""
    for field, values in {**NEUTRAL, **NEUTRAL_OF[family]}.items():
        require(
            field not in config or config[field] in values, f"{path}: {field}={config.get(field)!r} is not supported"
        )
    given = config.get("architectures") or [ARCHITECTURES[family]]
    require(
        isinstance(given, list) and [str(name).lower() for name in given] == [ARCHITECTURES[family].lower()],
        f"{path}: architectures={given!r} is not supported; a {family} must be [{ARCHITECTURES[family]!r}]",
    )
    positions = config["max_position_embeddings"]
    for field in OTHER_LIMITS:
        value = config.get(field)
        require(
            value is None or (type(value) is int and value >= positions),
            f"{path}: {field}={value!r} is less than max_position_embeddings={positions}, and vLLM would stop there; "
            "lower that, or leave this out",
        )


def _check_attention(path: Path, config: Mapping[str, Any], family: str, num_layers: int, head_dim: int) -> None:
    """Raises UserError where a layer attends to less than everything before, or the heads are not what vLLM takes."""
    kinds = config.get("layer_types")
    require(kinds is None or isinstance(kinds, list), f"{path}: layer_types={kinds!r} must be a list")
    others = sorted({str(kind) for kind in kinds or []} - {"full_attention"})
    require(not others, f"{path}: layer_types {others} are not supported; only full_attention is")
    require(not kinds or len(kinds) == num_layers, f"{path}: {len(kinds or [])} layer_types for {num_layers} layers")
    window = config.get("sliding_window")
    require(
        family != "llama"
        or window in (None, 0)
        or (type(window) is int and window >= config["max_position_embeddings"]),
        f"{path}: sliding_window={window!r} is not supported in a llama: vLLM obeys it and transformers does not",
    )
    hidden_size, num_heads = config["hidden_size"], config["num_attention_heads"]
    require(
        family == "qwen3" or hidden_size % num_heads == 0,
        f"{path}: hidden_size={hidden_size} is not a multiple of num_attention_heads={num_heads}, as a {family} needs",
    )
    require(
        family != "qwen2" or head_dim == hidden_size // num_heads,
        f"{path}: head_dim={head_dim} is not supported in a qwen2: transformers obeys it, and vLLM takes "
        f"hidden_size / num_attention_heads = {hidden_size // num_heads}",
    )
    require(head_dim % 2 == 0, f"{path}: head_dim={head_dim} is odd; rotary positions need pairs")


def _size(path: Path, config: Mapping[str, Any], field: str, default: int | None = None) -> int:
    value = config.get(field)
    value = default if value is None else value
    require(value is not None, f"{path}: has no field {field}")
    require(type(value) is int and value >= 1, f"{path}: {field}={value!r} must be a whole number above 0")
    return cast(int, value)


def _number(path: Path, field: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    require(is_number and 0 < value < float("inf"), f"{path}: {field}={value!r} must be a number above 0")
    return float(value)


def _flag(path: Path, config: Mapping[str, Any], field: str) -> bool:
    value = config.get(field, False)
    require(value in (True, False), f"{path}: {field}={value!r} must be true or false")
    return bool(value)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises UserError where it holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no JSON ({error}); download it again") from None
    require(isinstance(value, dict), f"{path}: holds no JSON object; download it again")
    return cast("dict[str, Any]", value)
