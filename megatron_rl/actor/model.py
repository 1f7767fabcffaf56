"""A Hugging Face decoder as Megatron's GPTModel, in the chunks this rank holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron_rl.actor import names, precision, rotary
from megatron_rl.actor.slices import Box
from megatron_rl.actor.vocabulary import Head
from megatron_rl.config import weights
from megatron_rl.config.checks import UserError
from megatron_rl.config.records import Model, Scale
from megatron_rl.device import Device
from megatron_rl.runtime import parallel


def transformer_config(model: Model, scale: Scale, device: Device) -> Any:
    """Megatron's TransformerConfig for a model at a scale."""
    from megatron.core.distributed import finalize_model_grads
    from megatron.core.transformer import TransformerConfig

    return TransformerConfig(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        ffn_hidden_size=model.ffn_hidden_size,
        num_attention_heads=model.num_heads,
        num_query_groups=model.num_kv_heads,
        kv_channels=model.head_dim,
        normalization="RMSNorm",
        layernorm_epsilon=model.norm_epsilon,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        add_qkv_bias=model.qkv_bias,
        qk_layernorm=model.qk_norm,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        attention_softmax_in_fp32=True,
        softmax_scale=rotary.softmax_scale(model),
        masked_softmax_fusion=False,
        tensor_model_parallel_size=scale.tensor_parallel,
        pipeline_model_parallel_size=scale.pipeline_parallel,
        virtual_pipeline_model_parallel_size=scale.virtual_pipeline if scale.virtual_pipeline > 1 else None,
        sequence_parallel=scale.sequence_parallel,
        context_parallel_size=scale.context_parallel,
        # Packs differ in length, unless interleaved stages forbid it; Megatron asserts a mixture-of-experts setting
        # for that, which a dense model does not use.
        variable_seq_lengths=not needs_one_length(scale, device),
        moe_token_dispatcher_type="alltoall",
        # The loss is a sum; Megatron divides once by the tokens of all microbatches and ranks.
        calculate_per_token_loss=True,
        finalize_model_grads_func=finalize_model_grads,
        **precision.transformer_options(model, scale, device.dtype),
        **_recompute(scale),
        **{"gradient_accumulation_fusion": False, **device.transformer_options},
    )


def _recompute(scale: Scale) -> dict[str, Any]:
    """Fields of Megatron's TransformerConfig: what the backward pass makes again instead of keeping it."""
    if scale.recomputes_activations:
        return {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
    return {"recompute_granularity": "selective", "recompute_modules": ["mlp"]} if scale.recomputes_mlp else {}


def needs_one_length(scale: Scale, device: Device) -> bool:
    """True when all packs must be padded to the same number of tokens."""
    return device.packs_need_one_length and scale.virtual_pipeline > 1


def build(model: Model, scale: Scale, config: Any, device: Device) -> list[Any]:
    """This rank's pipeline chunks, with arbitrary weights, in the device's precision.

    The last gives hidden states where Megatron's gives logits, and has `head`, which makes a Head of them.
    """
    from megatron.core import parallel_state
    from megatron.core.models.gpt import GPTModel
    from megatron.core.transformer.module import Float16Module

    def chunk(virtual_stage: int | None) -> Any:
        built = GPTModel(
            config,
            device.block_spec(config, virtual_stage),
            vocab_size=model.vocab_size,
            max_sequence_length=model.max_positions,
            pre_process=parallel_state.is_pipeline_first_stage(
                ignore_virtual=virtual_stage is None, vp_stage=virtual_stage
            ),
            post_process=parallel_state.is_pipeline_last_stage(
                ignore_virtual=virtual_stage is None, vp_stage=virtual_stage
            ),
            parallel_output=True,
            share_embeddings_and_output_weights=model.tied_embeddings,
            position_embedding_type="rope",
            rotary_base=model.rope_theta,
            vp_stage=virtual_stage,
        )
        if model.rope_scaling is not None:
            own = built.rotary_pos_emb.inv_freq
            built.rotary_pos_emb.inv_freq = rotary.frequencies(model).to(own.device)
        return built

    stages: list[int | None] = list(range(config.virtual_pipeline_model_parallel_size or 0)) or [None]
    chunks = [chunk(stage).to(device.torch_device) for stage in stages]
    for one in chunks:
        if one.post_process:
            _without_logits(one, scale.fp32_logits != "both", device)
    return [Float16Module(config, chunk) for chunk in chunks] if config.bf16 or config.fp16 else chunks


def _without_logits(chunk: Any, rounds_logits: bool, device: Device) -> None:
    """Makes the last stage give hidden states [T, hidden], and `head`, which holds what logits are made of."""
    from megatron.core import tensor_parallel

    def forward(hidden: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        # In the backward pass the shares of the tensor-parallel ranks are added up, as Megatron's own layer would.
        if chunk.config.sequence_parallel:
            return tensor_parallel.gather_from_sequence_parallel_region(hidden), None
        return tensor_parallel.copy_to_tensor_model_parallel_region(hidden), None

    def head(hidden: Tensor) -> Head:
        tied = chunk.share_embeddings_and_output_weights
        weight = chunk.shared_embedding_or_output_weight() if tied else chunk.output_layer.weight
        return Head(hidden=hidden, weight=weight, product=device.product_in_fp32, rounds_logits=rounds_logits)

    chunk.output_layer.forward, chunk.head = forward, head


def load_folder(chunks: list[Any], model: Model, folder: Path, degree: int, rank: int) -> None:
    """Fills the chunks from a Hugging Face folder's safetensors files, of which a rank reads what it holds.

    Collective over the world. Raises UserError, on every rank, naming a tensor that is not finite.
    """
    from safetensors import safe_open

    tensors = weights.read_tensors(folder)
    files = {path: safe_open(path, framework="pt") for path in {tensor.path for tensor in tensors.values()}}
    broken: list[str] = []

    def read(name: str, box: Box) -> Tensor:
        rows = slice(box.row, box.row + box.rows)
        columns = (slice(box.column, box.column + box.columns),) if len(tensors[name].shape) > 1 else ()
        part: Tensor = files[tensors[name].path].get_slice(name)[(rows, *columns)]
        if not part.isfinite().all():
            broken.append(name)
        return part

    names.load(chunks, model, read, degree, rank)
    parallel.raise_together(weights.not_finite(folder, broken[0]) if broken else None, UserError)
