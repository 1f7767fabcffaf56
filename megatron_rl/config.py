"""What a run is: a Recipe, a Scale and a directory, as frozen records that are checked before torch is imported."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from megatron_rl.checks import check_layout, check_recipe, check_scale, require


@dataclass(frozen=True, kw_only=True)
class Model:
    """The shape of a Hugging Face decoder (Qwen2, Qwen3 or Llama family)."""

    name: str  # Hugging Face id, or the folder it was read from
    family: Literal["qwen2", "qwen3", "llama"]
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_hidden_size: int
    vocab_size: int
    max_positions: int
    rope_theta: float
    norm_epsilon: float
    tied_embeddings: bool
    qkv_bias: bool
    qk_norm: bool

    @property
    def num_parameters(self) -> int:
        """Number of weights, tied embeddings counted once."""
        heads, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        attention = self.hidden_size * (2 * heads + 2 * kv) + (heads + 2 * kv) * self.qkv_bias
        layer = attention + 3 * self.hidden_size * self.ffn_hidden_size + 2 * self.hidden_size
        layer += 2 * self.head_dim * self.qk_norm
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        return self.num_layers * layer + embeddings + self.hidden_size


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One source of prompts with a programmatic reward."""

    name: Literal["math", "code", "stem", "logic", "instruct"]
    num_prompts: int
    source: str
    reward: Literal["binary", "fraction"]


@dataclass(frozen=True, kw_only=True)
class Kl:
    """Penalty that keeps the policy near the reference."""

    estimator: Literal["k2"]
    coefficient: float
    log_ratio_clamp: float  # nats


@dataclass(frozen=True, kw_only=True)
class CosineLength:
    """A reward for shortness that is on for some steps and off for others."""

    eta_max: float  # at zero response tokens
    eta_min: float  # at the response limit
    weight: float
    steps_on: int
    steps_off: int
    starts_on: bool


@dataclass(frozen=True, kw_only=True)
class ReferenceReset:
    """When the reference becomes a copy of the current policy, and what happens to the optimizer then."""

    period_steps: int
    clears_optimizer: bool


@dataclass(frozen=True, kw_only=True)
class DynamicSampling:
    """Which groups are trained on, and how long replacements for the others are looked for."""

    keeps: Literal["reward_std_above_zero"]
    max_rounds: int  # rounds of generation in one step, the first included


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """How rewards become a loss."""

    advantage: Literal["group_mean_then_batch"]
    statistics_over: Literal["samples", "tokens"]
    clip_low: float
    clip_high: float
    loss_aggregation: Literal["token_mean"]
    updates_per_step: int
    kl: Kl
    length: CosineLength | None
    dynamic_sampling: DynamicSampling
    reference_reset: ReferenceReset


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What is generated in a step."""

    prompts_per_step: int
    samples_per_prompt: int
    temperature: float
    top_p: float
    max_prompt_tokens: int
    max_response_tokens: int


@dataclass(frozen=True, kw_only=True)
class Validation:
    """How held-out prompts are answered; one sample per prompt is taken greedily."""

    samples_per_prompt: int
    temperature: float
    top_p: float


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW with a constant learning rate after a linear warm-up; norms and biases are not decayed."""

    learning_rate: float
    warmup_steps: int
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    max_grad_norm: float


