"""From the words of `evaluate` to an Evaluation, and what it shows at the end."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_rl.commands.choose import find_scale, rebuild_run
from megatron_rl.commands.settings import change, parse, sort_settings
from megatron_rl.commands.suites import find_suite, published_figures
from megatron_rl.config.checks import UserError, require
from megatron_rl.config.lineage import FILE_NAME, model_folder_of, read_parent
from megatron_rl.config.records import Scale
from megatron_rl.config.words import check_folder, lack
from megatron_rl.evaluation.plan import MAX_POLICY_NAME, Evaluation, Policy, asks_of
from megatron_rl.runtime import rundir
from megatron_rl.runtime.contents import EVALUATION, check_contents

if TYPE_CHECKING:
    from rich.console import Console

    from megatron_rl.evaluation.figures import Figures

GPU = Path("/dev/nvidia0")
RESULTS = "evaluation"  # in a run's directory
_STEP = re.compile(r"step_\d{6}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """What a command line names: the policies, the scale that they were made at, and where results go if not said."""

    policies: tuple[Policy, ...]
    scale: Scale
    run: Path | None
    to: Path | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the words of `evaluate` say."""

    target: Path
    suites: tuple[str, ...]
    to: Path | None
    scale: str | None
    settings: tuple[str, ...]
    samples: int | None
    max_response_tokens: int | None
    max_prompt_tokens: int | None
    mirror: Path | None
    corpus: tuple[Path, ...]
    allows_unsafe_sandbox: bool

    def plan(self) -> Evaluation:
        """The evaluation that was asked for. Raises UserError."""
        require(bool(self.suites), "--suite: none is given; name one, such as mini or prorl")
        asks = asks_of(
            [find_suite(name) for name in self.suites],
            samples_per_problem=self.samples,
            max_response_tokens=self.max_response_tokens,
            max_prompt_tokens=self.max_prompt_tokens,
        )
        found = find_target(self.target, self.to)
        if found.to is None:
            raise UserError(f"{self.target}: --to is not given; name the folder for the results")
        require(found.to.is_dir() or not found.to.exists(), f"--to {found.to}: is a file; name a folder")
        check_contents(found.to, EVALUATION, "--to")
        if self.mirror is not None:
            check_folder("--mirror", self.mirror, "that of the downloads, OWNER/NAME/FILE")
        if self.corpus:
            from megatron_rl.evaluation.novelty import files_of

            for path in self.corpus:
                files_of(path)  # known before anything is generated
        of_scale, of_run, of_recipe = sort_settings(self.settings)
        require(
            not of_recipe and of_run.keys() <= {"seed"},
            "--set: an evaluation knows scale.NAME and run.seed; how a benchmark is answered is said by its suite",
        )
        scale = found.scale if self.scale is None else find_scale(self.scale)
        return Evaluation(
            directory=found.to,
            policies=found.policies,
            asks=asks,
            scale=change(scale, of_scale, "scale."),
            seed=int(parse("run.seed", int, of_run.get("seed", "1"))),
            mirror=self.mirror,
            corpus=self.corpus,
            allows_unsafe_sandbox=self.allows_unsafe_sandbox,
        )

    def words(self) -> list[str]:
        """The words that say the same to a rank."""
        given: dict[str, Sequence[object]] = {
            "--suite": self.suites,
            "--to": [self.to],
            "--scale": [self.scale],
            "--set": self.settings,
            "--samples": [self.samples],
            "--max-response-tokens": [self.max_response_tokens],
            "--max-prompt-tokens": [self.max_prompt_tokens],
            "--mirror": [self.mirror],
            "--corpus": self.corpus,
        }
        pairs = [(name, str(value)) for name, values in given.items() for value in values if value is not None]
        unsafe = ["--allow-unsafe-sandbox"] if self.allows_unsafe_sandbox else []
        return ["evaluate", str(self.target), *(word for pair in pairs for word in pair), *unsafe]


