"""The first update of a step is its own witness: its forward pass is the pass that it saves, to the bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from megatron_rl import device
from megatron_rl.config.records import Correction, Kl
from megatron_rl.runtime import parallel
from tests.actor.test_layouts import some_groups
from tests.models import make_folder, make_run
from tests.ranks import run_ranks

COMMON = {
    "sampling.temperature": 0.8,
    "algorithm.correction": Correction(method="truncate", low=0.03, high=0.12),
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "dp2": {},
    "tp2": {"tensor_parallel": 2},
    "pp2": {"pipeline_parallel": 2},
    "small_microbatches": {"max_tokens_per_microbatch": 96},
}
IN_REWARD = Kl(estimator="k1", coefficient=0.2, log_ratio_clamp=0.4, value_clamp=None, place="reward")


def steps(folder: str) -> dict[str, Any]:
    """Runs on every rank: a step with and without the saved pass, on each layout, of one update and of two."""
    from megatron.core import parallel_state

    found: dict[str, Any] = {}
    for name, layout in LAYOUTS.items():
        for num_updates in (1, 2):
            found[f"{name} {num_updates}"] = both_ways(folder, num_updates, layout)
            parallel_state.destroy_model_parallel()
    return found


def both_ways(folder: str, num_updates: int, layout: dict[str, Any]) -> dict[str, Any]:
    """One step by the pass over the whole batch, and one by the saving way, on actors of the same weights."""
    from megatron_rl.actor.actor import Actor
    from megatron_rl.actor.pack import pack

    run = make_run(folder, recipe=COMMON | {"algorithm.updates_per_step": num_updates}, devices_per_node=2, **layout)
    hardware = device.select(run.scale)
    ranks = parallel.start(run.scale, hardware, 60)
    results: dict[str, Any] = {}
    for saves in (False, True):
        actor = Actor(run, ranks, hardware)
        groups = some_groups(num_engines=ranks.world, engine=ranks.rank)
        batch = pack(groups, ranks, run.recipe.algorithm, actor.limits)
        policy = actor.old_logprobs(batch, run.recipe) if saves else actor.logprobs(batch, run.recipe)
        is_known = [view is not None for view in policy.logprobs]
        reference = [None if view is None else view - 0.1 for view in actor.logprobs(batch, run.recipe).logprobs]
        batch = batch.with_logprobs(old=policy.logprobs, reference=reference)
        batch = batch.with_advantages(torch.randn(8, 6, generator=torch.Generator().manual_seed(1)))
        updates = [actor.update(packs, run.recipe, 0) for packs in batch.updates]
        policy = policy.with_own(updates)
        kl = dataclasses.replace(
            run.recipe, algorithm=dataclasses.replace(run.recipe.algorithm, kl=IN_REWARD, correction=None)
        )
        results["saved" if saves else "whole"] = {
            "view": [getattr(policy, field.name) for field in dataclasses.fields(policy) if field.name != "logprobs"],
            "updates": [
                {
                    key: value
                    for key, value in dataclasses.asdict(update).items()
                    if key != "policy" and value is not None
                }
                for update in updates
            ],
            "weights": {name: tensor.double().flatten().tolist() for name, tensor in actor.stream()},
            "is_known": is_known,
            "is_known_for_reward": [view is not None for view in actor.old_logprobs(batch, kl).logprobs],
            "num_first": len(batch.updates[0]),
            "has_loss": ranks.has_loss,
        }
    return results


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = make_folder(tmp_path_factory.mktemp("qwen2"), "qwen2", False)
    return run_ranks("tests.actor.test_first_update:steps", 2, folder=str(folder))


@pytest.mark.ranks
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_step_of_one_update_has_the_same_bits_without_a_pass_before_it(
    layout: str, found: list[dict[str, Any]]
) -> None:
    for rank in found:
        ways = rank[f"{layout} 1"]
        for what in ("updates", "weights", "view"):
            assert ways["saved"][what] == ways["whole"][what], what
        assert (
            ways["saved"]["updates"][0]["ratio_mean"] == 1.0 and ways["saved"]["updates"][0]["correction_fraction"] > 0
        )
        assert not any(ways["saved"]["is_known"])


@pytest.mark.ranks
@pytest.mark.parametrize("layout", LAYOUTS)
def test_later_updates_have_the_log_probabilities_of_the_weights_a_step_began_with(
    layout: str, found: list[dict[str, Any]]
) -> None:
    for rank in found:
        saved, whole = rank[f"{layout} 2"]["saved"], rank[f"{layout} 2"]["whole"]
        first = saved["num_first"]
        assert not any(saved["is_known"][:first])
        assert saved["is_known"][first:] == [saved["has_loss"]] * (len(saved["is_known"]) - first) != []
        assert saved["view"] == pytest.approx(whole["view"], rel=1e-4, abs=1e-7)
        assert saved["view"][0] == whole["view"][0]
        for ours, theirs in zip(saved["updates"], whole["updates"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-7)
        assert saved["updates"][1]["ratio_mean"] != 1.0  # the second update meets weights that have moved
        for name, values in whole["weights"].items():
            assert saved["weights"][name] == pytest.approx(values, rel=1e-4, abs=1e-6)


@pytest.mark.ranks
def test_a_kl_in_the_reward_needs_them_all_before(found: list[dict[str, Any]]) -> None:
    for rank in found:
        for ways in rank.values():
            assert all(known == ways["saved"]["has_loss"] for known in ways["saved"]["is_known_for_reward"])
