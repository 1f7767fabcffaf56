"""A transfer on bare tensors: the same bits as on arrays, by real collectives, in two buckets and no other memory."""

from __future__ import annotations

import dataclasses
import os
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from megatron_rl.actor import slices
from megatron_rl.refit import plan
from megatron_rl.refit.plan import Layout
from megatron_rl.refit.transfer import Transfer
from tests.ranks import run_ranks
from tests.refit.test_plan import FAMILIES, megatron_of, vllm_of

ONE = Layout(tensor_parallel=1, pipeline_parallel=1, virtual_pipeline=1, replicas=1, rollout_tensor_parallel=1)
PAIRS = {
    "tp2_pp2_to_tp4": dataclasses.replace(ONE, tensor_parallel=2, pipeline_parallel=2, rollout_tensor_parallel=4),
    "tp4_to_1": dataclasses.replace(ONE, tensor_parallel=4),
    "pp4_to_tp2": dataclasses.replace(ONE, pipeline_parallel=4, rollout_tensor_parallel=2),
}
BUCKET_BYTES = 1024


def transfer(layout: Layout, rank: int, dtype: torch.dtype, group: Any = None) -> tuple[Transfer, dict[str, Tensor]]:
    """A transfer of a tied Qwen3 between new tensors, and what its targets must hold."""
    model = FAMILIES["qwen3"]
    keys = {names[0]: names for _, names in slices.parameters_of(model)}
    what = plan.make(model, layout, rank, BUCKET_BYTES // dtype.itemsize)
    degree, tensor = layout.tensor_parallel, rank % layout.tensor_parallel
    sources = {name: torch.tensor(megatron_of(model, keys[name], degree, tensor)).to(dtype) for name in what.sources}
    targets = {name: torch.full(shape, torch.nan, dtype=dtype) for name, shape in what.targets.items()}
    degree = layout.rollout_tensor_parallel
    expected = {name: torch.tensor(array).to(dtype) for name, array in vllm_of(model, degree, rank % degree).items()}
    return Transfer(what, sources, targets, group, BUCKET_BYTES), expected


def differing(one: Transfer, expected: dict[str, Tensor]) -> list[str]:
    return [name for name, tensor in expected.items() if not torch.equal(tensor, one.targets[name])]


def move_memory(one: Transfer) -> None:
    for tensor in (*one.sources.values(), *one.targets.values()):
        tensor.data = tensor.clone()  # as an offload does


class Memory(TorchDispatchMode):
    """Counts the bytes of tensors that are made, views of others left out."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.known, self.taken = {tensor.untyped_storage().data_ptr() for tensor in known}, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in self.known:
            self.taken += result.nbytes
        return result


def bare() -> dict[str, Any]:
    """Runs on every rank: each pair in each precision, then a slice that is spoilt on its way."""
    rank, found = int(os.environ["RANK"]), {}
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    for name, layout in PAIRS.items():
        for dtype in (torch.float32, torch.bfloat16):
            one, expected = transfer(layout, rank, dtype, dist.group.WORLD)
            with Memory([*one.sources.values(), *one.targets.values()]) as memory:
                one.run()
            facts = {"differ": differing(one, expected), "trouble": one.verify(), "taken": memory.taken}
            facts["buckets"] = [bucket.nbytes for bucket in one.buckets]
            facts["rounds"] = len(one.plan.rounds)
            received = next(moves for moves in one.plan.rounds[0].receives if moves)
            move = min(received, key=lambda move: move.target)  # the first to be named
            one.targets[move.target][move.copy.row, move.copy.column] *= -1
            facts |= {"spoilt": one.verify(), "target": move.target}
            move_memory(one)
            one.run()
            facts["moved"] = differing(one, expected)
            found[f"{name} {dtype}"] = facts
    return found


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    return run_ranks("tests.refit.test_transfer:bare", 4)


@pytest.mark.ranks
@pytest.mark.parametrize("dtype", ["torch.float32", "torch.bfloat16"])
@pytest.mark.parametrize("name", PAIRS)
def test_slices_arrive_over_gloo_in_two_buckets(found: list[dict[str, Any]], name: str, dtype: str) -> None:
    for rank in found:
        facts = rank[f"{name} {dtype}"]
        assert facts["differ"] == [] and facts["trouble"] is None
        assert facts["rounds"] > 2
        assert 0 < sum(facts["buckets"]) <= 2 * BUCKET_BYTES
        assert facts["taken"] == 0
        assert facts["moved"] == []


@pytest.mark.ranks
def test_a_slice_that_did_not_arrive_as_it_was_sent_is_named(found: list[dict[str, Any]]) -> None:
    for facts in (facts for rank in found for facts in rank.values()):
        assert "did not arrive as it was" in facts["spoilt"] and facts["target"] in facts["spoilt"]


def test_a_parameter_that_was_given_other_memory_is_followed() -> None:
    one, expected = transfer(ONE, 0, torch.float32)
    move_memory(one)
    one.run()
    assert differing(one, expected) == [] and one.verify() is None


def test_a_target_that_does_not_hold_its_source_is_named() -> None:
    one, _ = transfer(ONE, 0, torch.bfloat16)
    one.run()
    one.targets["model.layers.1.mlp.gate_up_proj.weight"][3, 2] *= -1
    assert one.verify() == (
        "refit: vLLM's parameter model.layers.1.mlp.gate_up_proj.weight does not hold what was copied into it"
    )


def test_a_target_may_be_in_another_precision() -> None:
    one, expected = transfer(ONE, 0, torch.float32)
    targets = {name: tensor.half() for name, tensor in one.targets.items()}
    other = Transfer(one.plan, one.sources, targets, None, BUCKET_BYTES)
    other.run()
    assert differing(other, {name: tensor.half() for name, tensor in expected.items()}) == []


def test_padding_is_made_zero_again_whatever_the_memory_held() -> None:
    one, expected = transfer(ONE, 0, torch.float32)
    for _ in range(2):
        one.targets["model.embed_tokens.weight"].fill_(torch.nan)
        one.run()
        assert differing(one, expected) == []
