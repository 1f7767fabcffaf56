"""ProRL v1, v2, then BroRL, its control and DLER from one parent on the real engines, killed in the middle."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_rl.config.lineage import read_parent
from tests.test_end_to_end import ROOT, alive_after, descendants, repeatable, steps

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

RECIPES = ("prorl_v1", "prorl_v2_after_v1", "brorl", "brorl_control_n16", "dler")
FOLDERS = tuple(f"{number}_{name}" for number, name in enumerate(RECIPES, start=1))
NUM_STEPS = (8, 4, 1, 2, 1)  # of 2,000, 1,000, 191, 535 and 300
SETTINGS = {
    "scale.miniature.schedule_divisor": 250,
    "sampling.prompts_per_step": 4,
    "sampling.max_response_tokens": 12,
    "scale.caps.samples_per_prompt": 8,
    "algorithm.updates_per_step": 2,
    "run.validate_every_steps": 100,  # before the first step and after the last
    "run.max_validation_prompts": 8,
    "run.save_every_steps": 3,
}


def start(directory: Path) -> subprocess.Popen[bytes]:
    words = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    with directory.with_suffix(".log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "megatron_rl", "campaign", *RECIPES, "--scale", "cpu", "--directory", str(directory)]
            + words,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(directory: Path) -> Path:
    process = start(directory)
    try:
        assert process.wait(600) == 0, directory.with_suffix(".log").read_text()[-3000:]
    finally:
        if process.poll() is None:
            process.kill()  # its run dies with it
            process.wait()
    return directory


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp("campaigns") / "whole")


@pytest.fixture(scope="module")
def killed(whole: Path) -> Path:
    """The same campaign, killed in its second run after a step that is not saved, and started again."""
    directory = whole.with_name("killed")
    process, second = start(directory), directory / FOLDERS[1]
    deadline = time.monotonic() + 400
    while not (second.is_dir() and steps(second)):
        assert process.poll() is None and time.monotonic() < deadline, directory.with_suffix(".log").read_text()[-3000:]
        time.sleep(0.05)
    below = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    assert alive_after(below, 20) == []
    assert 1 <= len(steps(second)) < NUM_STEPS[1]
    assert not (directory / FOLDERS[2]).exists()
    return finish(directory)


def test_three_recipes_go_on_from_one_parent(whole: Path) -> None:
    parents = [read_parent(whole / folder)[0] for folder in FOLDERS]
    assert [parent.release.split()[0] for parent in parents] == list(RECIPES)
    assert [len(steps(whole / folder)) for folder in FOLDERS] == list(NUM_STEPS)
    assert [parent.parent for parent in parents] == [None, parents[0], parents[1], parents[1], parents[1]]
    shared = read_parent(whole / FOLDERS[1])[1]
    for folder in FOLDERS[2:]:
        facts = json.loads((whole / folder / "run.json").read_text())["run"]
        assert facts["model_folder"] == str(shared)


def test_a_killed_campaign_comes_to_the_same_bits(whole: Path, killed: Path) -> None:
    for folder in FOLDERS:
        assert repeatable(killed / folder) == repeatable(whole / folder), folder
        digests = [
            hashlib.sha256((read_parent(place / folder)[1] / "model.safetensors").read_bytes()).hexdigest()
            for place in (whole, killed)
        ]
        assert digests[0] == digests[1], folder
        assert read_parent(killed / folder)[0] == read_parent(whole / folder)[0]
    attempts = [len(json.loads((killed / folder / "run.json").read_text())["attempts"]) for folder in FOLDERS]
    assert attempts == [1, 2, 1, 1, 1]


def test_the_campaign_has_a_page_of_all_its_runs(whole: Path) -> None:
    text = (whole / "comparison.html").read_text()
    assert "<h2>Final scores</h2>" in text and "values of the recipe differ" in text
    for folder in FOLDERS:
        assert f"<td >{folder}</td>" in text


def test_dler_pays_a_truncated_response_nothing(whole: Path) -> None:
    (row,) = steps(whole / FOLDERS[4])
    assert row["rollout/truncated_fraction"] > 0
    assert row["rollout/reward_shaped_mean"] <= row["rollout/reward_mean"]
