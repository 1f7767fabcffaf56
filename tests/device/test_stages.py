"""What two interleaved pipeline stages send each other on a GPU is taken for what it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megatron_rl.actor.model import needs_one_length
from megatron_rl.device.cuda import cuda, transformer_options
from recipes.scales import H100X8

TWO_STAGES = dataclasses.replace(H100X8, pipeline_parallel=2, virtual_pipeline=2)
NOT_INTERLEAVED = dataclasses.replace(TWO_STAGES, virtual_pipeline=1)
FOUR_STAGES = dataclasses.replace(TWO_STAGES, pipeline_parallel=4)
Call = tuple[str, bool, str]  # isend or irecv, whether over the communicator of all ranks, what


def calls(stage: int, sends: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What one of two stages asks of NCCL, in order, when Megatron's `sends` exchanges with both neighbours."""
    found: list[Call] = []

    def asked(name: str, tensor: str, group: Any) -> None:
        found.append((name, group is torch.distributed.group.WORLD, tensor))

    replaced: dict[str, Any] = {
        "isend": lambda tensor, group, **_: asked("isend", tensor, group),
        "irecv": lambda tensor, group, **_: asked("irecv", tensor, group),
        "P2POp": lambda operation, tensor, _, group: (operation, tensor, group),
        "batch_isend_irecv": lambda operations: [one(tensor=tensor, group=group) for one, tensor, group in operations],
        "get_backend": lambda _: "nccl",
    }
    for name, function in replaced.items():
        monkeypatch.setattr(torch.distributed, name, function)
    sends(
        tensor_send_prev="gradient",
        tensor_recv_prev="activations",
        tensor_send_next="activations",
        tensor_recv_next="gradient",
        group=SimpleNamespace(size=lambda: 2, rank=lambda: stage),
        prev_pipeline_rank=1 - stage,
        next_pipeline_rank=1 - stage,
    )
    return found


def arrive_as_sent(sends: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether each stage receives what the other sends: NCCL keeps the order of two ranks' messages, and no more."""
    stages = [calls(stage, sends, monkeypatch) for stage in (0, 1)]
    return all(
        [call[1:] for call in stages[sender] if call[:2] == ("isend", over_world)]
        == [call[1:] for call in stages[1 - sender] if call[:2] == ("irecv", over_world)]
        for sender in (0, 1)
        for over_world in (False, True)
    )


def test_two_stages_send_each_message_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core.pipeline_parallel import p2p_communication

    in_a_batch, by_itself = p2p_communication._batched_p2p_ops, p2p_communication._p2p_ops
    assert not arrive_as_sent(in_a_batch, monkeypatch)  # or the options need not care any more
    assert transformer_options(TWO_STAGES)["batch_p2p_comm"] is False
    assert arrive_as_sent(by_itself, monkeypatch)
    for scale in (FOUR_STAGES, NOT_INTERLEAVED, H100X8):
        assert transformer_options(scale)["batch_p2p_comm"] is True


def test_two_interleaved_stages_have_packs_of_one_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Megatron sends lengths in a batch however it sends the rest."""
    changed: dict[str, Any] = {"is_available": True, "device_count": 1, "set_device": None, "current_device": 0}
    for name, value in changed.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setenv("LOCAL_RANK", "0")
    for scale, expected in ((TWO_STAGES, True), (NOT_INTERLEAVED, False), (FOUR_STAGES, False)):
        assert needs_one_length(scale, cuda(scale, torch.bfloat16)) is expected
