"""Samples for tests that need no engine."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from megatron_rl.types import Columns, Groups, Prompt, Sample, Scores, State


def sample_of(token_ids: Sequence[int], logprobs: Sequence[float], *, is_cut: bool = False, version: int = 0) -> Sample:
    return Sample(
        token_ids=array("i", token_ids),
        logprobs=array("f", logprobs),
        finish_reason="length" if is_cut else "stop",
        policy_version=version,
    )


def validated(state: State) -> State:
    """The state after a validation that was the best so far."""
    return state.with_scores(Scores(step=state.step, accuracy={"math": 0.5}))


def columns_of(num_samples: int, **values: Sequence[Any]) -> Columns:
    """The columns of samples given row by row; one not given is zeros."""
    return Columns(**Columns.tables(num_samples, **values))


def groups_of(
    prompts: Sequence[Prompt], samples: Mapping[int, Sample], num_samples: int, *, version: int = 0, **values: Any
) -> Groups:
    """Groups of these columns, given row by row; one not given is zeros."""
    return Groups(
        **Columns.tables(num_samples, **values), prompts=tuple(prompts), samples=samples, policy_version=version
    )


def by_row(groups: Mapping[int, Sequence[Sample]]) -> dict[int, Sample]:
    """Row of the [G x N] table -> sample."""
    return {group * len(made) + j: sample for group, made in groups.items() for j, sample in enumerate(made)}