def find_target(path: Path, to: Path | None) -> Target:
    """The policies that `path` holds: those at a run's start and end, that of a checkpoint, or a model folder's.

    Raises UserError.
    """
    if (path / "run.json").is_file():
        facts = facts_of(path)
        to = to or path / RESULTS
        policies = (_start(facts), *_end(path, facts, to))
        return Target(policies=policies, scale=_scale_of(facts), run=path, to=to)
    if (path / "manifest.json").is_file() and _STEP.fullmatch(path.name):
        run = path.resolve().parent.parent
        facts = facts_of(run)
        to = to or run / RESULTS
        return Target(policies=(_of_checkpoint(path, facts, to),), scale=_scale_of(facts), run=run, to=to)
    require(path.is_dir(), f"{path}: {lack(path, 'folder')}; name a run, a checkpoint of one, or a model folder")
    require(
        (path / "config.json").is_file(),
        f"{path}: is no run (run.json), no checkpoint (manifest.json) and no model folder (config.json); name one",
    )
    name = re.sub(r"[^\w.-]", "_", path.resolve().name)[:MAX_POLICY_NAME]
    policy = Policy(name=name, title=path.resolve().name, folder=path, step=None, shape_folder=path)
    return Target(policies=(policy,), scale=find_scale("gpu1" if GPU.exists() else "cpu"), run=None, to=to)


def facts_of(run: Path) -> dict[str, Any]:
    """What run.json says of a run. Raises UserError."""
    path = run / "run.json"
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["run"]
        "".join((facts["model_folder"], facts["scale"]["name"], *facts["modified"]))  # all are texts
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: cannot be read; start the run once more, which writes it anew") from None
    return facts


def export_missing(evaluation: Evaluation) -> None:
    """Writes the model folders of checkpoints that have none. Collective over the world."""
    from megatron_rl.train import export_run

    for policy in evaluation.policies:
        if policy.checkpoint is not None and not policy.weights:
            run = rebuild_run(policy.checkpoint.resolve().parent.parent)
            run = dataclasses.replace(run, scale=evaluation.scale)
            export_run(run, policy.folder, policy.checkpoint)


def show(figures: Figures, page: Path, out: Console) -> None:
    """Prints pass@1 and pass@k with their intervals for every policy, and where the page is."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    ks = figures.shown_ks
    for column in ("benchmark", "policy", "scorer", "pass@1", *(f"pass@{k}" for k in ks), "tokens", "cut off"):
        table.add_column(column, justify="left" if column in ("benchmark", "policy", "scorer") else "right")
    for line in figures.lines(ks):
        table.add_row(*line)
    out.print(table)
    for note in figures.notes:
        out.print(note, style="dim", soft_wrap=True)
    out.print(str(page), soft_wrap=True)


def figures_of(evaluation: Evaluation) -> Figures:
    """All that is known of the benchmarks that were asked, of every policy in the folder, written as page and table."""
    from megatron_rl.evaluation.figures import write

    return write(evaluation, published_figures())


def _start(facts: dict[str, Any]) -> Policy:
    folder = Path(facts["model_folder"])
    return Policy(name="step_000000", title="start", folder=folder, step=0, shape_folder=folder)


def _end(run: Path, facts: dict[str, Any], to: Path) -> list[Policy]:
    """The policy that a run ended with, or has come to; none before its first checkpoint."""
    exported = model_folder_of(run)
    if (exported / FILE_NAME).is_file():
        step = read_parent(run)[0].step
        return [_at(step, exported, Path(facts["model_folder"]), None)]
    found = [folder for folder in rundir.checkpoints(run) if rundir.manifest_of(folder) is not None]
    return [_of_checkpoint(found[-1], facts, to)] if found else []


def _of_checkpoint(checkpoint: Path, facts: dict[str, Any], to: Path) -> Policy:
    step = rundir.step_of(checkpoint)
    return _at(step, to / "models" / checkpoint.name, Path(facts["model_folder"]), checkpoint)


def _at(step: int, folder: Path, shape: Path, checkpoint: Path | None) -> Policy:
    name, title = f"step_{step:06d}", f"step {step}"
    return Policy(name=name, title=title, folder=folder, step=step, shape_folder=shape, checkpoint=checkpoint)


def _scale_of(facts: dict[str, Any]) -> Scale:
    """The scale of a run, with the changes of its command line."""
    of_scale, _, _ = sort_settings([one for one in facts["modified"] if one.startswith("scale.")])
    return change(find_scale(facts["scale"]["name"]), of_scale, "scale.")
