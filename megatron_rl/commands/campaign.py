"""A campaign: several runs, each going on with the policy of the one before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from megatron_rl.commands.choose import build_run, find_recipe
from megatron_rl.config.checks import require
from megatron_rl.config.recipe_checks import check_parent
from megatron_rl.runtime.log import get_logger
from megatron_rl.runtime.preempt import SIGNALS
from megatron_rl.runtime.ranks import die_with_parent
from megatron_rl.runtime.rundir import check_free

PUBLISHED = ("prorl_v1", "prorl_v2_after_v1", "brorl")  # as the model card and BroRL tell the lineage


def check_campaign(recipes: Sequence[str], scale: str, settings: Sequence[str], directory: Path) -> None:
    """Raises UserError unless each run can be, and goes on with what the one before it makes."""
    check_free(directory)
    older = None
    for name, own, its_settings in runs_of(recipes, settings, directory):
        recipe = find_recipe(name)
        require(
            older is None or recipe.starts_from is not None,
            f"campaign: recipe '{name}' starts from model {recipe.model.name}, not from '{older}'; "
            "give it a place at the beginning",
        )
        check_parent(recipe, older)
        if older is None or not own.exists():  # the name of an older run's policy is part of what a later one is
            build_run(name, scale, its_settings, own, needs_files=False)
        older = recipe.release


def runs_of(recipes: Sequence[str], settings: Sequence[str], directory: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """Recipe, directory and settings of each run; where the model lies concerns the first alone."""
    for number, name in enumerate(recipes, start=1):
        own = [one for one in settings if number == 1 or one.partition("=")[0].strip() != "run.model_folder"]
        yield name, directory / f"{number}_{Path(name).stem}", own


def campaign(recipes: Sequence[str], scale: str, settings: Sequence[str], directory: Path) -> int:
    """Trains the recipes one after the other in numbered folders of `directory`; returns the last exit code.

    A setting `run.model_folder` is where the first one starts; all others hold for each. The same call goes on where
    an earlier one stopped: a finished run says so and is left as it is. A run that fails, or that asks to be requeued,
    ends the campaign with its exit code.
    """
    parent: list[str] = []
    for number, (name, own, its_settings) in enumerate(runs_of(recipes, settings, directory), start=1):
        get_logger().info("campaign: run %d of %d, %s in %s", number, len(recipes), name, own)
        words = ["train", name, "--scale", scale, "--directory", str(own), *parent]
        words += [word for setting in its_settings for word in ("--set", setting)]
        code = run_to_its_end([sys.executable, "-m", "megatron_rl", *words])
        if code != 0:
            return code
        parent = ["--parent", str(own)]
    return 0


def run_to_its_end(command: Sequence[str]) -> int:
    """The exit code of a command, to which the signals to leave are passed on; it dies with this process."""
    process = subprocess.Popen(command, start_new_session=True, preexec_fn=die_with_parent(os.getpid()))
    before = {number: signal.signal(number, lambda one, _: process.send_signal(one)) for number in SIGNALS}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
