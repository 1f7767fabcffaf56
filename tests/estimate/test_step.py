"""The model of a step: the papers' wall times, a run's own metrics, and which way each number moves it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from megatron_rl.commands.choose import build_run
from megatron_rl.commands.cli import app
from megatron_rl.commands.estimate import constants_of
from megatron_rl.config.checks import UserError
from megatron_rl.config.run import Run
from megatron_rl.estimate.generation import Lengths
from megatron_rl.estimate.goodput import Job, goodput
from megatron_rl.estimate.published import FIGURES, Figure, estimated
from megatron_rl.estimate.step import (
    OURS,
    checkpoint_bytes,
    decoding,
    forward_flops,
    from_metrics,
    measured_steps,
    parts_of_step,
    rounds,
)
from megatron_rl.report.provenance import KEYS

SHORT = dataclasses.replace(OURS, lengths=Lengths(median_tokens=200, sigma_of_prompts=0.5, sigma_within=0.4))
SMALL = ["sampling.prompts_per_step=64", "sampling.max_response_tokens=1024", "run.max_validation_prompts=16"]


def run_of(recipe: str, scale: str, settings: list[str] | None = None) -> Run:
    return build_run(recipe, scale, settings or [], None, needs_files=False)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: f"{figure.recipe} {figure.what}")
def test_one_set_of_assumptions_is_within_30_percent_of_every_published_figure(figure: Figure) -> None:
    assert estimated(figure, run_of) == pytest.approx(figure.value, rel=0.3)


SLOW = dataclasses.replace(
    SHORT,
    training_share=0.12,
    keep_rate=0.5,
    step_overhead_seconds=2 * SHORT.step_overhead_seconds,
    sequence_seconds=2 * SHORT.sequence_seconds,
    bytes_per_second=SHORT.bytes_per_second / 2,
    prefill_share=SHORT.prefill_share / 2,
)


def row_of(run: Run) -> dict[str, float]:
    """What a step of a run would write of itself on devices as SLOW has them."""
    parts, made = parts_of_step(run, 0, SLOW), rounds(run.recipe, run.scale, SLOW)
    tokens = sum(one.num_tokens for one in made)
    mean = tokens / sum(one.num_samples for one in made)
    return {
        "step": 1,
        "time/update_seconds": parts["update"],
        "throughput/updated_tokens_per_second": 64 * 16 * mean / parts["update"],  # of responses alone
        "throughput/generated_tokens_per_second": tokens / sum(one.seconds for one in made),
        "rollout/response_tokens_mean": mean,
        "rollout/response_tokens_median": SLOW.lengths.median_tokens,
        "dynamic_sampling/keep_rate": 0.5,
    }


def test_what_a_run_measured_is_what_is_estimated_of_it() -> None:
    run = run_of("prorl_v2", "h100x8", SMALL)
    parts, found = parts_of_step(run, 0, SLOW), parts_of_step(run, 0, from_metrics(SHORT, run, [row_of(run)]))
    for name in ("generate", "idle", "update", "logprob"):
        assert found[name] == pytest.approx(parts[name], rel=0.01), name


def test_a_step_that_an_attempt_before_had_generated_is_no_measure() -> None:
    run = run_of("prorl_v2", "h100x8", SMALL)
    row = row_of(run)
    stored = {name: value for name, value in row.items() if "generated" not in name} | {"time/update_seconds": 9e9}
    assert measured_steps([stored, {"step": 0}, row, row | {"throughput/generated_tokens_per_second": 0.0}]) == [row]
    assert from_metrics(SHORT, run, [stored, row]) == from_metrics(SHORT, run, [row])


def test_what_a_run_measured_holds_for_another_scale_of_the_same_devices(tmp_path: Path) -> None:
    run = run_of("prorl_v2", "h100x8", SMALL)
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row_of(run)) + "\n")
    with pytest.raises(UserError, match="holds no run.json"):
        constants_of(run, tmp_path)
    written = dict.fromkeys(KEYS) | {"attempts": [{}]}
    (tmp_path / "run.json").write_text(json.dumps(written | {"run": {"asked_for": "prorl_v2"}}))
    with pytest.raises(UserError, match="says nothing of recipe and scale"):
        constants_of(run, tmp_path)
    facts = {"asked_for": "prorl_v2", "scale": {"name": "h100x8"}, "modified": SMALL}
    (tmp_path / "run.json").write_text(json.dumps(written | {"run": facts}))
    own, _ = constants_of(run, tmp_path)
    assert own.training_share == pytest.approx(SLOW.training_share)
    assert constants_of(run_of("prorl_v1", "h100x32"), tmp_path)[0] == own
    with pytest.raises(UserError, match="was made at scale h100x8, on another device than scale cpu"):
        constants_of(run_of("prorl_v2", "cpu"), tmp_path)


def test_more_devices_take_less_time_and_longer_answers_more() -> None:
    def seconds(scale: str, tokens: int) -> float:
        lengths = dataclasses.replace(SHORT.lengths, median_tokens=tokens)
        made = parts_of_step(run_of("prorl_v2", scale, SMALL), 0, dataclasses.replace(SHORT, lengths=lengths))
        assert all(value >= 0 for value in made.values())
        return sum(made.values())

    assert seconds("h100x32", 200) < seconds("h100x8", 200) < seconds("h100x8", 400)


def test_goodput_falls_with_failures_and_short_jobs() -> None:
    job = Job(step=60, save=5, save_every=1800, start=120, limit=14400, failure_every=float("inf"))
    peace = goodput(job, 30, 1)
    failing = goodput(dataclasses.replace(job, failure_every=7200), 30, 1)
    assert 0.97 < peace < 1 and failing < peace - 0.1
    assert goodput(dataclasses.replace(job, limit=600), 30, 1) < peace
    assert goodput(dataclasses.replace(job, limit=180), 30, 1) == 0  # start and step alone take as long


def test_goodput_of_short_steps_without_a_limit_is_known_at_once() -> None:
    """As on a laptop: a step every third of a second, and a failure in years, or never."""
    job = Job(step=0.3, save=0.03, save_every=15, start=10, limit=math.inf, failure_every=math.inf)
    for every in (math.inf, 9e7):
        assert goodput(dataclasses.replace(job, failure_every=every), 30, 0) == pytest.approx(15 / 15.03, rel=1e-3)


def test_tied_embeddings_multiply_as_often_and_are_read_as_often_as_a_head_of_its_own() -> None:
    run = run_of("prorl_v2", "h100x8", SMALL)
    untied = run.recipe.model
    tied = dataclasses.replace(untied, tied_embeddings=True)
    assert untied.num_parameters - tied.num_parameters == untied.vocab_size * untied.hidden_size
    assert forward_flops(tied, 100, 50) == forward_flops(untied, 100, 50)
    assert decoding(tied, run.scale, OURS).step_seconds == decoding(untied, run.scale, OURS).step_seconds


def test_a_checkpoint_has_the_copies_of_the_policy_that_the_recipe_keeps() -> None:
    run = run_of("prorl_v2", "h100x8", SMALL)
    free = run_of("prorl_v2_reference_free", "h100x8", SMALL)
    best = run_of("prorl_v2", "h100x8", [*SMALL, "algorithm.reference_reset.target=best_checkpoint"])
    copy = 2 * run.model.num_parameters
    assert checkpoint_bytes(run) == 16 * run.model.num_parameters
    assert [checkpoint_bytes(one) - checkpoint_bytes(run) for one in (free, best)] == [-copy, copy]
    assert parts_of_step(free, 0, SHORT)["save"] < parts_of_step(run, 0, SHORT)["save"]


def test_the_command_says_step_run_disk_and_gains_and_check_says_the_total() -> None:
    words = ["prorl_v2", "--scale", "h100x32", *(word for setting in SMALL for word in ("--set", setting))]
    result = CliRunner().invoke(app, ["estimate", *words])
    assert result.exit_code == 0, result.output
    for part in (
        "idle tail of generation",
        "device-hours",
        "jobs of 4 h",
        "checkpoints of",
        "goodput",
        "times as fast",
    ):
        assert part in result.stdout, part
    checked = CliRunner().invoke(app, ["check", *words])
    total = next(line for line in result.stdout.splitlines() if line.startswith("a step of"))
    assert f"time, estimated: {total};" in checked.stdout


def test_a_device_of_which_nothing_is_published_needs_a_run_of_its_own(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["estimate", "prorl_v2", "--scale", "cpu"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1) and "give --from RUN" in result.stderr
    words = ["estimate", "prorl_v2", "--scale", "cpu", "--from", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1) and "is no run's directory" in result.stderr
    (tmp_path / "run.json").write_text("{}")
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1) and "has no step" in result.stderr
