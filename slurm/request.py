"""What was asked of slurm/launch.py: its words, and what they mean."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from megatron_rl.commands.settings import path_of
from megatron_rl.config.checks import UserError
from megatron_rl.config.words import whole_number


@dataclass(frozen=True, kw_only=True)
class Request:
    """One launch as it was asked for."""

    recipe: str
    scale: str
    settings: tuple[str, ...] = ()
    directory: Path | None = None
    parent: str = ""  # as for `train`
    jobs: int = 1
    exports: bool = False
    suites: tuple[str, ...] = ()  # to evaluate the run's first and last policy on, once it is trained
    is_local: bool = False
    is_dry: bool = False
    allows_changes: bool = False


class OneLineParser(argparse.ArgumentParser):
    """A command line whose mistakes are told in one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with code 2."""
        self.exit(2, f"error: {message}; `python slurm/launch.py --help` shows what there is\n")


class Once(argparse.Action):
    """An option's value, of which argparse would take the last one where several are given."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        """Ends the program where the option was given before, or is empty."""
        given = namespace.__dict__.setdefault("given", set())
        if self.dest in given:
            parser.error(f"{option}: is given twice; give it once")
        if values == "":
            parser.error(f"{option or self.dest}: must not be empty")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


def folder_of(text: str) -> Path | str:
    """A word of a command line as a path, `~` expanded; an empty one as it is. Raises argparse's error."""
    try:
        return path_of(text[:80], text) if text else text
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse(words: Sequence[str] | None) -> Request:
    """A command line as a Request."""
    parser = OneLineParser(
        description="Launch a recipe through NeMo-Run.", epilog="See docs/cluster.md.", allow_abbrev=False
    )
    parser.register("action", None, Once)
    parser.add_argument("recipe", help="a recipe's name, or its file, such as recipes/prorl_v2.py")
    parser.add_argument("--scale", required=True, help="a scale of recipes/scales.py: nodes, GPUs, time limit")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as for `train`; repeatable")
    parser.add_argument("--model", metavar="FOLDER|NAME", help="another model, as for `train`: makes it a variant")
    parser.add_argument("--domains", metavar="NAMES", help="only these, as in math,logic: makes it a variant")
    parser.add_argument("--parent", default="", metavar="RUN|NAME", help="as for `train`: the policy to go on from")
    parser.add_argument("--directory", type=folder_of, help="where the run lives; runs/RECIPE-SCALE if not given")
    parser.add_argument("--jobs", type=whole_number, default=1, help="training jobs in a row; 1: one that requeues")
    parser.add_argument("--export", action="store_true", help="then write the model in Hugging Face's format")
    parser.add_argument("--evaluate", action="append", default=[], metavar="SUITE", help="then evaluate; repeatable")
    parser.add_argument("--local", action="store_true", help="run on this machine, without Slurm")
    parser.add_argument("--dry-run", action="store_true", help="check, and print the scripts; submit nothing")
    parser.add_argument("--allow-dirty", action="store_true", help="run uncommitted changes; they are kept as a diff")
    given = parser.parse_args(words)
    return Request(
        recipe=given.recipe,
        scale=given.scale,
        settings=(
            *given.set,
            *(f"{name}={value}" for name, value in (("model", given.model), ("domains", given.domains)) if value),
        ),
        directory=given.directory,
        parent=given.parent,
        jobs=given.jobs,
        exports=given.export,
        suites=tuple(given.evaluate),
        is_local=given.local,
        is_dry=given.dry_run,
        allows_changes=given.allow_dirty,
    )
