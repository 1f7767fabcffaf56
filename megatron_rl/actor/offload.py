"""The actor's memory while the engine generates: parts of it go to host buffers, which are kept from time to time.

A part leaves by its storage, so that all tensors that share it, and everybody who holds one of them, find their values
again in the same place. Of the gradients nothing is kept: an update begins by clearing them. The weights' copies in FP8
leave in any case, for they are made anew anyway.

Not covered: a storage that somebody else resizes, and tensors of the actor that are in use by a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from megatron_rl.actor import optimizer, precision
from megatron_rl.config.records import Scale
from megatron_rl.device import Device
from megatron_rl.runtime.spans import span

PARTS = ("gradients", "optimizer", "weights")  # in the order that they may leave in; each leaves with those before it


class Offload:
    """What a rank's actor has sent to host memory. Not collective."""

    def __init__(self, scale: Scale, device: Device, chunks: Sequence[Any], of: Any) -> None:
        self.device, self.chunks, self.optimizer = device, chunks, of
        self.parts = PARTS[: PARTS.index(scale.offloads) + 1] if scale.offloads != "nothing" else ()
        self.weights_on_host: list[Tensor] | None = None  # while they are away: the parameters' values, in order
        self._buffers: dict[str, list[Tensor]] = {}  # of each part, one per storage; pinned where the device has a bus
        self._away: dict[str, list[tuple[torch.UntypedStorage, int]]] = {}  # part -> storages with their bytes

    def leave(self) -> None:
        """Sends away what the refit does not need: FP8 copies, gradients and optimizer."""
        precision.drop_quantized(self.chunks)
        if not self.parts:
            return
        with span("refit"):
            for part in ("gradients", "optimizer"):
                self._send(part)

    def leave_weights(self) -> None:
        """Sends away the weights, which the refit has read."""
        if "weights" not in self.parts:
            return
        with span("refit"):
            self._leave_weights()

    def _leave_weights(self) -> None:
        parameters = _parameters(self.chunks)
        self._send("weights")
        number = {storage._cdata: i for i, (storage, _) in enumerate(self._away["weights"])}
        self.weights_on_host = [
            _like(parameter, self._buffers["weights"][number[parameter.untyped_storage()._cdata]])
            for parameter in parameters
        ]
        self.device.release_memory()

    def come_back(self) -> None:
        """Brings back all that is away."""
        if not self._away:
            return
        with span("refit"):
            self._bring_back()

    def _bring_back(self) -> None:
        for part, storages in self._away.items():
            for place, (storage, num_bytes) in enumerate(storages):
                storage.resize_(num_bytes)
                here = _bytes(storage, self.device.torch_device)
                if part == "gradients":
                    here.zero_()
                else:
                    here.copy_(self._buffers[part][place], non_blocking=True)
        self._away, self.weights_on_host = {}, None

    def _send(self, part: str) -> None:
        if part not in self.parts:
            return
        storages = self._storages(part)
        kept = self._buffers.setdefault(part, [])
        for place, (storage, num_bytes) in enumerate(storages):
            if part != "gradients":
                if place == len(kept):
                    kept.append(self.device.host_buffer(num_bytes))
                assert kept[place].numel() == num_bytes, f"a storage of the {part} has another size than last time"
                kept[place].copy_(_bytes(storage, self.device.torch_device))
            storage.resize_(0)
        self._away[part] = storages

    def _storages(self, part: str) -> list[tuple[torch.UntypedStorage, int]]:
        """The storages of a part with their bytes, each once; in fp32 the optimizer's parameters are the weights."""
        weights = _parameters(self.chunks)
        if part == "weights":
            return _distinct(weights, except_for=())
        if part == "gradients":
            return _distinct((buffer.grad_data for chunk in self.chunks for buffer in chunk.buffers), except_for=())
        own = (one for one in optimizer.tensors(self.optimizer) if one.device == self.device.torch_device)
        return _distinct(own, except_for=weights)


def _parameters(chunks: Sequence[Any]) -> list[Tensor]:
    return [parameter.data for chunk in chunks for parameter in chunk.parameters()]


def _distinct(tensors: Iterable[Tensor], *, except_for: Iterable[Tensor]) -> list[tuple[torch.UntypedStorage, int]]:
    excluded = {tensor.untyped_storage()._cdata for tensor in except_for}
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}
    return [(storage, storage.nbytes()) for key, storage in storages.items() if key not in excluded]


def _bytes(storage: torch.UntypedStorage, device: torch.device) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=device).set_(storage)


def _like(tensor: Tensor, buffer: Tensor) -> Tensor:
    """The values of a tensor in a copy of its storage."""
    values = torch.empty(0, dtype=tensor.dtype)
    return values.set_(buffer.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
