"""Samples for tests that need no engine."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

from megatron_rl.types import Sample


def sample_of(token_ids: Sequence[int], logprobs: Sequence[float], *, is_cut: bool = False, version: int = 0) -> Sample:
    return Sample(
        token_ids=array("i", token_ids),
        logprobs=array("f", logprobs),
        finish_reason="length" if is_cut else "stop",
        policy_version=version,
    )


def by_row(groups: Mapping[int, Sequence[Sample]]) -> dict[int, Sample]:
    """Row of the [G x N] table -> sample."""
    return {group * len(made) + j: sample for group, made in groups.items() for j, sample in enumerate(made)}
