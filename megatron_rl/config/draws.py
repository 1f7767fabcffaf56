"""Draws: which prompts a recipe meets more often than others, and the rules for saying so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from megatron_rl.config.checks import require

if TYPE_CHECKING:
    from megatron_rl.config.records import Recipe


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """A prompt whose samples are likely to be all right or all wrong is passed over more often than others."""

    memory: float  # share of a prompt's old pass rate in its new one, in [0, 1)
    easy_rate: float  # a prompt with this pass rate or above has nothing more to teach, in (0, 1]
    min_probability: float  # the least chance that a prompt is taken when its turn comes, in (0, 1]


def check_draws(recipe: Recipe) -> None:
    """Raises UserError where weights of domains or the rule on difficulty cannot be meant."""
    weights = {domain.name: domain.weight for domain in recipe.domains}
    for name, weight in weights.items():
        fits = weight is None or 0 < weight < math.inf
        require(fits, f"domains: {name} has weight={weight}: must be above 0, and finite; or none")
    lacking = [name for name, weight in weights.items() if weight is None]
    require(
        len(lacking) in (0, len(weights)),
        f"domains: {', '.join(lacking)} has no weight, and others have; give every domain one, or none of them",
    )
    if (difficulty := recipe.sampling.difficulty) is None:
        return
    memory = difficulty.memory
    require(0 <= memory < 1, f"sampling.difficulty.memory={memory}: must lie in [0, 1); at 1 nothing would be learnt")
    for name in ("easy_rate", "min_probability"):
        value = getattr(difficulty, name)
        require(
            0 < value <= 1,
            f"sampling.difficulty.{name}={value}: must lie in (0, 1]"
            + "; every prompt is to be met some time" * (name == "min_probability"),
        )
