"""What can be wrong with a recipe, a scale or the two together, found before torch is imported."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from megatron_rl.config import Recipe, Scale


# Fields of a scale that count something there must be at least one of.
COUNTS = (
    "num_nodes",
    "devices_per_node",
    "tensor_parallel",
    "pipeline_parallel",
    "rollout_tensor_parallel",
    "virtual_pipeline",
    "max_tokens_per_microbatch",
    "kv_cache_bytes",
    "max_requests_in_flight",
    "sequences_per_wave",
    "threads_per_process",
    "verifier_processes",
)


def require(holds: bool, message: str) -> None:
    """Raises ValueError(message) unless `holds`."""
    if not holds:
        raise ValueError(message)


def check_recipe(recipe: Recipe) -> None:
    """Raises ValueError where a recipe's values can not be meant."""
    algorithm, sampling, optimizer = recipe.algorithm, recipe.sampling, recipe.optimizer
    positive = {
        "num_steps": recipe.num_steps,
        "algorithm.updates_per_step": algorithm.updates_per_step,
        "algorithm.kl.log_ratio_clamp": algorithm.kl.log_ratio_clamp,
        "algorithm.dynamic_sampling.max_rounds": algorithm.dynamic_sampling.max_rounds,
        "algorithm.reference_reset.period_steps": algorithm.reference_reset.period_steps,
        "sampling.prompts_per_step": sampling.prompts_per_step,
        "sampling.temperature": sampling.temperature,
        "sampling.max_prompt_tokens": sampling.max_prompt_tokens,
        "sampling.max_response_tokens": sampling.max_response_tokens,
        "validation.samples_per_prompt": recipe.validation.samples_per_prompt,
        "optimizer.learning_rate": optimizer.learning_rate,
        "optimizer.epsilon": optimizer.epsilon,
        "optimizer.max_grad_norm": optimizer.max_grad_norm,
    }
    for name, value in positive.items():
        require(value > 0 and math.isfinite(value), f"{name}={value}: must be above 0")
    check_ranges(recipe)
    require(sampling.top_p == 1.0, f"sampling.top_p={sampling.top_p}: the loss needs the full distribution; use 1.0")
    require(
        sampling.samples_per_prompt >= 2,
        f"sampling.samples_per_prompt={sampling.samples_per_prompt}: a group needs at least 2 to have a spread",
    )
    require(
        sampling.prompts_per_step % algorithm.updates_per_step == 0,
        f"sampling.prompts_per_step={sampling.prompts_per_step} does not divide into "
        f"algorithm.updates_per_step={algorithm.updates_per_step}; use a multiple of it",
    )
    starts = [stage.from_step for stage in recipe.stages]
    require(starts == sorted(starts), f"stages: from_step {starts} must not decrease")
    needed = sampling.max_prompt_tokens + sampling.max_response_tokens
    require(
        needed <= recipe.model.max_positions,
        f"sampling: {sampling.max_prompt_tokens} prompt + {sampling.max_response_tokens} response tokens do not fit "
        f"into the {recipe.model.max_positions} positions of model {recipe.model.name}; lower one of them",
    )


def check_ranges(recipe: Recipe) -> None:
    """Raises ValueError where a value lies outside what it can mean: a share, a moment's decay, a span of steps."""
    algorithm, sampling, optimizer = recipe.algorithm, recipe.sampling, recipe.optimizer
    for name, value in {
        "algorithm.kl.coefficient": algorithm.kl.coefficient,
        "validation.temperature": recipe.validation.temperature,
        "optimizer.warmup_steps": optimizer.warmup_steps,
        "optimizer.weight_decay": optimizer.weight_decay,
    }.items():
        require(value >= 0 and math.isfinite(value), f"{name}={value}: must not be below 0")
    for name, value in {"optimizer.beta1": optimizer.beta1, "optimizer.beta2": optimizer.beta2}.items():
        require(0 <= value < 1, f"{name}={value}: must lie in [0, 1)")
    if algorithm.length is not None:
        for name, value in {"on": algorithm.length.steps_on, "off": algorithm.length.steps_off}.items():
            require(
                value >= 1, f"algorithm.length.steps_{name}={value}: must be at least 1, or set algorithm.length=none"
            )
    require(0 < algorithm.clip_low < 1, f"algorithm.clip_low={algorithm.clip_low}: must lie in (0, 1)")
    require(algorithm.clip_high > 0, f"algorithm.clip_high={algorithm.clip_high}: must be above 0")
    for name, value in {"sampling.top_p": sampling.top_p, "validation.top_p": recipe.validation.top_p}.items():
        require(0 < value <= 1, f"{name}={value}: must lie in (0, 1]")


