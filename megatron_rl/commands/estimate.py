"""The command `megatron-rl estimate`: a model of the step and of the days, before GPUs are spent."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from megatron_rl.commands.errors import one_line_errors, path_of

if TYPE_CHECKING:
    from rich.console import Console

    from megatron_rl.config.run import Run
    from megatron_rl.estimate.step import Constants

GATHERED_BYTES_PER_SECOND = 8.7e9  # slime's refit of 61 GB in 7 s, its blog on weight updates
DAYS, SEEDS = 30.0, 5
WHAT = {
    "generate": "generate",
    "idle": "idle tail of generation",
    "score": "score",
    "logprob": "log-probabilities",
    "update": "update",
    "refit": "refit",
    "validate": "evaluate",
    "save": "save",
}


def estimate(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe, or its file.")],
    scale: Annotated[str, typer.Option("--scale", metavar="NAME", help="Where it would run.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change one value, as for train.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="FOLDER|NAME", help="Another model.")] = None,
    from_run: Annotated[
        Path | None,
        typer.Option(
            "--from",
            parser=path_of,
            metavar="RUN|FILE",
            help="Lengths, keep rate and speeds as this run had; or speeds as benchmarks/gpu.py wrote them.",
        ),
    ] = None,
    papers: Annotated[bool, typer.Option("--papers", help="Also the papers' wall times beside the model's.")] = False,
) -> None:
    """Say how long a step and a run would take, and what it would cost. Starts nothing."""
    from megatron_rl.commands.choose import build_run
    from megatron_rl.commands.cli import console, varied

    with one_line_errors():
        run = build_run(recipe, scale, varied(settings, model, None), None, needs_files=False)
        constants, origin = constants_of(run, from_run)
        show(run, constants, console())
        console().print(f"constants: {origin}", soft_wrap=True)
        if papers:
            show_papers(console())


def constants_of(run: Run, from_run: Path | None) -> tuple[Constants, str]:
    """Published ceilings, or what a run's own metrics or a check of a GPU give; and in words which.

    Raises UserError where there is none of them for the device.
    """
    from megatron_rl.config.checks import UserError, require
    from megatron_rl.estimate.step import OURS, from_metrics, measured_steps, ours

    if from_run is None:
        require(
            run.scale.device == "cuda",
            f"scale '{run.scale.name}': nothing is published of its device; give --from RUN, a run that was made there",
        )
        return OURS, "published, or chosen where nothing is"
    if from_run.is_file():
        return constants_of_check(run, from_run)
    require(
        (from_run / "run.json").is_file(),
        f"--from {from_run}: is no run's directory, for it holds no run.json, and no file of benchmarks/gpu.py; "
        "name one",
    )
    from megatron_rl.report.journal import read_rows

    rows: list[Mapping[str, float]] = list(read_rows(from_run / "metrics.jsonl"))
    if not measured_steps(rows):
        raise UserError(
            f"--from {from_run}: has no step that updated the policy in its metrics.jsonl yet; wait for the first, or "
            "name another"
        )
    measured = measured_run(from_run)
    require(
        measured.scale.device == run.scale.device,
        f"--from {from_run}: was made at scale {measured.scale.name}, on another device than scale {run.scale.name}; "
        "give a run that was made on that",
    )
    found = from_metrics(ours(measured.scale), measured, rows)
    return found, f"lengths, keep rate and speeds of {from_run}, else published"


def measured_run(directory: Path) -> Run:
    """The run whose metrics lie in a directory, whether or not its model and data are here. Raises UserError."""
    from megatron_rl.commands.choose import build_run
    from megatron_rl.config.checks import UserError
    from megatron_rl.report.provenance import read_run_file

    facts = read_run_file(directory, shows_run=False)
    try:
        asked_for, scale, settings = (facts["run"][name] for name in ("asked_for", "scale", "modified"))
        return build_run(asked_for, scale["name"], settings, None, needs_files=False)
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{directory}: its run.json says nothing of recipe and scale; name another run") from None


def constants_of_check(run: Run, results: Path) -> tuple[Constants, str]:
    """What benchmarks/gpu.py measured on one GPU, and published ceilings for the rest. Raises UserError."""
    from megatron_rl.commands.choose import build_run
    from megatron_rl.config.checks import UserError, require
    from megatron_rl.estimate.gpu_check import from_gpu_check
    from megatron_rl.estimate.step import OURS
    from megatron_rl.report.journal import read_rows

    require(run.scale.device == "cuda", f"--from {results}: is of a GPU, and scale '{run.scale.name}' has none")
    checked = build_run("prorl_v2", "gpu1", [], None, needs_files=False)  # what the check runs
    try:
        constants, measured = from_gpu_check(OURS, run, checked, list(read_rows(results, {})))
    except KeyError as error:
        raise UserError(f"--from {results}: lacks {error}; run this version's benchmarks/gpu.py again") from None
    except (UserError, RuntimeError) as error:
        raise UserError(f"--from {results}: {error}") from None
    return constants, f"{', '.join(measured)} as {results} measured them, else published"


def show(run: Run, constants: Constants, out: Console) -> None:
    """Prints the parts of a step, the run, and what three changes gain on paper."""
    from rich.table import Table

    from megatron_rl.estimate.step import checkpoint_bytes, parts_of_run, published_keep_rate

    total = parts_of_run(run, constants)
    steps, seconds = run.recipe.num_steps, sum(total.values())
    out.print(f"{run.published.release} at scale {run.scale.name}, estimated", style="bold")
    table = Table(box=None, pad_edge=False)
    for column in ("part", "seconds a step", "share"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for name, words in WHAT.items():
        table.add_row(words, f"{total[name] / steps:.2f}", f"{total[name] / seconds:.1%}")
    out.print(table)
    out.print(total_line(run, seconds))
    lengths, group = constants.lengths, run.recipe.sampling.samples_per_prompt
    kept_share = constants.keep_rate or published_keep_rate(group)
    out.print(
        f"responses of {lengths.median_tokens:.0f} tokens in the median, lognormal with {lengths.sigma_of_prompts:g} "
        f"between prompts and {lengths.sigma_within:g} within; {kept_share:.0%} of the groups kept; updates at "
        f"{constants.training_share:.0%} of {constants.flops / 1e12:.0f} TFLOP/s",
        soft_wrap=True,
    )
    kept = run.checkpoints_kept + (steps // run.keep_every_steps if run.keep_every_steps else 0)
    out.print(f"disk: {kept} checkpoints of {checkpoint_bytes(run) / 1e9:.1f} GB")
    out.print(days_line(run, constants, seconds / steps, total["save"] / steps))
    show_gains(run, constants, out)


def total_line(run: Run, seconds: float) -> str:
    """The whole run in one line: a step, all of them, GPU-hours, jobs."""
    hours, limit = seconds / 3600, run.scale.time_limit_hours
    jobs = f", {math.ceil(hours / limit):,} jobs of {limit:g} h" if limit else ""
    return (
        f"a step of {seconds / run.recipe.num_steps:.0f} s, {run.recipe.num_steps:,} steps in {hours:,.0f} h, "
        f"{hours * run.scale.num_devices:,.0f} device-hours{jobs}"
    )


def days_line(run: Run, constants: Constants, step: float, save: float) -> str:
    """The goodput of a month at published failure rates."""
    from megatron_rl.estimate.goodput import FAILURES_PER_DEVICE_HOUR, Job, goodput

    limit = run.scale.time_limit_hours
    every = min(run.save_every_steps * step, 60 * run.save_every_minutes)
    job = Job(
        step=step,
        save=save * max(1.0, every / step),
        save_every=every,
        start=constants.start_seconds,
        limit=3600 * limit if limit else math.inf,
        failure_every=3600 / (FAILURES_PER_DEVICE_HOUR * run.scale.num_devices),
    )
    mean = sum(goodput(job, DAYS, seed) for seed in range(SEEDS)) / SEEDS
    return f"goodput of {DAYS:.0f} days, starts, failures and limits simulated: {mean:.1%}"


def show_gains(run: Run, constants: Constants, out: Console) -> None:
    """What pieces, rounds sized by the model, and a refit without a gather gain, each alone and of its own part."""
    from megatron_rl.estimate.sharing import LARGEST_PIECE
    from megatron_rl.estimate.step import generation_seconds, parts_of_step

    def refit(bytes_per_second: float) -> float:
        return parts_of_step(run, 0, dataclasses.replace(constants, refit_bytes_per_second=bytes_per_second))["refit"]

    whole = dataclasses.replace(constants, largest_piece=None)
    recipe = run.at_step(0)
    best = generation_seconds(recipe, run.scale, constants)
    gains = {
        f"generation, groups in pieces of {LARGEST_PIECE}": (generation_seconds(recipe, run.scale, whole), best),
        "generation, rounds as large as pays instead of what is missing over the keep rate, two steps at most": (
            generation_seconds(recipe, run.scale, constants, largest_round=2),
            best,
        ),
        "a refit that gathers nothing": (refit(GATHERED_BYTES_PER_SECOND), refit(constants.refit_bytes_per_second)),
    }
    for words, (old, new) in gains.items():
        before, after = (f"{value:,.0f}" if value >= 100 else f"{value:.2g}" for value in (old, new))
        out.print(f"{words}: {before} -> {after} s a step, {old / new:.2f} times as fast", soft_wrap=True)


def show_papers(out: Console) -> None:
    """Prints the papers' figures beside the model's, all by one set of assumptions."""
    from megatron_rl.commands.choose import build_run
    from megatron_rl.estimate.published import FIGURES, estimated

    def build(recipe: str, scale: str) -> Run:
        return build_run(recipe, scale, [], None, needs_files=False)

    for figure in FIGURES:
        value = estimated(figure, build)
        out.print(
            f"{figure.recipe} at {figure.scale}, {figure.what}: paper {figure.value:g}, model {value:.3g} "
            f"({value / figure.value - 1:+.0%}); {figure.source}",
            soft_wrap=True,
        )
