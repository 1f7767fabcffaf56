"""Groups into microbatches: which sequences go into which update, on which data-parallel rank, in which pack.

The plan is made from lengths alone, which every rank knows, so that all ranks make the same one without a message;
which sequences an update has does not depend on the layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_rl.algorithms.losses import loss_weights
from megatron_rl.config.context import padded_length
from megatron_rl.config.precision import token_multiple
from megatron_rl.config.records import Algorithm, Scale
from megatron_rl.runtime import parallel
from megatron_rl.runtime.parallel import Ranks
from megatron_rl.runtime.spans import span
from megatron_rl.types import Batch, Groups, Pack, Sample

TOKEN_FIELDS = (
    "token_ids",
    "targets",
    "position_ids",
    "sequences",
    "response_mask",
    "loss_weights",
    "rollout_logprobs",
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a pack must keep to."""

    max_tokens: int
    multiple: int  # its length is a multiple of this (sequence parallelism splits it, FP8 takes whole blocks)
    packs_multiple: int  # so is the number of packs (interleaved pipeline stages)
    one_length: bool  # all packs of the step are padded to one length
    context_parallel: int = 1  # ranks that share a pack: they pad each of its sequences

    def taken(self, length: int) -> int:
        """Tokens that a sequence of `length` takes of a pack's `max_tokens`."""
        return padded_length(length, self.context_parallel)

    @classmethod
    def of(cls, scale: Scale, one_length: bool) -> Limits:
        """The limits of a scale."""
        return cls(
            max_tokens=scale.max_tokens_per_microbatch,
            multiple=token_multiple(scale),
            packs_multiple=scale.pipeline_parallel if scale.virtual_pipeline > 1 else 1,
            one_length=one_length,
            context_parallel=scale.context_parallel,
        )


