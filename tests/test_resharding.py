"""A run may change its layout on the way: the same weights and moments to the bit, the same updates but rounding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from megatron_rl import checkpoint
from tests.models import make_folder
from tests.ranks import run_ranks
from tests.samples import validated
from tests.test_checkpoint import Trained, digest

DP2 = {"devices_per_node": 2}
TP2 = {"devices_per_node": 2, "tensor_parallel": 2}
CP2 = {"devices_per_node": 2, "context_parallel": 2}
TP2_CP2 = {"devices_per_node": 4, "tensor_parallel": 2, "context_parallel": 2}
INTERLEAVED = {"devices_per_node": 2, "pipeline_parallel": 2, "virtual_pipeline": 2}
SHARDED = {"devices_per_node": 4, "tensor_parallel": 2, "pipeline_parallel": 2, "sequence_parallel": True}
ONE = {"devices_per_node": 1}
BF16 = {"precision": "bf16"}
RECIPE = {
    "algorithm.reference_reset.target": "best_checkpoint",
    "optimizer.epsilon": 1e-5,  # as in tests/actor/test_layouts.py
}
MOMENTS = ("main", "exp_avg", "exp_avg_sq")


def journeys(legs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs on every rank: each leg in turn: a run on a layout, from a checkpoint if there is one, then two steps."""
    from megatron.core import parallel_state

    found = []
    for leg in legs:
        one = Trained(leg["folder"], leg["directory"], recipe=RECIPE, **leg["scale"])
        one.state = checkpoint.resume(one.run, one.actor, one.prompts)
        if one.state.step == 0:
            one.step()
            one.actor.keep_if_best(validated(one.state))
            one.step()
        facts = holdings(one)
        one.run = dataclasses.replace(one.run, directory=Path(leg["to"]))
        one.save()
        for _ in range(2):
            one.step()
        found.append(facts | {"updates": [dataclasses.asdict(update) for update in one.updates[-4:]]})
        parallel_state.destroy_model_parallel()
    return found


def holdings(one: Trained) -> dict[str, Any]:
    """Digests of all that a run holds, as whole tensors; found without the code that reshards."""
    actor = one.actor
    reference, best = (dict(zip(parameters(one), held, strict=True)) for held in (actor.reference, actor.best))
    return {
        "step": one.state.step,
        "position": one.prompts.position,
        "weights": whole(one, lambda parameter: parameter.data),
        "reference": whole(one, lambda parameter: reference[parameter]),
        "best": whole(one, lambda parameter: best[parameter]),
        "counts": sorted({float(values["step"]) for values in torch_state(one).values()}),
        **{name: whole(one, lambda parameter, name=name: moment(one, parameter, name)) for name in MOMENTS},
        "tied_copies": tied_copies(one),
    }


def parameters(one: Trained) -> list[Tensor]:
    return [parameter for chunk in one.actor.chunks for parameter in chunk.parameters()]


def whole(one: Trained, of: Callable[[Any], Tensor]) -> dict[str, str]:
    return {name: digest(tensor.contiguous()) for name, tensor in one.actor.weights(of)}


def torch_state(one: Trained) -> dict[Tensor, dict[str, Tensor]]:
    (part,) = one.actor.optimizer.chained_optimizers
    return part.optimizer.state


