"""Recipe and Scale: what is run, and where, as frozen records."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from megatron_rl.config.algorithm import (
    Algorithm,
    Correction,
    CosineLength,
    DynamicSampling,
    FormatReward,
    Kl,
    KlSpike,
    Overlong,
    ReferenceReset,
    Stall,
    Truncation,
    WrongLength,
)
from megatron_rl.config.draws import Difficulty
from megatron_rl.config.fingerprint import hashed, later_field

# A recipe imports all its records from here.
__all__ = (
    "Algorithm",
    "Correction",
    "CosineLength",
    "Difficulty",
    "DynamicSampling",
    "FormatReward",
    "Kl",
    "KlSpike",
    "Overlong",
    "ReferenceReset",
    "Stall",
    "Truncation",
    "WrongLength",
    "later_field",
)


@dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Every rotary frequency divided by `factor`."""

    factor: float


@dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Low rotary frequencies divided by `factor`, high ones kept, those between in part; Llama 3.1."""

    factor: float
    low_frequency_factor: float  # below so many turns in the original context a frequency is low
    high_frequency_factor: float  # above so many it is high
    original_max_positions: int


@dataclass(frozen=True, kw_only=True)
class YarnScaling:
    """YaRN, arXiv 2309.00071: as Llama3Scaling with a ramp over the dimensions, and sharper attention."""

    factor: float
    original_max_positions: int
    beta_fast: float  # dimensions of more turns in the original context are kept
    beta_slow: float  # those of fewer are divided
    attention_factor: float  # of queries, and of keys
    truncates: bool  # the ends of the ramp to whole dimensions


RopeScaling = LinearScaling | Llama3Scaling | YarnScaling


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
    max_positions: int  # after scaling
    rope_theta: float
    norm_epsilon: float
    tied_embeddings: bool
    qkv_bias: bool
    qk_norm: bool
    rope_scaling: RopeScaling | None = later_field(None, default=None)

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

    name: str  # math, code, stem, logic, instruct, or a class in a file beside the data, as my_rewards.py:Sum
    num_prompts: int
    source: str
    reward: Literal["binary", "fraction"]  # what training pays: 1 for a full score alone, or the score
    accuracy: Literal["binary", "fraction"]  # what validation counts, likewise
    # Of the prompts met, against other domains'; none: a pass meets each prompt once.
    weight: float | None = later_field(None)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What is generated in a step."""

    prompts_per_step: int  # prompts trained on, after dynamic sampling
    samples_per_prompt: int  # the size N of a group
    temperature: float  # of sampling; log-probabilities are taken at it, too
    top_p: float  # must be 1: the loss needs the full distribution
    max_prompt_tokens: int  # longer prompts are left out
    max_response_tokens: int  # longer responses are cut off
    difficulty: Difficulty | None = later_field(None)  # skips prompts that teach little; none: takes all