@span("pack")
def pack(groups: Groups, ranks: Ranks, algorithm: Algorithm, limits: Limits) -> Batch:
    """This rank's share of a step, cut into the algorithm's updates of whole, consecutive groups.

    With fewer groups than updates there are fewer updates. Samples that the verifier gave up on are left out, and so
    is an update that has no others.
    Collective over the world: tokens move from the engines that made them to the replicas that train on them.
    """
    num_samples = groups.lengths.shape[1]
    lengths = (groups.lengths + torch.tensor([len(p.token_ids) for p in groups.prompts])[:, None]).flatten().tolist()
    taken = [limits.taken(length) for length in lengths]
    judged = groups.judged.flatten().tolist()
    num_updates = min(algorithm.updates_per_step, len(groups))
    bounds = [len(groups) * i // max(num_updates, 1) for i in range(num_updates + 1)]
    plans = []  # [update][replica][pack] -> rows
    weights = []
    for first, last in zip(bounds, bounds[1:], strict=False):
        weights.append(relative_loss_weights(groups.lengths[first:last], groups.judged[first:last], algorithm))
        numbers = range(first * num_samples, last * num_samples)
        rows = sorted((row for row in numbers if judged[row]), key=lambda row: (-lengths[row], row))
        replicas = share_out(rows, taken, ranks.data_parallel)
        plans.append([fill(rows, taken, limits.max_tokens) for rows in replicas])
    replica_of = {
        row: replica for plan in plans for replica, packs in enumerate(plan) for rows in packs for row in rows
    }
    responses = _exchange(groups, replica_of, ranks)
    weight_of = torch.cat([part.flatten() for part in weights]).tolist() if weights else []
    longest = max((sum(taken[row] for row in rows) for plan in plans for packs in plan for rows in packs), default=1)
    updates = []
    for plan in (plan for plan in plans if any(plan)):
        count = max(len(packs) for packs in plan)
        count += -count % limits.packs_multiple
        mine = plan[ranks.data] + [[]] * (count - len(plan[ranks.data]))
        updates.append(
            tuple(_pack(rows, groups, weight_of, responses, limits, longest * limits.one_length) for rows in mine)
        )
    return Batch(groups=groups, updates=tuple(updates))


def relative_loss_weights(lengths: Tensor, judged: Tensor, algorithm: Algorithm) -> Tensor:
    """`loss_weights` of one update times its tokens [G, N]: 1 throughout for a token mean.

    The schedule divides the sum of an update's losses by its tokens, whatever they weigh.
    """
    return loss_weights(lengths, judged, algorithm) * (lengths * judged).sum()


def share_out(rows: list[int], lengths: list[int], num_replicas: int) -> list[list[int]]:
    """Rows, longest first, each to the replica with the fewest tokens so far.

    >>> share_out([0, 1, 2, 3], [9, 5, 4, 3], 2)
    [[0, 3], [1, 2]]
    """
    replicas: list[list[int]] = [[] for _ in range(num_replicas)]
    loads = [0] * num_replicas
    for row in rows:
        lightest = loads.index(min(loads))
        replicas[lightest].append(row)
        loads[lightest] += lengths[row]
    return replicas


def fill(rows: list[int], lengths: list[int], max_tokens: int) -> list[list[int]]:
    """Rows, longest first, into as few packs of at most `max_tokens` as first-fit finds.

    >>> fill([0, 1, 2, 3], [9, 5, 4, 3], 12)
    [[0, 3], [1, 2]]
    """
    packs: list[list[int]] = []
    room: list[int] = []
    for row in rows:
        for index, free in enumerate(room):
            if lengths[row] <= free:
                packs[index].append(row)
                room[index] -= lengths[row]
                break
        else:
            packs.append([row])
            room.append(max_tokens - lengths[row])
    return packs


def joined(packs: Sequence[Pack], limits: Limits) -> list[Pack]:
    """The same tokens in the same order, neighbours joined while they fit: for passes that need no updates' borders."""
    if limits.one_length or limits.packs_multiple > 1:
        return list(packs)
    runs: list[list[Pack]] = []
    for part in packs:
        if runs and sum(_taken(one, limits) for one in [*runs[-1], part]) <= limits.max_tokens:
            runs[-1].append(part)
        else:
            runs.append([part])
    return [_joined(run) if len(run) > 1 else run[0] for run in runs]


def _taken(part: Pack, limits: Limits) -> int:
    return sum(limits.taken(length) for length in part.cumulative_lengths.diff().tolist())


def _joined(packs: list[Pack]) -> Pack:
    lengths = torch.cat([part.cumulative_lengths.diff() for part in packs])
    return Pack(
        cumulative_lengths=torch.cat([lengths.new_zeros(1), lengths.cumsum(0, dtype=lengths.dtype)]),
        longest=max(part.longest for part in packs),
        **{name: torch.cat([getattr(part, name) for part in packs]) for name in TOKEN_FIELDS},
    )


def _exchange(groups: Groups, replica_of: dict[int, int], ranks: Ranks) -> dict[int, tuple[Tensor, Tensor]]:
    """Row -> (response tokens, rollout log-probabilities) of the rows of this rank's replica."""
    lengths, owners = groups.lengths.flatten().tolist(), groups.owners.flatten().tolist()
    rows = sorted(replica_of)

    def sender(row: int) -> int:
        return int(owners[row]) * ranks.engine_size

    outgoing = []
    mine = {row: _message(groups.samples[row]) for row in rows if sender(row) == ranks.rank}
    nothing = torch.empty(0, dtype=torch.int32)
    for receiver in range(ranks.world):
        replica = ranks.data_of(receiver)
        outgoing.append(torch.cat([nothing] + [mine[row] for row in mine if replica_of[row] == replica]))
    expected: list[list[int]] = [[] for _ in range(ranks.world)]
    for row in rows:
        if replica_of[row] == ranks.data:
            expected[sender(row)].append(row)
    received = parallel.exchange(outgoing, [2 * sum(lengths[row] for row in part) for part in expected])
    responses = {}
    for part, message in zip(expected, received, strict=True):
        for row, piece in zip(part, message.split([2 * lengths[row] for row in part]), strict=True):
            tokens, logprobs = piece.chunk(2)
            responses[row] = tokens.long(), logprobs.view(torch.float32)
    return responses


def _message(sample: Sample) -> Tensor:
    """Its tokens, then its log-probabilities as the same number of 32-bit words."""
    tokens = torch.tensor(sample.token_ids, dtype=torch.int32)
    return torch.cat([tokens, torch.tensor(sample.logprobs, dtype=torch.float32).view(torch.int32)])


def _pack(
    rows: list[int],
    groups: Groups,
    weight_of: list[float],
    responses: dict[int, tuple[Tensor, Tensor]],
    limits: Limits,
    one_length: int,
) -> Pack:
    """The rows end to end; what is missing to the required length is one more sequence of weight zero."""
    num_samples = groups.lengths.shape[1]
    tokens, mask, rollout, weights = [], [], [], []
    for row in rows:
        prompt = torch.tensor(groups.prompts[row // num_samples].token_ids)
        response, logprobs = responses[row]
        tokens.append(torch.cat([prompt, response]))
        # Position t predicts token t + 1: the first response token is predicted by the last prompt token.
        before, after = torch.zeros(len(prompt) - 1), torch.zeros(1)
        mask.append(torch.cat([before, torch.ones(len(response)), after]))
        rollout.append(torch.cat([before, logprobs, after]))
        weights.append(mask[-1] * weight_of[row])
    used = sum(limits.taken(len(part)) for part in tokens)
    padding = max(one_length - used, 0 if rows else 1)
    padding += -(used + padding) % limits.multiple
    if padding:
        tokens.append(torch.zeros(padding, dtype=torch.long))
        mask.append(torch.zeros(padding))
        rollout.append(torch.zeros(padding))
        weights.append(torch.zeros(padding))
    lengths = torch.tensor([len(part) for part in tokens])
    owners = torch.tensor(rows + [0] * bool(padding), dtype=torch.long)
    return Pack(
        token_ids=torch.cat(tokens),
        targets=torch.cat([part.roll(-1) for part in tokens]),
        position_ids=torch.cat([torch.arange(length) for length in lengths.tolist()]),
        cumulative_lengths=torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).int(),
        longest=int(lengths.max()),
        sequences=owners.repeat_interleave(lengths),
        response_mask=torch.cat(mask),
        loss_weights=torch.cat(weights),
        rollout_logprobs=torch.cat(rollout),
    )
