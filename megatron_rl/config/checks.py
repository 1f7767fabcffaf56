"""What can be wrong with a scale, or with a recipe at it, found before torch is imported; and how that is said."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from megatron_rl.config.records import Recipe, Scale


# Fields of a scale that count something there must be at least one of.
COUNTS = (
    "num_nodes",
    "devices_per_node",
    "tensor_parallel",
    "pipeline_parallel",
    "rollout_tensor_parallel",
    "virtual_pipeline",
    "context_parallel",
    "device_memory_bytes",
    "max_tokens_per_microbatch",
    "kv_cache_bytes",
    "max_requests_in_flight",
    "sequences_per_wave",
    "threads_per_process",
    "verifier_processes",
)

# What no machine has more of: a slip of the hand must not start a million processes.
MOST = {
    "num_nodes": 100_000,
    "devices_per_node": 256,
    "max_requests_in_flight": 100_000,
    "sequences_per_wave": 1_000_000,
    "threads_per_process": 1024,
    "verifier_processes": 1024,
}
KV_BLOCK_TOKENS = 128  # at most: the engine rounds a sequence up to blocks
YEAR_SECONDS = 366 * 24 * 3600


HALF_A_LINE = 800  # chosen: characters of a message before what is cut out of it, and behind
DOMAINS = ("math", "code", "stem", "logic", "instruct")
OWN_DOMAIN = re.compile(r"[A-Za-z_]\w*\.py:[A-Za-z_]\w*")  # a class in a file beside the data


class UserError(ValueError):
    """What was asked for cannot be; the message says which value, the rule and the remedy. Asking again is no use."""


class MachineError(RuntimeError):
    """What this machine lacks; the message says which, the rule and the remedy. Another machine may have it."""

    def __init__(self, message: str, *, is_of_all: bool) -> None:
        super().__init__(message)
        self.is_of_all = is_of_all  # each process of the machine finds it, else perhaps this one alone


def require(holds: bool, message: str) -> None:
    """Raises UserError(message) unless `holds`."""
    if not holds:
        raise UserError(message)


def one_line(message: str) -> str:
    """A message as one line: nothing that a terminal would obey, and what is too long to read without its middle.

    >>> one_line("a\\n  b \\x1b[31m"), len(one_line("[" * 100_000))
    ('a b \\\\x1b[31m', 1605)
    """
    line = " ".join(message.split())
    line = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in line)
    return line if len(line) <= 2 * HALF_A_LINE else f"{line[:HALF_A_LINE]} ... {line[-HALF_A_LINE:]}"


def above_zero(values: Mapping[str, float]) -> None:
    """Raises UserError for the first named value that is not a finite number above 0."""
    for name, value in values.items():
        require(value > 0 and math.isfinite(value), f"{name}={value}: must be above 0")


def not_below_zero(values: Mapping[str, float]) -> None:
    """Raises UserError for the first named value that is not a finite number of at least 0."""
    for name, value in values.items():
        require(value >= 0 and math.isfinite(value), f"{name}={value}: must not be below 0")


def check_scale(scale: Scale) -> None:
    """Raises UserError where a scale's layout does not divide."""
    where, world = f"scale '{scale.name}'", scale.num_devices
    for field in COUNTS:
        require(getattr(scale, field) >= 1, f"{where}: {field}={getattr(scale, field)} must be at least 1")
    for field, most in MOST.items():
        require(getattr(scale, field) <= most, f"{where}: {field}={getattr(scale, field)} must be at most {most}")
    small = scale.miniature
    require(
        small is None or small.schedule_divisor >= 1,
        f"{where}: miniature.schedule_divisor={small and small.schedule_divisor} must be at least 1",
    )
    limit = scale.time_limit_hours
    require(limit is None or limit > 0, f"{where}: time_limit_hours={limit} must be above 0, or none")
    shard, context = scale.tensor_parallel * scale.pipeline_parallel * scale.context_parallel, scale.context_parallel
    require(
        world % shard == 0,
        f"{where}: {world} ranks do not divide into tensor_parallel={scale.tensor_parallel} x "
        f"pipeline_parallel={scale.pipeline_parallel}{f' x context_parallel={context}' if context > 1 else ''}; "
        f"use a multiple of {shard}",
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
        not (scale.recomputes_activations and scale.recomputes_mlp),
        f"{where}: recomputes_mlp=true is part of recomputes_activations=true; set one of them",
    )
    require(
        scale.virtual_pipeline == 1 or scale.pipeline_parallel > 1,
        f"{where}: virtual_pipeline={scale.virtual_pipeline} interleaves pipeline stages; "
        "use pipeline_parallel of 2 or more",
    )


def longest_sequence(recipe: Recipe) -> int:
    """Tokens of the longest prompt and response, over all stages."""
    responses = [recipe.sampling.max_response_tokens] + [stage.max_response_tokens or 0 for stage in recipe.stages]
    return recipe.sampling.max_prompt_tokens + max(responses)


def check_layout(recipe: Recipe, scale: Scale) -> None:
    """Raises UserError where the model or the batch does not fit the layout."""
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
    longest = longest_sequence(recipe)
    numbers = 2 * model.num_layers * model.num_kv_heads * model.head_dim // scale.rollout_tensor_parallel
    needed = (4 if scale.precision == "fp32" else 2) * numbers * (longest + KV_BLOCK_TOKENS)
    require(
        scale.kv_cache_bytes >= needed,
        f"{where}: kv_cache_bytes={scale.kv_cache_bytes} cannot hold one sequence of {longest} tokens; use at least "
        f"{needed}",
    )
    chunks = scale.pipeline_parallel * scale.virtual_pipeline
    require(
        model.num_layers % chunks == 0,
        f"{where}: num_layers={model.num_layers} of model {model.name} does not divide into pipeline_parallel="
        f"{scale.pipeline_parallel} x virtual_pipeline={scale.virtual_pipeline}; use a divisor of {model.num_layers}",
    )
    require(
        longest <= scale.max_tokens_per_microbatch,
        f"{where}: max_tokens_per_microbatch={scale.max_tokens_per_microbatch} cannot hold one sequence of "
        f"{longest} tokens; use at least that",
    )