@dataclass(frozen=True, kw_only=True)
class Validation:
    """How held-out prompts are answered; one sample per prompt is taken greedily."""

    samples_per_prompt: int  # accuracy is their mean
    temperature: float  # of sampling; of no effect on a single sample
    top_p: float  # of sampling; of no effect on a single sample


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW with a constant learning rate after a linear warm-up; norms and biases are not decayed."""

    learning_rate: float  # after the warm-up
    warmup_steps: int  # step n of them has n / warmup_steps of the learning rate
    beta1: float  # decay of the mean of gradients
    beta2: float  # decay of the mean of squared gradients
    epsilon: float  # added to the root of the second moment
    weight_decay: float  # decoupled; none on norms and biases
    max_grad_norm: float  # a longer gradient is scaled down to this norm


@dataclass(frozen=True, kw_only=True)
class Stage:
    """From `from_step` on, the fields that are not None replace the recipe's; later stages win."""

    from_step: int
    why: str
    domains: tuple[str, ...] | None = None  # names of those trained on
    samples_per_prompt: int | None = None
    max_response_tokens: int | None = None
    truncation: Truncation | None = None
    temperature: float | None = later_field(None, default=None)
    resets_reference: bool = False  # before its first step, as `reference_reset` says


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A published algorithm with its numbers."""

    name: str
    version: str
    starts_from: str | None  # the recipe whose checkpoint it continues; None: the model as published
    model: Model  # --model takes another one
    domains: tuple[Domain, ...]  # --domains takes others
    num_steps: int  # of training
    algorithm: Algorithm
    sampling: Sampling
    validation: Validation
    optimizer: Optimizer
    stages: tuple[Stage, ...]  # what changes at which step; written in a recipe's file

    @property
    def release(self) -> str:
        """Name and version, as they stand in recipes/released.json."""
        return f"{self.name} {self.version}"

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when any value of the recipe does; why a stage begins is none."""
        stages = tuple(dataclasses.replace(stage, why="") for stage in self.stages)
        content = hashed(dataclasses.replace(self, stages=stages))
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def stage_at(self, step: int) -> Stage | None:
        """The newest stage that has begun at `step`."""
        return next((stage for stage in reversed(self.stages) if stage.from_step <= step), None)

    def at_step(self, step: int) -> Recipe:
        """The recipe in force at `step`: its stages up to there applied in order."""
        recipe = self
        for stage in self.stages:
            if stage.from_step <= step:
                recipe = recipe._after(stage, self.domains)
        return recipe

    def _after(self, stage: Stage, domains: tuple[Domain, ...]) -> Recipe:
        names, sampling, algorithm = stage.domains, self.sampling, self.algorithm
        return dataclasses.replace(
            self,
            domains=self.domains if names is None else tuple(d for d in domains if d.name in names),
            algorithm=dataclasses.replace(algorithm, truncation=stage.truncation or algorithm.truncation),
            sampling=dataclasses.replace(
                sampling,
                samples_per_prompt=stage.samples_per_prompt or sampling.samples_per_prompt,
                max_response_tokens=stage.max_response_tokens or sampling.max_response_tokens,
                temperature=sampling.temperature if stage.temperature is None else stage.temperature,
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Caps:
    """Upper limits that a scale puts on a recipe; none leaves the recipe's value."""

    prompts_per_step: int | None = None  # at most so many
    samples_per_prompt: int | None = None  # at most so many
    updates_per_step: int | None = None  # at most so many
    max_prompt_tokens: int | None = None  # at most so many
    max_response_tokens: int | None = None  # at most so many
    validation_samples_per_prompt: int | None = None  # at most so many


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
    device: Literal["cpu", "cuda"]  # what the ranks compute on
    num_nodes: int  # machines
    devices_per_node: int  # ranks on each machine: one a GPU, or on a CPU processes
    tensor_parallel: int  # ranks that share each layer of the actor
    pipeline_parallel: int  # stages that the actor's layers are divided into
    rollout_tensor_parallel: int  # neighbouring ranks that share a rollout engine
    precision: Literal["fp32", "bf16", "fp16"]  # of weights and activations in both engines; fp16 scales its loss
    device_memory_bytes: int  # of one device; on a CPU, of one process
    max_tokens_per_microbatch: int  # sequences are packed up to so many tokens
    kv_cache_bytes: int  # of each rank of a rollout engine
    max_requests_in_flight: int  # sequences that one rollout engine decodes at once
    sequences_per_wave: int  # an engine stores so many together; a kill costs those under way; a larger group is cut
    virtual_pipeline: int = 1  # model chunks per pipeline stage
    context_parallel: int = 1  # ranks that share every sequence of a microbatch, a part of its tokens each
    context_exchange: Literal["p2p", "a2a"] = "p2p"  # on a GPU: pass keys and values round, or deal out heads
    sequence_parallel: bool = False  # tensor-parallel ranks share the activations between layers, too
    recomputes_activations: bool = False  # recompute whole layers in the backward pass
    recomputes_mlp: bool = False  # recompute only the MLP of each layer, its largest part
    # What moves to host memory while the engine generates; each includes those before it.
    offloads: Literal["nothing", "gradients", "optimizer", "weights"] = "nothing"
    # How the actor's linear layers scale FP8, on an H100 or newer.
    fp8_actor: Literal["off", "blockwise", "tensorwise", "delayed"] = "off"
    # Run the engine's linear layers in FP8, on an H100 or newer: scaled as the actor's, or by block if those are off.
    fp8_rollout: bool = False
    allows_fp8_on_one_side: bool = False  # the policy that samples then differs from the one that is trained
    # Which sides keep the logits in fp32 instead of rounding them to bf16.
    fp32_logits: Literal["neither", "rollout", "both"] = "neither"
    deterministic: bool = False  # on a GPU: kernels that sum in a fixed order, and no two waves in one engine; slower
    fuses_rope: bool = False  # on a GPU: one kernel, with angles in fp32 where the rollout engine's are bf16
    fuses_swiglu: bool = False  # on a GPU: one compiled kernel, which keeps less for the backward pass
    threads_per_process: int = 1  # of torch, in each rank
    verifier_processes: int = 1  # of each rank
    time_limit_hours: float | None = None  # from the start on, where Slurm does not say when the job ends
    caps: Caps = Caps()
    miniature: Miniature | None = None

    @property
    def num_devices(self) -> int:
        return self.num_nodes * self.devices_per_node

    @property
    def data_parallel(self) -> int:
        return self.num_devices // (self.tensor_parallel * self.pipeline_parallel * self.context_parallel)

    @property
    def layout(self) -> dict[str, Any]:
        """What must be equal for one rank's checkpoint file to fit.

        Context-parallel ranks are no part of it: weights and optimizer lie on them as on data-parallel ones.
        """
        names = ("num_devices", "tensor_parallel", "pipeline_parallel", "virtual_pipeline", "precision")
        return {name: getattr(self, name) for name in names}

    @property
    def num_engines(self) -> int:
        """Rollout engines; each spans `rollout_tensor_parallel` neighbouring ranks."""
        return self.num_devices // self.rollout_tensor_parallel


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
