"""Activations are made again where a backward pass needs them, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from megatron_rl import device
from megatron_rl.runtime import parallel
from tests.actor.test_layouts import RECIPE_CHANGES, some_groups
from tests.models import make_folder, make_run
from tests.ranks import run_ranks

CASES = ("recomputes_activations", "recomputes_mlp")


def recomputations(folder: str) -> dict[str, list[int]]:
    """Runs on one rank: how often Megatron remembered what to make again, in passes of each kind and in an update."""
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel import random

    from megatron_rl.actor.actor import Actor
    from megatron_rl.actor.pack import pack

    count, forward = 0, random.CheckpointFunction.forward

    def counted(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        return forward(*arguments)

    random.CheckpointFunction.forward = staticmethod(counted)
    found: dict[str, list[int]] = {}
    for case in CASES:
        run = make_run(folder, recipe=RECIPE_CHANGES, **{case: True})
        hardware = device.select(run.scale)
        ranks = parallel.start(run.scale, hardware, 60)
        actor = Actor(run, ranks, hardware)
        batch = pack(some_groups(), ranks, run.recipe.algorithm, actor.limits)
        counts = found[case] = []
        view = actor.logprobs(batch, run.recipe)
        counts.append(count)
        batch = batch.with_logprobs(old=view.logprobs, reference=actor.reference_logprobs(batch, run.recipe))
        counts.append(count - sum(counts))
        batch = batch.with_advantages(torch.randn(batch.groups.rewards.shape))
        for packs in batch.updates:
            actor.update(packs, run.recipe, 0)
            counts.append(count - sum(counts))
        counts.append(sum(len(packs) for packs in batch.updates) * run.recipe.model.num_layers)
        count = 0
        parallel_state.destroy_model_parallel()
    return found


@pytest.mark.ranks
def test_only_an_update_makes_activations_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = make_folder(tmp_path_factory.mktemp("qwen2"), num_hidden_layers=2)
    (found,) = run_ranks("tests.actor.test_schedule:recomputations", 1, folder=str(folder))
    for case in CASES:
        of_policy, of_reference, *of_updates, expected = found[case]
        assert (of_policy, of_reference) == (0, 0)
        assert len(of_updates) == 2 and sum(of_updates) == expected
