"""The papers' wall times beside what the model of a step says with one set of assumptions for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from megatron_rl.config.run import Run
from megatron_rl.estimate.step import PUBLISHED, parts_of_run, rounds


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What a paper reports of a recipe on its hardware."""

    recipe: str
    scale: str
    what: str  # seconds a step, or samples generated per second
    value: float
    source: str


FIGURES = (
    Figure(
        recipe="prorl_v1",
        scale="h100x32",
        what="seconds a step",
        value=735.0,
        source="derived: 16,000 GPU-hours (2505.24864v1, section 3.2), 32 GPUs, 2,450 steps (2512.16649v1, Table 4)",
    ),
    Figure(
        recipe="brorl_control_n16",
        scale="h100x64",
        what="seconds a step",
        value=900.0,
        source="derived: 133.8 h for 535 steps (2510.01180v1, Table 1)",
    ),
    Figure(
        recipe="brorl",
        scale="h100x64",
        what="seconds a step",
        value=3276.0,
        source="derived: 173.8 h for 191 steps (2510.01180v1, Table 1)",
    ),
    Figure(
        recipe="brorl_control_n16",
        scale="h100x64",
        what="samples generated per second",
        value=36.5,
        source="2510.01180v1, Table 2",
    ),
    Figure(
        recipe="brorl",
        scale="h100x64",
        what="samples generated per second",
        value=72.4,
        source="2510.01180v1, Table 2",
    ),
)


def estimated(figure: Figure, build: Callable[[str, str], Run]) -> float:
    """What the model says of a figure; `build` makes the run of a recipe at a scale."""
    run = build(figure.recipe, figure.scale)
    if figure.what == "seconds a step":
        return sum(parts_of_run(run, PUBLISHED).values()) / run.recipe.num_steps
    made = rounds(run.recipe, run.scale, PUBLISHED)
    seconds = sum(one.seconds + PUBLISHED.score_seconds for one in made)  # Table 2's rate is of the whole phase
    return sum(one.num_samples for one in made) / seconds
