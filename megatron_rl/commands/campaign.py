"""A campaign: several runs, each going on with the policy of an earlier one, on one page."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from megatron_rl.commands.choose import build_run, find_recipe
from megatron_rl.config.checks import UserError, require
from megatron_rl.config.recipe_checks import check_parent
from megatron_rl.config.records import Recipe
from megatron_rl.runtime.contents import CAMPAIGN, check_contents
from megatron_rl.runtime.log import get_logger
from megatron_rl.runtime.orphans import die_with_parent
from megatron_rl.runtime.preempt import SIGNALS
from megatron_rl.runtime.rundir import check_free

PUBLISHED = ("prorl_v1", "prorl_v2_after_v1", "brorl")  # as the model card and BroRL tell the lineage
PAGE = "comparison.html"


def check_campaign(recipes: Sequence[str], scale: str, settings: Sequence[str], directory: Path) -> None:
    """Raises UserError unless each run can be, and goes on with what an earlier one makes."""
    check_free(directory)
    check_contents(directory, CAMPAIGN, "--directory")
    parents = parents_of([find_recipe(name) for name in recipes])
    for (name, own, its_settings), parent in zip(runs_of(recipes, settings, directory), parents, strict=True):
        if parent is None or not own.exists():  # the name of an older run's policy is part of what a later one is
            build_run(name, scale, its_settings, own, needs_files=False)


def parents_of(recipes: Sequence[Recipe]) -> list[int | None]:
    """The place of the run that each goes on from: the newest before it that its recipe can continue.

    None for the first. Several may go on from one, which is how they are compared. Raises UserError where one has none.
    """
    found: list[int | None] = []
    for place, recipe in enumerate(recipes):
        older = recipes[:place]
        require(
            not older or recipe.starts_from is not None,
            f"campaign: recipe '{recipe.name}' starts from model {recipe.model.name}, not from "
            f"'{older[-1].release if older else None}'; give it a place at the beginning",
        )
        fitting = [number for number, one in enumerate(older) if continues(recipe, one)]
        if not fitting:
            check_parent(recipe, older[-1].release if older else None)
        found.append(fitting[-1] if fitting else None)
    return found


def continues(recipe: Recipe, older: Recipe) -> bool:
    """True where a run of `recipe` may go on from one of `older`."""
    try:
        check_parent(recipe, older.release)
    except UserError:
        return False
    return True


def runs_of(recipes: Sequence[str], settings: Sequence[str], directory: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """Recipe, directory and settings of each run; where the model lies concerns the first alone."""
    for number, name in enumerate(recipes, start=1):
        own = [one for one in settings if number == 1 or one.partition("=")[0].strip() != "run.model_folder"]
        yield name, directory / f"{number}_{Path(name).stem}", own


def campaign(recipes: Sequence[str], scale: str, settings: Sequence[str], directory: Path) -> int:
    """Trains the recipes one after the other in numbered folders of `directory`; returns the last exit code.

    Each goes on from the newest run before it that its recipe can continue. After each, `directory`/comparison.html
    lays those that have finished over each other.
    A setting `run.model_folder` is where the first one starts; all others hold for each. The same call goes on where
    an earlier one stopped: a finished run says so and is left as it is. A run that fails, or that asks to be requeued,
    ends the campaign with its exit code.
    """
    parents, folders = parents_of([find_recipe(name) for name in recipes]), list[Path]()
    for number, (name, own, its_settings) in enumerate(runs_of(recipes, settings, directory), start=1):
        get_logger().info("campaign: run %d of %d, %s in %s", number, len(recipes), name, own)
        words = ["train", name, "--scale", scale, "--directory", str(own)]
        if (older := parents[number - 1]) is not None:
            words += ["--parent", str(folders[older])]
        words += [word for setting in its_settings for word in ("--set", setting)]
        code = run_to_its_end([sys.executable, "-m", "megatron_rl", *words])
        if code != 0:
            return code
        folders.append(own)
        words = ["report", *map(str, folders), "--to", str(directory / PAGE)]
        if len(folders) > 1 and (code := run_to_its_end([sys.executable, "-m", "megatron_rl", *words])) != 0:
            return code
    return 0


def run_to_its_end(command: Sequence[str]) -> int:
    """The exit code of a command, to which the signals to leave are passed on; it dies with this process."""
    process = subprocess.Popen(command, start_new_session=True, preexec_fn=partial(die_with_parent, os.getpid()))
    before = {number: signal.signal(number, lambda one, _: process.send_signal(one)) for number in SIGNALS}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