@dataclass(frozen=True, kw_only=True)
class Stage:
    """From `from_step` on, the fields that are not None replace the recipe's; later stages win."""

    from_step: int
    why: str
    samples_per_prompt: int | None = None
    max_response_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A published algorithm with its numbers."""

    name: str
    version: str
    model: Model
    domains: tuple[Domain, ...]
    mixture: Literal["uniform_over_prompts"]
    num_steps: int
    algorithm: Algorithm
    sampling: Sampling
    validation: Validation
    optimizer: Optimizer
    stages: tuple[Stage, ...]

    @property
    def release(self) -> str:
        """Name and version, as they are written in tests/recipes/released.json."""
        return f"{self.name} {self.version}"

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when any value of the recipe does."""
        return hashlib.sha256(canonical_json(self).encode()).hexdigest()[:16]

    def at_step(self, step: int) -> Recipe:
        """The recipe in force at `step`: its stages up to there applied in order."""
        sampling = self.sampling
        for stage in self.stages:
            if stage.from_step <= step:
                changes = {
                    field: value
                    for field in ("samples_per_prompt", "max_response_tokens")
                    if (value := getattr(stage, field)) is not None
                }
                sampling = dataclasses.replace(sampling, **changes)
        return dataclasses.replace(self, sampling=sampling)


@dataclass(frozen=True, kw_only=True)
class Caps:
    """Upper limits a scale puts on a recipe; None leaves the recipe's value."""

    prompts_per_step: int | None = None
    samples_per_prompt: int | None = None
    updates_per_step: int | None = None
    max_prompt_tokens: int | None = None
    max_response_tokens: int | None = None
    validation_samples_per_prompt: int | None = None


