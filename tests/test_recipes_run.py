"""Every recipe on the real engines, its schedule shortened: what it decides on the way, with the reason, and why."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_rl.config.lineage import read_parent
from recipes.prorl_v1 import RECIPE as PRORL_V1
from tests.test_end_to_end import ROOT, Row, Training, finished, repeatable, steps, training

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

NUM_STEPS = 8
KEEPS_ALL = {"run.save_every_steps": 3, "run.checkpoints_kept": 10, "run.max_validation_prompts": 20}
RESET = "algorithm.reference_reset"
# ProRL v1's 2,000 steps as 8: each of its eight runs is a step long.
STAGED = KEEPS_ALL | {
    "scale.miniature.schedule_divisor": 250,
    "scale.caps.samples_per_prompt": 32,
    "sampling.max_response_tokens": 12,  # Run 8 still has the cap's 24
    "sampling.prompts_per_step": 4,
    "run.validate_every_steps": 1,
    f"{RESET}.stall.patience_validations": 1,
    f"{RESET}.stall.min_gain": 1,  # no gain is one
    f"{RESET}.stall.drop": 2,  # no fall is one
    f"{RESET}.target": "best_checkpoint",
}
PERIODIC = KEEPS_ALL | {
    "scale.miniature.schedule_divisor": 100,  # a reset every 3 steps, the length term 1 step on and 5 off
    "num_steps": NUM_STEPS,
    "run.validate_every_steps": 100,
    f"{RESET}.kl_spike": "none",
    f"{RESET}.stall": "none",
}
SPIKED = KEEPS_ALL | {
    "num_steps": 3,
    "run.validate_every_steps": 100,
    f"{RESET}.period_steps": "none",
    f"{RESET}.stall": "none",
    f"{RESET}.min_steps_between": 1,
    f"{RESET}.kl_spike.ratio": 1.01,  # the first steps leave the reference, so that their KL grows
    f"{RESET}.kl_spike.window_steps": 1,
    f"{RESET}.kl_spike.min_history_steps": 1,
}
THREE_STEPS = KEEPS_ALL | {"num_steps": 3, "run.validate_every_steps": 100}


def decisions(directory: Path) -> dict[int, list[str]]:
    """Step -> what it decided."""
    return {row["step"]: row["decisions"] for row in steps(directory) if "decisions" in row}


def saved(directory: Path, step: int) -> dict[str, Any]:
    """The first rank's part of a checkpoint."""
    state: dict[str, Any] = torch.load(
        directory / "checkpoints" / f"step_{step:06d}" / "rank_00000.pt", weights_only=True
    )
    return state


def policy_digest(directory: Path, step: int) -> str:
    manifest = json.loads((directory / "checkpoints" / f"step_{step:06d}" / "manifest.json").read_text())
    return str(manifest["state"]["policy_digest"])


def resolved(directory: Path) -> Row:
    """What run.json says of the run, without where and when it ran."""
    facts: Row = json.loads((directory / "run.json").read_text())
    return {name: value for name, value in facts.items() if name != "attempts"} | {
        "run": facts["run"] | {"directory": None}
    }


def moments(state: dict[str, Any]) -> list[Any]:
    return [moment for part in state["optimizer"] for moment in part["moments"]["state"].values()]