def moment(one: Trained, parameter: Tensor, name: str) -> Tensor:
    """A moment of all of a parameter's shard, summed over the ranks with equal weights: each its range, else zeros."""
    from megatron.core import parallel_state

    (part,) = one.actor.optimizer.chained_optimizers
    flat = torch.zeros(parameter.numel())
    if parameter in part.model_param_group_index_map:
        group, order = part.model_param_group_index_map[parameter]
        main = part.optimizer.param_groups[group]["params"][order]
        own = part._get_model_param_range_map(parameter)["param"]
        flat[own.start : own.end] = main.detach() if name == "main" else part.optimizer.state[main][name]
    dist.all_reduce(flat, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
    return flat.view(parameter.shape)


def tied_copies(one: Trained) -> list[dict[str, str]]:
    """What the last stage holds of tied embeddings, shard by shard."""
    return [
        {name: digest(moment(one, parameter, name)) for name in MOMENTS} | {"weights": digest(parameter.detach())}
        for entry, parameter in zip(one.actor.entries, parameters(one), strict=True)
        if "embed_tokens" in entry.hugging_face[0]
    ]


@pytest.fixture(scope="module")
def travelled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Leg of a journey -> what each rank found. A leg goes on from where the one before it in its journey saved.

    Legs on as many ranks share their processes.
    """
    runs = tmp_path_factory.mktemp("runs")
    tied, untied = (
        str(make_folder(tmp_path_factory.mktemp(f"tied_{tied}"), tied=tied, hidden_size=64)) for tied in (True, False)
    )
    legs: dict[int, dict[str, dict[str, Any]]] = {2: {}, 4: {}, 1: {}}
    for journey, (folder, scales) in {
        "tied": (tied, {"start": DP2, "sharded": SHARDED, "one process": ONE}),
        "untied": (untied, {"start": DP2, "interleaved": INTERLEAVED}),
        "context": (untied, {"start": CP2, "shared by none": DP2, "sharded": TP2_CP2}),
        "bf16": (untied, {"start": DP2 | BF16, "tensor parallel": TP2 | BF16}),
    }.items():
        directory = runs / journey
        for name, scale in scales.items():
            leg = {"folder": folder, "scale": scale, "directory": str(directory), "to": str(directory / name)}
            legs[scale["devices_per_node"]][f"{journey} {name}"] = leg
            directory /= name
    found: dict[str, list[dict[str, Any]]] = {}
    for num_ranks, mine in legs.items():
        everyone = run_ranks("tests.test_resharding:journeys", num_ranks, legs=list(mine.values()))
        found |= {leg: [rank[number] for rank in everyone] for number, leg in enumerate(mine)}
    return found


LEGS = ("tied sharded", "tied one process", "untied interleaved", "context shared by none", "context sharded")
WHOLE = ("step", "position", "weights", "reference", "best", "counts", *MOMENTS)


@pytest.mark.ranks
@pytest.mark.parametrize("leg", [*LEGS, "bf16 tensor parallel"])
def test_another_layout_goes_on_with_the_same_bits(travelled: dict[str, list[dict[str, Any]]], leg: str) -> None:
    start, *_ = travelled[f"{leg.split()[0]} start"]
    assert start["step"] == 2 and start["counts"] == [4.0] and start["position"] == 10
    digests = [start[name] for name in ("weights", "reference", "best", *MOMENTS)]
    are_equal = not leg.startswith("bf16")  # the weights and the optimizer's own copy of them
    assert len({str(digest) for digest in digests}) == len(digests) - are_equal
    for rank in travelled[leg]:
        assert {name: rank[name] for name in WHOLE} == {name: start[name] for name in WHOLE}


@pytest.mark.ranks
@pytest.mark.parametrize("leg", LEGS)
def test_updates_on_another_layout_are_those_of_the_run_that_did_not_change(
    travelled: dict[str, list[dict[str, Any]]], leg: str
) -> None:
    start, *_ = travelled[f"{leg.split()[0]} start"]
    for rank in travelled[leg]:
        assert len(rank["updates"]) == 4
        for expected, found in zip(start["updates"], rank["updates"], strict=True):
            assert found["num_tokens"] == expected["num_tokens"]
            assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5, abs=1e-7)
            assert found["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-5)


@pytest.mark.ranks
def test_both_copies_of_tied_embeddings_get_the_same_moments(travelled: dict[str, list[dict[str, Any]]]) -> None:
    first_stage, last_stage = travelled["tied sharded"][:2], travelled["tied sharded"][2:]
    for first, last in zip(first_stage, last_stage, strict=True):
        assert len(first["tied_copies"]) == 1
        assert first["tied_copies"] == last["tied_copies"]
    assert [len(rank["tied_copies"]) for rank in travelled["untied interleaved"]] == [1, 0]
