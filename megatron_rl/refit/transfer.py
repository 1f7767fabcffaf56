"""The actor's current weights into the rollout engine: slices copied and exchanged in place, by a plan made once.

What a rank has itself it copies straight into vLLM's parameters; the rest goes through two buckets, one that is sent
and one that is received. They are kept from one refit to the next: on a CPU the first touch of new memory takes as long
as several copies into it. The parameters stay where they are, so that CUDA graphs stay valid.

Not covered by `verify`: a plan that is wrong, which both ends follow alike; refit/agreement.py finds that.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_rl.actor.actor import Actor
from megatron_rl.actor.slices import Copy
from megatron_rl.refit import plan
from megatron_rl.refit.plan import Layout, Move, Plan
from megatron_rl.refit.stream import shown, stream
from megatron_rl.rollout.engine import Engine
from megatron_rl.runtime import parallel
from megatron_rl.runtime.spans import span

BUCKET_BYTES = 16 * 1024**2  # a rank sends, and receives, at most so much at once
Tensors = Mapping[str, Tensor]


@span("refit")
def refit(actor: Actor, engine: Engine, version: int) -> None:
    """Makes the engine hold the actor's weights, as policy `version`. Collective over the world.

    The first refit of a pair makes the plan and is verified. Raises RuntimeError, on every rank, for a parameter of
    either engine that the plan does not know, misses or has in another shape, and for a slice that did not arrive.
    """
    if engine.version == version:
        return
    if engine.is_quantized:
        stream(actor, engine, version)
        return
    known = _known.get(engine)
    if known is None or known[0] is not actor:
        known = _known[engine] = actor, _transfer(actor, engine)
        known[1].run()
        parallel.raise_together(known[1].verify())
    else:
        known[1].run()
    engine.holds(version)


_known: WeakKeyDictionary[Engine, tuple[Actor, Transfer]] = WeakKeyDictionary()


def _transfer(actor: Actor, engine: Engine) -> Transfer:
    from megatron.core import parallel_state

    ranks = actor.ranks
    layout = Layout(
        tensor_parallel=ranks.tensor_parallel,
        pipeline_parallel=ranks.pipeline_parallel,
        virtual_pipeline=len(actor.chunks),
        replicas=ranks.world // (ranks.tensor_parallel * ranks.pipeline_parallel),
        rollout_tensor_parallel=ranks.engine_size,
    )
    sources = [(entry.hugging_face[0], weight) for entry, weight in actor.named_weights()]
    targets = list(engine.targets().items())
    what = plan.make(actor.model, layout, ranks.rank, BUCKET_BYTES // actor.device.dtype.itemsize)
    parallel.raise_together(difference("Megatron", sources, what.sources) or difference("vLLM", targets, what.targets))
    group = parallel_state.get_model_parallel_group()
    return Transfer(what, dict(sources), dict(targets), group, BUCKET_BYTES)


def difference(owner: str, found: Iterable[tuple[str, Tensor]], planned: Mapping[str, tuple[int, int]]) -> str | None:
    """What an engine's parameters on this rank have, lack, or have twice or otherwise than the plan; None if nothing.

    Rows and columns are compared; a vector is a matrix of one column.
    """
    missing = dict(planned)
    for name, tensor in found:
        if name not in missing:
            return f"refit: {owner}'s parameter {name} is {'there twice' if name in planned else 'not in the plan'}"
        shape = (tensor.shape[0], tensor.shape[1] if tensor.dim() > 1 else 1)
        if shape != missing.pop(name):
            return f"refit: {owner}'s parameter {name} is {shape[0]} x {shape[1]}, the plan says {planned[name]}"
    if missing:
        return f"refit: {owner} lacks {len(missing)} parameters of the plan: {shown(missing)}"
    return None


class Transfer:
    """A plan with the tensors it is about: owns the buckets.

    `targets` may be vLLM's own parameters or tensors from which it makes them; their precision may be another.
    `run` and `verify` are collective over `group`, the ranks of the plan's replica.
    """

    def __init__(self, what: Plan, sources: Tensors, targets: Tensors, group: Any, bucket_bytes: int) -> None:
        self.plan, self.sources, self.targets, self.group = what, sources, targets, group
        self.first = next(iter(sources.values()))
        assert all(tensor.dtype == self.first.dtype for tensor in sources.values()), "weights of several precisions"
        sizes = [[sum(map(_elements, ends)) for ends in (now.sends, now.receives)] for now in what.rounds]
        self.buckets = [
            torch.empty(max((size[end] for size in sizes), default=0), dtype=self.first.dtype, device=self.first.device)
            for end in (0, 1)
        ]
        assert all(bucket.nbytes <= bucket_bytes for bucket in self.buckets), "the plan was made for other buckets"
        self._resolve()

    @property
    def bytes_received(self) -> int:
        """What this rank gets from others in a refit."""
        return sum(_elements(moves) for now in self.plan.rounds for moves in now.receives) * self.first.itemsize

    @torch.no_grad()
    def run(self) -> None:
        """Fills the targets."""
        if self._places() != self.places:  # parameters were offloaded, or given other memory
            self._resolve()
        _copy(*self.local)
        if self.zeros:
            torch._foreach_zero_(self.zeros)
        for sent, received in self.rounds:
            _copy(sent.in_bucket, sent.in_tensors)
            dist.all_to_all_single(received.bytes, sent.bytes, received.sizes, sent.sizes, group=self.group)
            _copy(received.in_tensors, received.in_bucket)

    @torch.no_grad()
    def verify(self) -> str | None:
        """What is wrong with the targets after `run`: other bits than were sent, or than lie in this rank's sources.

        Of targets in another precision nothing can be said.
        """
        if any(tensor.dtype != self.first.dtype for tensor in self.targets.values()):
            return None
        sums: list[list[list[int]]] = []
        for ends in self.rounds:
            for end in ends:
                _copy(end.in_bucket, end.in_tensors)
            sums.append([end.checksums() for end in ends])
        everyone: list[Any] = [[sent for sent, _ in sums]]
        if sums:
            everyone *= len(self.plan.replica)
            dist.all_gather_object(everyone, everyone[0], group=self.group)
        for move, target, source in zip(self.plan.local, *self.local, strict=True):
            if not torch.equal(_bits(target), _bits(source)):
                return f"refit: vLLM's parameter {move.target} does not hold what was copied into it"
        for number, (_, received) in enumerate(sums):
            for sender, checksum in enumerate(received):
                if everyone[sender][number][self.group.rank()] != checksum:
                    names = {move.target for move in self.plan.rounds[number].receives[sender]}
                    return f"refit: what rank {self.plan.replica[sender]} sent did not arrive as it was: {shown(names)}"
        return None

    def _resolve(self) -> None:
        """Finds where each box lies: from then on a refit is copies alone."""
        self.places = self._places()
        moves = self.plan.local
        self.local = [self._target(move) for move in moves], [self._source(move) for move in moves]
        self.zeros = [
            _view(self.targets[name], Copy(0, 0, box.row, box.column, box.rows, box.columns), is_source=False)
            for name, box in self.plan.zeros
        ]
        self.rounds = [
            (_End(now.sends, self.buckets[0], self._source), _End(now.receives, self.buckets[1], self._target))
            for now in self.plan.rounds
        ]

    def _places(self) -> list[int]:
        return [tensor.data_ptr() for tensors in (self.sources, self.targets) for tensor in tensors.values()]

    def _source(self, move: Move) -> Tensor:
        return _view(self.sources[move.source], move.copy, is_source=True)

    def _target(self, move: Move) -> Tensor:
        return _view(self.targets[move.target], move.copy, is_source=False)


class _End:
    """One bucket in one round: what lies in it for each member of the replica, and where that comes from or goes."""

    def __init__(self, ends: Sequence[Sequence[Move]], bucket: Tensor, of: Callable[[Move], Tensor]) -> None:
        self.in_tensors = [of(move) for moves in ends for move in moves]
        starts = itertools.accumulate((tensor.numel() for tensor in self.in_tensors), initial=0)
        self.in_bucket = [
            bucket[start : start + tensor.numel()].view(tensor.shape)
            for start, tensor in zip(starts, self.in_tensors, strict=False)
        ]
        self.sizes = [_elements(moves) * bucket.itemsize for moves in ends]
        self.bytes = bucket.view(torch.uint8)[: sum(self.sizes)]

    def checksums(self) -> list[int]:
        """Of what lies in the bucket for each member."""
        parts = self.bytes.split(self.sizes)
        return [zlib.crc32(part.cpu().numpy()) for part in parts]


def _elements(moves: Iterable[Move]) -> int:
    return sum(move.copy.elements for move in moves)


def _copy(into: list[Tensor], of: list[Tensor]) -> None:
    if into:
        torch._foreach_copy_(into, of)


def _view(tensor: Tensor, copy: Copy, *, is_source: bool) -> Tensor:
    """The boxes of a copy in one of its tensors: [rows, columns], or [repeats, rows, columns]."""
    row, column, step = (
        (copy.source_row, copy.source_column, copy.source_step) if is_source else (copy.row, copy.column, copy.step)
    )
    below, beside = (*tensor.stride(), 1)[:2]
    offset = tensor.storage_offset() + row * below + column * beside
    size, strides = (copy.rows, copy.columns), (below, beside)
    if copy.repeats > 1:
        size, strides = (copy.repeats, *size), (step * below, *strides)
    return tensor.detach().as_strided(size, strides, offset)


def _bits(tensor: Tensor) -> Tensor:
    """The same memory as integers, so that one NaN equals another of the same bits."""
    return tensor.view({1: torch.uint8, 2: torch.int16, 4: torch.int32}[tensor.itemsize])
