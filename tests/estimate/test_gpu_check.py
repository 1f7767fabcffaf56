"""A check of one GPU gives the constants of an estimate, phase by phase, and results of no GPU give none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from megatron_rl.commands.choose import build_run
from megatron_rl.commands.cli import app
from megatron_rl.config.checks import UserError
from megatron_rl.config.run import Run
from megatron_rl.estimate.generation import simulate
from megatron_rl.estimate.gpu_check import from_gpu_check
from megatron_rl.estimate.step import OURS, decoding, parts_of_step, slowed

SMALL = ["sampling.prompts_per_step=64", "sampling.max_response_tokens=1024", "run.max_validation_prompts=16"]
TRUE = slowed(OURS, 1.7)  # what the made-up GPU does


def run_of(scale: str, settings: list[str] | None = None) -> Run:
    return build_run("prorl_v2", scale, settings or SMALL, None, needs_files=False)


def records(**changes: Any) -> list[dict[str, Any]]:
    """What benchmarks/gpu.py writes on a GPU with 800 TFLOP/s that decodes 1.7 times as slowly as published."""
    checked = build_run("prorl_v2", "gpu1", [], None, needs_files=False)
    made = simulate(
        [[300] * 8] * 16,
        prompt_tokens=12,
        num_engines=1,
        slots=checked.scale.max_requests_in_flight,
        cost=decoding(checked.recipe.model, checked.scale, TRUE),
        largest_piece=None,
    )
    sampling = {"tokens": made.num_tokens, "tokens_per_second": made.num_tokens / made.seconds, "requests": 16}
    found = {
        "memory": {
            "matrix_product_flops": 8e14,
            "as_published": {"update_mfu": 0.45},
            "recompute_off": {"update_mfu": 0.5},
        },
        "engine": {"bytes_moved": 3.5e9, "to_rollouts_seconds_0": 9.0, "to_rollouts_seconds_1": 0.1},
        "sampling": sampling | {"samples_per_request": 8, "prompt_tokens": 12},
    }
    machine = {"machine": {}, "rehearsal": False, "gpu": "present"} | changes
    return [machine, *({"phase": name, "status": "passed", **values} for name, values in found.items())]


def test_what_a_check_measured_is_what_is_estimated() -> None:
    run, checked = run_of("h100x8"), build_run("prorl_v2", "gpu1", [], None, needs_files=False)
    constants, measured = from_gpu_check(OURS, run, checked, records())
    assert measured == ("updates", "refit", "generation")
    parts, published = parts_of_step(run, 0, constants), parts_of_step(run, 0, OURS)
    slow = parts_of_step(run, 0, TRUE)
    assert parts["generate"] == pytest.approx(slow["generate"], rel=0.01)
    share = 0.45 * 4 / 3 if run.scale.recomputes_activations else 0.5
    faster = 8e14 * share / (OURS.flops * OURS.training_share)
    assert parts["update"] == pytest.approx(published["update"] / faster)
    assert parts["refit"] == pytest.approx(published["refit"] * OURS.refit_bytes_per_second / 35e9)


@pytest.mark.parametrize("phase", ["memory", "engine", "sampling"])
def test_a_phase_that_did_not_pass_leaves_what_is_published(phase: str) -> None:
    run, checked = run_of("h100x8"), build_run("prorl_v2", "gpu1", [], None, needs_files=False)
    lines = [line | {"status": "failed"} if line.get("phase") == phase else line for line in records()]
    constants, measured = from_gpu_check(OURS, run, checked, lines)
    whole, all_measured = from_gpu_check(OURS, run, checked, records())
    assert len(measured) == len(all_measured) - 1
    field = {"memory": "flops", "engine": "refit_bytes_per_second", "sampling": "sequence_seconds"}[phase]
    assert getattr(constants, field) == getattr(OURS, field) != getattr(whole, field)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "no line about a machine"),
        ([{"step": 1}], "no line about a machine"),
        (records(gpu="no CUDA device is visible to torch"), "without a GPU"),
        (records(rehearsal=True), "rehearsal"),
        (records()[:1], "none of its phases"),
    ],
)
def test_results_that_tell_nothing_of_a_gpu_are_refused(lines: list[dict[str, Any]], said: str) -> None:
    checked = build_run("prorl_v2", "gpu1", [], None, needs_files=False)
    with pytest.raises(UserError, match=said):
        from_gpu_check(OURS, run_of("h100x8"), checked, lines)


def test_the_command_takes_the_file_and_says_what_it_gave(tmp_path: Path) -> None:
    results = tmp_path / "gpu.jsonl"
    results.write_text("".join(json.dumps(line) + "\n" for line in records()))
    words = ["estimate", "prorl_v2", "--scale", "h100x8", *(word for one in SMALL for word in ("--set", one))]
    told = CliRunner().invoke(app, [*words, "--from", str(results)])
    assert told.exit_code == 0, told.output
    assert f"constants: updates, refit, generation as {results} measured them" in told.stdout
    assert "of 800 TFLOP/s" in told.stdout
    short = results.read_text().replace("update_mfu", "mfu")
    results.write_text(short)
    refused = CliRunner().invoke(app, [*words, "--from", str(results)])
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1) and "lacks 'update_mfu'" in refused.stderr
    on_cpu = CliRunner().invoke(app, ["estimate", "prorl_v2", "--scale", "cpu", "--from", str(results)])
    assert (on_cpu.exit_code, on_cpu.stderr.count("\n")) == (2, 1) and "has none" in on_cpu.stderr
