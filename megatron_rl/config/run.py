"""Run: a recipe at a scale in a directory, checked before torch is imported."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from megatron_rl.config.checks import YEAR_SECONDS, check_layout, check_scale, require
from megatron_rl.config.context import check_context
from megatron_rl.config.draws import check_draws
from megatron_rl.config.lineage import Parent
from megatron_rl.config.precision import check_precision
from megatron_rl.config.recipe_checks import check_recipe
from megatron_rl.config.records import Model, Recipe, Scale, canonical_json, differences

SEEDS = 2**32  # that there are
# Where a run's numbers can be sent while it trains -> what pip calls the package that this takes.
TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow-skinny"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A recipe at a scale in a directory: all that `train` is told.

    `recipe` is the one in force, after the scale's caps; `published` is the one that was asked for.
    """

    recipe: Recipe
    published: Recipe
    scale: Scale
    directory: Path
    model_folder: Path  # the Hugging Face folder that training starts from
    data_folder: Path  # holds train.jsonl and validation.jsonl; see docs/data.md
    data_digest: str = ""  # of the prompts to train on: others are another run
    identity: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of what config/identity.py names
    seed: int = 1  # decides the order of prompts and all sampling
    validate_every_steps: int = 10  # also before the first step and after the last
    max_validation_prompts: int = 1024  # taken evenly from the validation files
    save_every_steps: int = 50  # also after the last step
    save_every_minutes: float = 30.0  # at the end of the step then under way; BroRL's steps take most of an hour
    checkpoints_kept: int = 2  # so many of the newest stay
    keep_every_steps: int | None = None  # the checkpoints of these steps are kept for good
    stall_seconds: float = 1800.0  # a collective that waits longer ends the run
    verifier_timeout_seconds: float = 5.0  # what one verdict may take; see docs/data.md for what happens then
    max_unjudged_share: float = 0.1  # of a step's samples; beyond it the verifiers are broken, and the run ends
    max_steps_without_update: int = 10  # in a row, for want of groups worth training on; then the run ends
    allows_unsafe_sandbox: bool = False  # run code rewards even where the sandbox lacks a layer
    store_waves_longer_than_seconds: float = 1.0  # a faster wave is generated again after a kill, not read from disk
    samples_per_domain: int = 2  # so many of each step go to samples.jsonl for a person to read; 0: none
    track: str | None = None  # where to send the numbers, too: tensorboard, wandb, mlflow, or several with commas
    preemption_lead_seconds: float = 900.0  # before the time limit, as Slurm's notice: waves under way and a save fit
    asked_for: str = ""  # the recipe as it was given: its name, or its file
    modified: tuple[str, ...] = ()  # the --set arguments, as given
    parent: Parent | None = None  # the run whose policy this one starts from

    def __post_init__(self) -> None:
        check_scale(self.scale)
        check_recipe(self.recipe)
        check_draws(self.recipe)
        check_layout(self.recipe, self.scale)
        check_precision(self.recipe.model, self.scale)
        check_context(self.recipe, self.scale)
        counts = ("validate_every_steps", "max_validation_prompts", "save_every_steps", "checkpoints_kept")
        for field in (*counts, "max_steps_without_update"):
            require(getattr(self, field) >= 1, f"run.{field}={getattr(self, field)}: must be at least 1")
        every, saved = self.keep_every_steps, self.save_every_steps
        require(
            every is None or (every >= 1 and every % saved == 0),
            f"run.keep_every_steps={every}: must be a multiple of run.save_every_steps={saved}; no other step is saved",
        )
        check_seed(self.seed)
        share = self.max_unjudged_share
        require(0 <= share <= 1, f"run.max_unjudged_share={share}: must lie in [0, 1]")
        count = self.samples_per_domain
        require(0 <= count <= 100, f"run.samples_per_domain={count}: must lie in [0, 100]; 0 writes none")
        unknown = [name for name in self.trackers if name not in TRACKERS]
        require(
            not unknown and len(set(self.trackers)) == len(self.trackers),
            f"run.track={self.track}: must be none, or each once of {', '.join(TRACKERS)}, with commas between",
        )
        for field in ("store_waves_longer_than_seconds", "preemption_lead_seconds"):
            require(getattr(self, field) >= 0, f"run.{field}={getattr(self, field)}: must not be below 0")
        for field in ("save_every_minutes", "stall_seconds", "verifier_timeout_seconds"):
            value = getattr(self, field)
            require(0 < value <= YEAR_SECONDS, f"run.{field}={value}: must be above 0, and finite: a year at most")

    @property
    def trackers(self) -> list[str]:
        """Where the run's numbers are sent while it trains."""
        return [name.strip() for name in self.track.split(",")] if self.track else []

    @property
    def is_variant(self) -> bool:
        """True where the recipe in force has another model or other domains than the published one."""
        return self.recipe.name != self.published.name

    @property
    def differences(self) -> list[str]:
        """What makes the run a variant, a line each: model, domains, and what their size changes."""
        if not self.is_variant:
            return []
        old, new = (json.loads(canonical_json(recipe)) for recipe in (self.published, self.recipe))
        for recipe in (old, new):
            named = ((domain["name"], domain["weight"]) for domain in recipe["domains"])
            recipe["domains"] = ", ".join(name if weight is None else f"{name}={weight:g}" for name, weight in named)
        kept = ("model", "domains", "sampling", "stages")
        return differences({key: old[key] for key in kept}, {key: new[key] for key in kept})

    @property
    def model(self) -> Model:
        """The shape of the policy."""
        return self.recipe.model

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest prompt and its longest response, at any stage."""
        sampling, stages = self.recipe.sampling, self.recipe.stages
        return sampling.max_prompt_tokens + max(
            [sampling.max_response_tokens, *(stage.max_response_tokens or 0 for stage in stages)]
        )

    def at_step(self, step: int) -> Recipe:
        """The recipe in force at `step`."""
        return self.recipe.at_step(step)


def check_seed(seed: int) -> None:
    """Raises UserError for a seed that the rollout engine cannot take."""
    require(0 <= seed < SEEDS, f"run.seed={seed}: must lie in [0, {SEEDS}); numpy, which vLLM seeds, takes no other")


def batch_algebra(run: Run) -> str:
    """One sentence with the numbers of a step, as the papers state them."""
    sampling, scale = run.recipe.sampling, run.scale
    sequences = sampling.prompts_per_step * sampling.samples_per_prompt
    updates = run.recipe.algorithm.updates_per_step
    per_update = sequences // updates
    shared = f", each over {scale.context_parallel} context-parallel ranks" if scale.context_parallel > 1 else ""
    return (
        f"{sampling.prompts_per_step} prompts x {sampling.samples_per_prompt} samples = {sequences} sequences per "
        f"step; {updates} update{'s' * (updates > 1)} of {per_update} sequences; {scale.data_parallel} data-parallel "
        f"rank{'s' * (scale.data_parallel > 1)} x {per_update / scale.data_parallel:g} sequences, in microbatches of "
        f"at most {scale.max_tokens_per_microbatch} tokens{shared}"
    )