def check_scale(scale: Scale) -> None:
    """Raises ValueError where a scale's layout does not divide."""
    where, world = f"scale '{scale.name}'", scale.num_devices
    for field in COUNTS:
        require(getattr(scale, field) >= 1, f"{where}: {field}={getattr(scale, field)} must be at least 1")
    limit = scale.time_limit_hours
    require(limit is None or limit > 0, f"{where}: time_limit_hours={limit} must be above 0, or none")
    shard = scale.tensor_parallel * scale.pipeline_parallel
    require(
        world % shard == 0,
        f"{where}: {world} ranks do not divide into tensor_parallel={scale.tensor_parallel} x "
        f"pipeline_parallel={scale.pipeline_parallel}; use a multiple of {shard}",
    )
    require(
        scale.devices_per_node % scale.rollout_tensor_parallel == 0,
        f"{where}: {scale.devices_per_node} devices per node do not divide into "
        f"rollout_tensor_parallel={scale.rollout_tensor_parallel}; an engine stays within its node",
    )
    require(
        not scale.sequence_parallel or scale.tensor_parallel > 1,
        f"{where}: sequence_parallel splits over the tensor-parallel ranks; use tensor_parallel of 2 or more",
    )
    require(
        not scale.sequence_parallel or scale.max_tokens_per_microbatch % scale.tensor_parallel == 0,
        f"{where}: max_tokens_per_microbatch={scale.max_tokens_per_microbatch} does not divide into tensor_parallel="
        f"{scale.tensor_parallel}, as sequence_parallel needs; use a multiple of {scale.tensor_parallel}",
    )
    require(
        scale.virtual_pipeline == 1 or scale.pipeline_parallel > 1,
        f"{where}: virtual_pipeline={scale.virtual_pipeline} interleaves pipeline stages; "
        "use pipeline_parallel of 2 or more",
    )


def check_layout(recipe: Recipe, scale: Scale) -> None:
    """Raises ValueError where the model or the batch does not fit the layout."""
    model, where = recipe.model, f"scale '{scale.name}'"
    for degree_name in ("tensor_parallel", "rollout_tensor_parallel"):
        degree = getattr(scale, degree_name)
        for field in ("num_heads", "num_kv_heads", "ffn_hidden_size", "vocab_size"):
            value = getattr(model, field)
            require(
                value % degree == 0,
                f"{where}: {field}={value} of model {model.name} does not divide into {degree_name}={degree}; "
                f"use a divisor of {value}",
            )
    chunks = scale.pipeline_parallel * scale.virtual_pipeline
    require(
        model.num_layers % chunks == 0,
        f"{where}: num_layers={model.num_layers} of model {model.name} does not divide into pipeline_parallel="
        f"{scale.pipeline_parallel} x virtual_pipeline={scale.virtual_pipeline}; use a divisor of {model.num_layers}",
    )
    longest = max([recipe.sampling.max_response_tokens] + [stage.max_response_tokens or 0 for stage in recipe.stages])
    longest += recipe.sampling.max_prompt_tokens
    require(
        longest <= scale.max_tokens_per_microbatch,
        f"{where}: max_tokens_per_microbatch={scale.max_tokens_per_microbatch} can not hold one sequence of "
        f"{longest} tokens; use at least that",
    )
