"""A run without a model, for tests that only look at its record."""

from __future__ import annotations

from pathlib import Path

from megatron_rl.config.run import Run
from recipes.prorl_v2 import RECIPE
from recipes.scales import SCALES


def make_run(directory: Path) -> Run:
    return Run(
        recipe=RECIPE,
        published=RECIPE,
        scale=SCALES["h100x32"],
        directory=directory,
        model_folder=directory,
        data_folder=directory,
    )
