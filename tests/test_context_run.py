"""Ranks that share every sequence, on the real engines: their run is that of ranks that do not."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.test_checkpoint import digest
from tests.test_end_to_end import Row, finished, repeatable, training
from tests.test_options_run import SHORT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

LIKE = SHORT | {"scale.max_tokens_per_microbatch": 256}  # several packs an update
SHARED = LIKE | {"scale.context_parallel": 2, "num_steps": 4, "run.save_every_steps": 1}
KILLED_AFTER, LAST = 1, 4


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("context")


@pytest.fixture(scope="module")
def found(runs: Path) -> dict[str, list[Row]]:
    """Metrics of a run of two data-parallel ranks, and of one of two context-parallel ranks, which is longer."""
    alone, shared = finished(runs / "alone", **LIKE), finished(runs / "shared", **SHARED)
    assert "each over 2 context-parallel ranks" in shared.said()
    return {"alone": repeatable(alone.directory), "shared": repeatable(shared.directory)}


@pytest.fixture(scope="module")
def interrupted(runs: Path) -> dict[str, Any]:
    """The longer one again: killed after a save, gone on with to its end, and then a step further by one process."""
    directory = runs / "interrupted"
    with training(directory, **SHARED) as run:
        deadline = time.monotonic() + 300
        while not (directory / "checkpoints" / f"step_{KILLED_AFTER:06d}" / "manifest.json").exists():
            assert run.process.poll() is None and time.monotonic() < deadline, run.tail()
            time.sleep(0.01)
        os.killpg(run.process.pid, signal.SIGKILL)
        assert run.wait(60) == -signal.SIGKILL, "it was over before it could be killed"
    resumed = finished(directory, **SHARED)
    ended = {"said": resumed.said(), "metrics": repeatable(directory), "state": saved(directory)}
    longer = {"scale.context_parallel": 1, "scale.devices_per_node": 1, "num_steps": LAST + 1}
    return ended | {"longer": finished(directory, **SHARED | longer).said(), "rows": repeatable(directory)}


def saved(directory: Path) -> dict[str, str]:
    """A digest of all that each rank saved at the last step."""
    files = sorted((directory / "checkpoints" / f"step_{LAST:06d}").glob("*.pt"))
    return {file.name: digest(torch.load(file, weights_only=True)) for file in files}


def trained(rows: list[Row]) -> list[Row]:
    return [row for row in rows if "actor/loss" in row]


def test_the_first_step_is_that_of_ranks_that_share_nothing(found: dict[str, list[Row]]) -> None:
    assert found["shared"][0] == found["alone"][0], "the first validation"
    row, expected = trained(found["shared"])[0], trained(found["alone"])[0]
    assert row.keys() == expected.keys()
    for name, value in expected.items():
        if name.startswith(("actor/", "mismatch/")):
            absolute = 1e-6 if name.startswith("actor/") else 1e-5
            assert row[name] == pytest.approx(value, rel=1e-5, abs=absolute), name
        else:
            assert row[name] == value, name


def test_what_follows_is_the_same_too(found: dict[str, list[Row]]) -> None:
    shared, alone = trained(found["shared"])[:2], trained(found["alone"])
    assert [row["step"] for row in shared] == [row["step"] for row in alone] == [1, 2]
    for row, expected in zip(shared, alone, strict=True):
        for name in ("actor/loss", "actor/gradient_norm", "actor/entropy_nats", "rollout/reward_mean"):
            assert row[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), (row["step"], name)


def test_a_killed_run_of_ranks_that_share_goes_on_to_the_same_bits(
    found: dict[str, list[Row]], interrupted: dict[str, Any], runs: Path
) -> None:
    went_on = re.search(r"going on from step (\d) of 4", interrupted["said"])
    assert went_on is not None and KILLED_AFTER <= int(went_on[1]) < LAST
    assert interrupted["metrics"] == found["shared"]
    assert list(interrupted["state"]) == ["rank_00000.pt", "rank_00001.pt"]
    assert interrupted["state"] == saved(runs / "shared")


def test_it_goes_on_from_there_in_one_process(interrupted: dict[str, Any]) -> None:
    assert "was saved on another layout (num_devices: 2 -> 1)" in interrupted["longer"]
    row = trained(interrupted["rows"])[-1]
    assert row["step"] == LAST + 1 and row["actor/gradient_norm"] > 0 and row["mismatch/mean_nats"] < 1e-5