@dataclass(frozen=True, kw_only=True)
class Miniature:
    """A model small enough for a laptop, the problems it can learn from, and the two numbers its size changes."""

    model_folder: str  # relative to the repository
    data_folder: str  # relative to the repository
    learning_rate: float  # a small model takes, and needs, a larger one
    schedule_divisor: int  # every span counted in steps is divided by it


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Hardware, parallel layout and size caps; never the algorithm."""

    name: str
    device: Literal["cpu", "cuda"]
    num_nodes: int
    devices_per_node: int
    tensor_parallel: int
    pipeline_parallel: int
    rollout_tensor_parallel: int
    precision: Literal["fp32", "bf16"]
    max_tokens_per_microbatch: int
    kv_cache_bytes: int  # per rollout engine rank
    max_requests_in_flight: int  # sequences that one rollout engine decodes at once
    sequences_per_wave: int  # per rollout engine, in whole groups; a wave has the engine to itself
    virtual_pipeline: int = 1  # model chunks per pipeline stage
    sequence_parallel: bool = False
    recomputes_activations: bool = False
    threads_per_process: int = 1
    verifier_processes: int = 1  # per rank
    time_limit_hours: float | None = None
    caps: Caps = Caps()
    miniature: Miniature | None = None

    @property
    def num_devices(self) -> int:
        return self.num_nodes * self.devices_per_node

    @property
    def data_parallel(self) -> int:
        return self.num_devices // (self.tensor_parallel * self.pipeline_parallel)

    @property
    def layout(self) -> dict[str, Any]:
        """What must be equal for one rank's checkpoint file to fit."""
        names = ("num_devices", "tensor_parallel", "pipeline_parallel", "virtual_pipeline", "precision")
        return {name: getattr(self, name) for name in names}

    @property
    def num_engines(self) -> int:
        """Rollout engines; each spans `rollout_tensor_parallel` neighbouring ranks."""
        return self.num_devices // self.rollout_tensor_parallel

    def fit(self, recipe: Recipe, model: Model) -> Recipe:
        """The recipe with this scale's caps, and with `model` where the scale brings a miniature."""

        def cap(value: int, limit: int | None) -> int:
            return value if limit is None else min(value, limit)

        caps, replace = self.caps, dataclasses.replace
        algorithm, optimizer, stages, num_steps = recipe.algorithm, recipe.optimizer, recipe.stages, recipe.num_steps
        algorithm = replace(algorithm, updates_per_step=cap(algorithm.updates_per_step, caps.updates_per_step))
        if (small := self.miniature) is not None:

            def span(steps: int) -> int:
                return max(1, steps // small.schedule_divisor)

            reset = algorithm.reference_reset
            algorithm = replace(
                algorithm,
                length=algorithm.length
                and replace(
                    algorithm.length,
                    steps_on=span(algorithm.length.steps_on),
                    steps_off=span(algorithm.length.steps_off),
                ),
                reference_reset=replace(reset, period_steps=span(reset.period_steps)),
            )
            optimizer = replace(optimizer, learning_rate=small.learning_rate)
            stages = tuple(replace(stage, from_step=span(stage.from_step)) for stage in stages)
            num_steps = span(num_steps)
        stages = tuple(
            replace(
                stage,
                samples_per_prompt=stage.samples_per_prompt and cap(stage.samples_per_prompt, caps.samples_per_prompt),
                max_response_tokens=stage.max_response_tokens
                and cap(stage.max_response_tokens, caps.max_response_tokens),
            )
            for stage in stages
        )
        sampling = replace(
            recipe.sampling,
            **{
                field: cap(getattr(recipe.sampling, field), getattr(caps, field))
                for field in ("prompts_per_step", "samples_per_prompt", "max_prompt_tokens", "max_response_tokens")
            },
        )
        validation = replace(
            recipe.validation,
            samples_per_prompt=cap(recipe.validation.samples_per_prompt, caps.validation_samples_per_prompt),
        )
        return replace(
            recipe,
            model=model,
            num_steps=num_steps,
            algorithm=algorithm,
            sampling=sampling,
            validation=validation,
            optimizer=optimizer,
            stages=stages,
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """A recipe at a scale in a directory: all that `train` is told.

    `recipe` is the one in force, after the scale's caps; `published` is the one that was asked for.
    """

    recipe: Recipe
    published: Recipe
    scale: Scale
    directory: Path
    model_folder: Path
    data_folder: Path
    seed: int = 1
    validate_every_steps: int = 10
    max_validation_prompts: int = 1024  # taken evenly from the validation files
    save_every_steps: int = 50
    checkpoints_kept: int = 2
    stall_seconds: float = 1800.0  # a collective that waits longer ends the run
    verifier_timeout_seconds: float = 5.0  # a verdict that takes longer is counted as a timeout
    modified: tuple[str, ...] = ()  # the --set arguments, as given

    def __post_init__(self) -> None:
        check_scale(self.scale)
        check_recipe(self.recipe)
        check_layout(self.recipe, self.scale)
        for field in ("validate_every_steps", "max_validation_prompts", "save_every_steps", "checkpoints_kept"):
            require(getattr(self, field) >= 1, f"run.{field}={getattr(self, field)}: must be at least 1")
        for field in ("stall_seconds", "verifier_timeout_seconds"):
            require(getattr(self, field) > 0, f"run.{field}={getattr(self, field)}: must be above 0")

    def at_step(self, step: int) -> Recipe:
        """The recipe in force at `step`."""
        return self.recipe.at_step(step)


def canonical_json(record: Any) -> str:
    """A frozen record as JSON with sorted keys: the text that is hashed and compared."""
    return json.dumps(dataclasses.asdict(record), sort_keys=True, default=str)


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """One line per leaf of two nested dictionaries that differs: `path: old -> new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted(old.keys() | new.keys())
            for line in differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
        ]
    return [] if old == new else [f"{prefix}: {old} -> {new}"]


def batch_algebra(run: Run) -> str:
    """One sentence with the numbers of a step, as the papers state them."""
    sampling, scale = run.recipe.sampling, run.scale
    sequences = sampling.prompts_per_step * sampling.samples_per_prompt
    updates = run.recipe.algorithm.updates_per_step
    per_update = sequences // updates
    return (
        f"{sampling.prompts_per_step} prompts x {sampling.samples_per_prompt} samples = {sequences} sequences per "
        f"step; {updates} update{'s' * (updates > 1)} of {per_update} sequences; {scale.data_parallel} data-parallel "
        f"rank{'s' * (scale.data_parallel > 1)} x {per_update / scale.data_parallel:g} sequences, in microbatches of "
        f"at most {scale.max_tokens_per_microbatch} tokens"
    )