def are_equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture(scope="module")
def data(runs: Path) -> Path:
    """A few of the demo's problems, and as many instructions, which ProRL v1 adds in its third run."""
    folder = runs / "data"
    folder.mkdir()
    demo = ROOT / "demo" / "data"
    (folder / "validation.jsonl").write_text((demo / "validation.jsonl").read_text())
    lines = (demo / "train.jsonl").read_text().splitlines()
    item = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    lines = lines[:60] + lines[-60:]
    lines += [
        json.dumps({"id": f"say-{i}", "domain": "instruct", "prompt": f"say {i:02d}", "item": item}) for i in range(60)
    ]
    (folder / "train.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def staged(runs: Path, data: Path) -> Path:
    return finished(runs / "staged", recipe="prorl_v1", **STAGED, **{"run.data_folder": data}).directory


@pytest.fixture(scope="module")
def killed(runs: Path, data: Path) -> Path:
    """The same run, killed between two checkpoints and started again."""
    directory, settings = runs / "killed", STAGED | {"run.data_folder": data}
    with training(directory, recipe="prorl_v1", **settings) as run:
        run.wait_for_step(4)
        os.killpg(run.process.pid, signal.SIGKILL)
        run.wait(60)
    assert 4 <= len(steps(directory)) < 6, "the run was not stopped between two checkpoints"
    return finished(directory, recipe="prorl_v1", **settings).directory


@pytest.fixture(scope="module")
def periodic(runs: Path) -> Path:
    return finished(runs / "periodic", **PERIODIC).directory


@pytest.fixture(scope="module")
def continued(runs: Path, periodic: Path) -> Training:
    return finished(runs / "continued", recipe="brorl", parent=periodic, **THREE_STEPS)


def test_every_stage_begins_where_the_shortened_schedule_says_with_its_reason(staged: Path) -> None:
    assert len(steps(staged)) == NUM_STEPS == len(PRORL_V1.stages)
    for number, stage in enumerate(PRORL_V1.stages):
        assert decisions(staged)[number + 1][0] == f"stage from step {number}: {stage.why}"


def test_a_stage_s_reset_and_a_stalled_validation_s_are_decided_and_clear_the_optimizer(staged: Path) -> None:
    """A stage's reset comes before its first step; validation has stalled once it was seen twice without a gain."""
    found = {step: lines[1:] for step, lines in decisions(staged).items() if lines[1:]}
    why = {step: stage.why for step, stage in enumerate(PRORL_V1.stages) if stage.resets_reference}
    assert list(why) == [1, 5, 6]
    assert list(found) == [1, 3, 5, 6, 8]
    for step, (line,) in found.items():
        reason = f"stage: {why[step]}" if step in why else "validation stalled: 1 validations without a gain of 1 over "
        assert line.startswith(f"reference reset, optimizer cleared: {reason}")
    assert [row["reference/reset"] for row in steps(staged)] == [1, 0, 1, 0, 1, 1, 0, 1]


@pytest.mark.parametrize("step", [3, 6])  # a stall's, a stage's
def test_after_a_hard_reset_the_optimizer_has_no_moments_and_the_reference_is_the_best_policy(
    staged: Path, step: int
) -> None:
    state = saved(staged, step)
    assert moments(state) == []
    assert are_equal(state["reference"], state["best"])
    assert not are_equal(state["reference"], state["weights"])


def test_a_stage_brings_its_domain_its_samples_and_its_length(staged: Path) -> None:
    found = steps(staged)
    assert not any("rollout/reward_mean/instruct" in row for row in found[:2])
    assert any("rollout/reward_mean/instruct" in row for row in found[2:])
    counts = [0.0] + [row["run/samples_count"] for row in found]
    per_prompt = [
        (late - early) / row["dynamic_sampling/tried_count"]
        for early, late, row in zip(counts, counts[1:], found, strict=False)
    ]
    assert per_prompt == [16, 16, 16, 16, 16, 32, 32, 16]
    assert [row["rollout/response_tokens_max"] <= 12 for row in found] == [True] * 7 + [False]


def test_responses_that_do_not_stop_are_there_to_be_punished(staged: Path) -> None:
    punished = steps(staged)[3:]
    assert PRORL_V1.at_step(771).algorithm.truncation is not None
    assert any(row["rollout/truncated_fraction"] > 0 for row in punished)


def test_a_killed_run_decides_the_same_again(staged: Path, killed: Path) -> None:
    attempts = json.loads((killed / "run.json").read_text())["attempts"]
    assert [attempt["from_step"] for attempt in attempts] == [0, 3]
    assert decisions(killed) == decisions(staged)
    assert repeatable(killed) == repeatable(staged)
    assert resolved(killed) == resolved(staged)
    assert len({policy_digest(staged, step) for step in (3, 6, 8)}) == 3
    for step in (3, 6, 8):
        assert policy_digest(killed, step) == policy_digest(staged, step)


def test_a_periodic_reset_keeps_the_optimizer_and_takes_the_current_policy(periodic: Path) -> None:
    lines = [line for found in decisions(periodic).values() for line in found if line.startswith("reference")]
    kept = "reference reset, optimizer kept: period: 3 steps since step"
    assert lines == [f"{kept} 0", f"{kept} 3"]
    assert [step for step, found in decisions(periodic).items() if found[-1] in lines] == [3, 6]
    state = saved(periodic, 3)
    assert moments(state) != []
    assert are_equal(state["reference"], state["weights"])
    assert steps(periodic)[3]["actor/kl_reference_nats"] < steps(periodic)[2]["actor/kl_reference_nats"]


def test_the_length_term_is_on_for_a_step_and_off_for_five(periodic: Path) -> None:
    assert [row["length_term/is_on"] for row in steps(periodic)] == [0, 0, 0, 0, 0, 1, 0, 0]
    phases = {step: found[0] for step, found in decisions(periodic).items() if found[0].startswith("length")}
    turns = "1 steps on and 5 off in turn"
    assert phases == {step: f"length term {how}: {turns}" for step, how in ((1, "off"), (6, "on"), (7, "off"))}


def test_uniform_groups_are_replaced_until_the_step_is_full(periodic: Path) -> None:
    refilled = [row for row in steps(periodic) if row["dynamic_sampling/rounds_count"] > 1]
    assert refilled
    for row in refilled:
        assert row["dynamic_sampling/tried_count"] > row["dynamic_sampling/trained_count"] == 6


def test_a_spike_of_the_kl_resets_the_reference(runs: Path) -> None:
    directory = finished(runs / "spiked", **SPIKED).directory
    (line,) = [line for found in decisions(directory).values() for line in found if line.startswith("reference")]
    assert line.startswith("reference reset, optimizer kept: KL spike: ")
    first, second, third = (row["actor/kl_reference_nats"] for row in steps(directory))
    assert f"{second:.4g} nats is {second / first:.4g} times the median of 1 steps, {first:.4g}" in line
    assert third < second


def test_brorl_goes_on_from_a_prorl_v2(periodic: Path, continued: Training) -> None:
    directory = continued.directory
    assert len(steps(directory)) == 3
    older, folder = read_parent(periodic)
    parent, _ = read_parent(directory)
    assert [one.release for one in parent.ancestors] == ["brorl 1.1.0", "prorl_v2 2.1.0"]
    assert parent.parent == older
    assert (older.step, older.policy_digest) == (NUM_STEPS, policy_digest(periodic, NUM_STEPS))
    facts = json.loads((directory / "run.json").read_text())["run"]
    assert facts["model_folder"] == str(folder)
    # Its first policy is its parent's last one, and so is its reference.
    assert steps(directory)[0]["actor/kl_reference_nats"] < 1e-3


def test_the_control_trains_without_reference_or_dynamic_sampling(runs: Path) -> None:
    directory = finished(runs / "control", recipe="grpo_control", **THREE_STEPS).directory
    assert len(steps(directory)) == 3
    assert decisions(directory) == {}
    for row in steps(directory):
        assert row["actor/kl_reference_nats"] == 0
        assert row["dynamic_sampling/rounds_count"] == 1
        assert row["dynamic_sampling/tried_count"] == row["dynamic_sampling/trained_count"] == 6
    assert saved(directory, 3)["reference"] is None
