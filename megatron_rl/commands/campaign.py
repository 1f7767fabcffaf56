"""A campaign: several runs, each going on with the policy of the one before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from megatron_rl.commands.choose import find_recipe, find_scale
from megatron_rl.commands.settings import change, sort_settings
from megatron_rl.config.checks import check_parent, check_recipe, require
from megatron_rl.config.fit import fitted
from megatron_rl.runtime.log import get_logger

PUBLISHED = ("prorl_v1", "prorl_v2_after_v1", "brorl")  # as the model card and BroRL tell the lineage


def check_campaign(recipes: Sequence[str], scale_name: str, settings: Sequence[str]) -> None:
    """Raises UserError unless the settings fit every recipe, and each goes on with what the one before it makes."""
    of_scale, _, of_recipe = sort_settings(settings)
    scale = change(find_scale(scale_name), of_scale, "scale.")
    older = None
    for name in recipes:
        recipe = find_recipe(name)
        require(
            older is None or recipe.starts_from is not None,
            f"campaign: recipe '{name}' starts from model {recipe.model.name}, not from '{older}'; "
            "give it a place at the beginning",
        )
        check_parent(recipe, older)
        check_recipe(change(fitted(recipe, recipe.model, scale), of_recipe))
        older = recipe.release


def campaign(recipes: Sequence[str], scale: str, settings: Sequence[str], directory: Path) -> int:
    """Trains the recipes one after the other in numbered folders of `directory`; returns the last exit code.

    A setting `run.model_folder` is where the first one starts; all others hold for each. The same call goes on where
    an earlier one stopped: a finished run says so and is left as it is. A run that fails, or that asks to be requeued,
    ends the campaign with its exit code.
    """
    parent: list[str] = []
    later = [setting for setting in settings if setting.partition("=")[0].strip() != "run.model_folder"]
    for number, name in enumerate(recipes, start=1):
        own = directory / f"{number}_{Path(name).stem}"
        get_logger().info("campaign: run %d of %d, %s in %s", number, len(recipes), name, own)
        words = ["train", name, "--scale", scale, "--directory", str(own), *parent]
        words += [word for setting in settings for word in ("--set", setting)]
        with subprocess.Popen([sys.executable, "-m", "megatron_rl", *words]) as process:
            try:
                code = process.wait()
            except KeyboardInterrupt:  # the terminal's Ctrl-C has reached the run as well
                code = process.wait()
        if code != 0:
            return code
        parent, settings = ["--parent", str(own)], later
    return 0
