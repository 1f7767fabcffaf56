"""The layout of a 32B model on one machine, with a tiny one: 4 x 2 ranks hold the actor, two engines of 4 sample.

Eight processes go through refit, sampling, training, saving, a kill in the middle of a save, and the way on; a run of
one process on the same samples says what the losses must be. The width is the layout's, the rest is as small as may be.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from megatron_rl import checkpoint, device
from megatron_rl.runtime import parallel
from megatron_rl.runtime.rundir import remove_shared_memory
from tests.models import make_folder, make_run
from tests.ranks import run_ranks
from tests.refit.test_refit import trained_beside
from tests.test_checkpoint import Trained

pytestmark = [pytest.mark.ranks, pytest.mark.e2e, pytest.mark.timeout(1200)]

RANKS = 8
LAYOUT: dict[str, Any] = {
    "devices_per_node": RANKS,
    "tensor_parallel": 4,
    "pipeline_parallel": 2,
    "rollout_tensor_parallel": 4,
    "sequence_parallel": True,
    "max_tokens_per_microbatch": 512,
}
VICTIM = 5  # of the second stage
SEES_A_KILL = 400  # seconds, at most


def lived(folder: str, directory: str) -> None:
    """Runs on every rank: refits and samples, two steps, a save, two more steps; then dies in the next save."""
    from megatron.core import parallel_state

    from megatron_rl.actor.actor import Actor
    from megatron_rl.rollout.engine import Engine

    run = dataclasses.replace(make_run(folder, **LAYOUT), directory=Path(directory))
    hardware = device.select(run.scale)
    ranks = parallel.start(run.scale, hardware, SEES_A_KILL)
    engine = Engine(run, ranks, hardware)
    beside = trained_beside(engine, Actor(run, ranks, hardware), folder, num_updates=2, first_version=0)
    parallel_state.destroy_model_parallel()
    one = Trained(folder, directory, **LAYOUT)
    for _ in range(2):
        one.step()
    one.save()
    for _ in range(2):
        one.step()
    facts = one.facts() | {"beside": beside, "losses": losses(one), "engine": ranks.engine}
    (Path(directory) / f"{ranks.rank}.json").write_text(json.dumps(facts))
    parallel.barrier()  # all have written
    if ranks.rank == VICTIM:
        checkpoint.write_synced = die  # type: ignore[assignment]
    try:
        one.save()
    finally:
        os._exit(1)  # at once: engines keep threads that make an ordinary exit slow


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def went_on(folder: str, directory: str) -> dict[str, Any]:
    """Runs on every rank of new processes: from the checkpoint on, two more steps."""
    one = Trained(folder, directory, **LAYOUT)
    one.state = checkpoint.resume(one.run, one.actor, one.prompts)
    found = {"from": one.state.step}
    for _ in range(2):
        one.step()
    return found | one.facts()


def alone(folder: str, directory: str) -> list[float]:
    """Runs on one rank: the same four steps."""
    one = Trained(folder, directory, devices_per_node=1)
    for _ in range(4):
        one.step()
    return losses(one)


def losses(one: Trained) -> list[float]:
    return [update.loss for update in one.updates]


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = str(make_folder(tmp_path_factory.mktemp("qwen2"), num_key_value_heads=4, num_hidden_layers=2))
    directory = tmp_path_factory.mktemp("run")
    with pytest.raises(AssertionError, match="ranks ended with") as ending:
        run_ranks("tests.test_rehearsal:lived", RANKS, timeout_seconds=900, folder=folder, directory=str(directory))
    assert len(list(directory.glob("*.json"))) == RANKS, f"they ended before the kill: {ending.value}"
    before = [json.loads((directory / f"{rank}.json").read_text()) for rank in range(RANKS)]
    removed = remove_shared_memory(directory)
    of_ranks = [name for name in removed if "cpushm" in name]  # Python's own go by themselves, soon after the kill
    assert len(of_ranks) == RANKS, f"what each of them used with the others of its engine: {removed}"
    left = sorted(path.name for path in (directory / "checkpoints").iterdir())
    after = run_ranks(
        "tests.test_rehearsal:went_on", RANKS, timeout_seconds=600, folder=folder, directory=str(directory)
    )
    (expected,) = run_ranks("tests.test_rehearsal:alone", 1, folder=folder, directory=str(directory / "alone"))
    return {"before": before, "left": left, "after": after, "expected": expected}


def test_both_engines_hold_the_actors_bits_and_sample_what_it_computes(rehearsal: dict[str, Any]) -> None:
    assert {facts["engine"] for facts in rehearsal["before"]} == {0, 1}
    for facts in rehearsal["before"]:
        assert facts["beside"]["equal"] == [[], []]
        assert all(0 < gap < 1e-5 for gap in facts["beside"]["gaps"])


def test_the_losses_are_those_of_one_process(rehearsal: dict[str, Any]) -> None:
    for facts in rehearsal["before"]:
        assert facts["losses"] == pytest.approx(rehearsal["expected"], rel=1e-5, abs=1e-7)


def test_a_kill_in_a_save_leaves_the_checkpoint_before(rehearsal: dict[str, Any]) -> None:
    assert "step_000002" in rehearsal["left"] and "step_000004" not in rehearsal["left"]
    assert all(facts["from"] == 2 for facts in rehearsal["after"])


def test_the_run_that_goes_on_has_the_bits_of_the_one_that_was_killed(rehearsal: dict[str, Any]) -> None:
    for after, before in zip(rehearsal["after"], rehearsal["before"], strict=True):
        del after["from"]
        assert after == {name: before[name] for name in after}
