"""A reset makes the reference the current policy or the best there was, as the recipe says, to the bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_rl import device
from megatron_rl.runtime import parallel
from megatron_rl.types import State
from tests.actor.test_layouts import some_groups
from tests.actor.test_optimizer import copied, off_policy
from tests.models import make_folder, make_run
from tests.ranks import run_ranks
from tests.samples import validated

RECIPE = {
    "algorithm.updates_per_step": 1,
    "optimizer.learning_rate": 1e-3,
    "algorithm.reference_reset.target": "best_checkpoint",
}


def facts(folder: str) -> dict[str, Any]:
    """Runs on one rank: which policy the reference is after each kind of reset."""
    from megatron_rl.actor.actor import Actor
    from megatron_rl.actor.pack import pack

    run = make_run(folder, recipe=RECIPE)
    hardware = device.select(run.scale)
    ranks = parallel.start(run.scale, hardware, 60)
    actor = Actor(run, ranks, hardware)
    batch = off_policy(actor, pack(some_groups(), ranks, run.recipe.algorithm, actor.limits), run.recipe)
    reset = run.recipe.algorithm.reference_reset
    assert reset is not None
    policies = {"start": copied(actor.state())["weights"]}
    found: dict[str, Any] = {}

    def train(name: str, step: int) -> None:
        actor.update(batch.updates[0], run.recipe, step)
        policies[name] = copied(actor.state())["weights"]

    def reference(which: Any = actor) -> list[str]:
        kept = which.state()["reference"]
        return [name for name, weights in policies.items() if all(map(torch.equal, kept, weights))]

    train("better", 0)
    actor.reset_reference(run.recipe)
    found["before any validation was best"] = reference()
    actor.keep_if_best(validated(State.fresh()))
    train("worse", 1)
    saved = copied(actor.state())
    actor.reset_reference(run.recipe)
    found["best"] = reference()
    train("worst", 2)
    actor.reset_reference(run.recipe)
    found["best again"] = reference()

    copies: list[torch.Tensor] = []

    def host_copy(tensor: torch.Tensor) -> torch.Tensor:
        copies.append(tensor.clone())
        return copies[-1]

    resumed = Actor(run, ranks, dataclasses.replace(hardware, host_copy=host_copy))
    resumed.load_state(saved)
    kept = [weight for name in ("reference", "best") for weight in resumed.state()[name]]
    found["resumed from elsewhere"] = sum(all(weight is not copy for copy in copies) for weight in kept)
    resumed.reset_reference(run.recipe)
    found["resumed"] = reference(resumed)

    current = make_run(folder, recipe=RECIPE | {"algorithm.reference_reset.target": "current"})
    other = Actor(current, ranks, hardware)
    other.load_state(saved | {"best": None})
    other.keep_if_best(validated(State.fresh()))
    other.reset_reference(current.recipe)
    found["current"], found["current keeps"] = reference(other), other.state()["best"]
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = make_folder(tmp_path_factory.mktemp("qwen2"))
    (facts,) = run_ranks("tests.actor.test_best_policy:facts", 1, folder=str(folder))
    return facts


@pytest.mark.ranks
def test_the_best_policy_becomes_the_reference_however_often(found: dict[str, Any]) -> None:
    assert found["before any validation was best"] == ["start"]
    assert found["best"] == found["best again"] == ["better"]


@pytest.mark.ranks
def test_what_a_resumed_actor_keeps_lies_where_the_device_copies_it_from_at_full_speed(found: dict[str, Any]) -> None:
    assert found["resumed from elsewhere"] == 0


@pytest.mark.ranks
def test_the_best_policy_outlives_the_process(found: dict[str, Any]) -> None:
    assert found["resumed"] == ["better"]


@pytest.mark.ranks
def test_a_recipe_that_resets_to_the_current_policy_keeps_no_other(found: dict[str, Any]) -> None:
    assert found["current"] == ["worse"]
    assert found["current keeps"] is None
