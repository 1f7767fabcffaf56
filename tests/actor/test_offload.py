"""What the actor sends to the host while the engine generates comes back to the bit, and was really gone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megatron_rl import device
from megatron_rl.actor.offload import Offload
from megatron_rl.runtime import parallel
from recipes.scales import CPU
from tests.actor.test_layouts import RECIPE_CHANGES, some_groups
from tests.actor.test_optimizer import copied, differing
from tests.models import make_folder, make_run
from tests.ranks import run_ranks

BEST = {"algorithm.reference_reset.target": "best_checkpoint"}
CASES = [("fp32", "gradients"), ("fp32", "optimizer"), ("fp32", "weights"), ("bf16", "optimizer"), ("bf16", "weights")]


def facts(folder: str, cases: list[tuple[str, str]]) -> dict[str, Any]:
    return {" ".join(case): journey(folder, *case) for case in cases}


def journey(folder: str, precision: str, offloads: Any) -> dict[str, Any]:
    """Runs on every rank: an actor whose memory leaves between two updates, beside one whose memory stays."""
    from megatron.core import parallel_state

    from megatron_rl.actor.actor import Actor
    from megatron_rl.actor.pack import pack

    run = make_run(folder, recipe=RECIPE_CHANGES | BEST, precision=precision, offloads=offloads, devices_per_node=2)
    stays_at_home = dataclasses.replace(run, scale=dataclasses.replace(run.scale, offloads="nothing"))
    hardware = device.select(run.scale)
    ranks = parallel.start(run.scale, hardware, 60)
    actors = [Actor(which, ranks, hardware) for which in (run, stays_at_home)]
    batch = pack(some_groups(num_engines=2, engine=ranks.rank), ranks, run.recipe.algorithm, actors[0].limits)
    view = actors[0].logprobs(batch, run.recipe)
    batch = batch.with_logprobs(old=view.logprobs, reference=actors[0].reference_logprobs(batch, run.recipe))
    generator = torch.Generator().manual_seed(1)
    batch = batch.with_advantages(torch.randn(batch.groups.rewards.shape, generator=generator))

    def train(actor: Any) -> list[Any]:
        return [dataclasses.asdict(actor.update(packs, run.recipe, 0)) for packs in batch.updates]

    for actor in actors:
        train(actor)
    traveller, resting = actors
    held, before = bytes_held(traveller), copied(traveller.state())
    found: dict[str, Any] = {"held": held, "away": [], "differing": []}
    for _ in range(2):  # the second time the host buffers are there already
        traveller.offload.leave()
        traveller.offload.leave_weights()
        found["away"].append(bytes_held(traveller))
        traveller.best = None if offloads == "gradients" else traveller._copy_of_weights()
        traveller.offload.come_back()
        found["back"] = bytes_held(traveller)
        found["differing"] += differing(before["weights"], traveller.state()["weights"])
        found["differing"] += differing(before["optimizer"], copied(traveller.state())["optimizer"])
    found["best_differs"] = differing(before["weights"], traveller.best) if traveller.best is not None else []
    traveller.best = traveller._copy_of_weights()
    resting.best = resting._copy_of_weights()
    found["updates_differ"] = train(traveller) != train(resting)
    found["onward_differs"] = differing(copied(traveller.state()), copied(resting.state()))
    parallel_state.destroy_model_parallel()
    return found


def bytes_held(actor: Any) -> dict[str, int]:
    """Bytes of the storages of each part, found without the code that sends them away."""

    def total(tensors: list[Any]) -> int:
        return sum({id(t): t.untyped_storage().nbytes() for t in tensors}.values())

    inner = [part.optimizer for part in getattr(actor.optimizer, "chained_optimizers", [actor.optimizer])]
    moments = [t for one in inner for state in one.state.values() for name, t in state.items() if name != "step"]
    weights = [parameter for chunk in actor.chunks for parameter in chunk.parameters()]
    return {
        "gradients": total([parameter.main_grad for parameter in weights]),
        "optimizer": total(moments),
        "weights": total([parameter.data for parameter in weights]),
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = make_folder(tmp_path_factory.mktemp("qwen2"), num_hidden_layers=2)
    return run_ranks("tests.actor.test_offload:facts", 2, folder=str(folder), cases=CASES)


@pytest.mark.ranks
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_all_comes_back_to_the_bit_and_trains_on_as_if_it_had_stayed(found: Any, case: tuple[str, str]) -> None:
    for result in (rank[" ".join(case)] for rank in found):
        assert result["differing"] == [] and result["best_differs"] == []
        assert not result["updates_differ"] and result["onward_differs"] == []


@pytest.mark.ranks
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_what_is_away_takes_no_memory_and_the_rest_stays(found: Any, case: tuple[str, str]) -> None:
    leaving = ("gradients", "optimizer", "weights")[: ("gradients", "optimizer", "weights").index(case[1]) + 1]
    for result in (rank[" ".join(case)] for rank in found):
        assert all(result["held"].values()) and result["back"] == result["held"]
        expected = {part: 0 if part in leaving else size for part, size in result["held"].items()}
        assert result["away"] == [expected, expected]


@pytest.mark.parametrize("offloads", ["nothing", "gradients"])
def test_copies_of_the_weights_in_fp8_leave_whatever_else_stays(offloads: Any) -> None:
    """They lie where a layer of Transformer Engine 2.16 has them."""
    layer = torch.nn.Linear(2, 2)
    layer._fp8_workspaces = {"weight": torch.ones(4, dtype=torch.uint8)}  # type: ignore[assignment]
    chunk = torch.nn.Sequential(torch.nn.Sequential(layer), torch.nn.Linear(2, 2))
    chunk.buffers = []  # type: ignore[assignment]  # of gradients, as Megatron's wrapper has them
    scale = dataclasses.replace(CPU, offloads=offloads)
    Offload(scale, device.select(scale), [chunk], SimpleNamespace(chained_optimizers=[])).leave()
    assert layer._fp8_workspaces == {}
