"""Examples: the few samples of a step that a person can read, chosen before anything of the step is dropped.

Which they are follows from the run's seed, the step, the domain and the prompts tried, and from nothing that was
generated: a step that is done again has the same ones, on any layout.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from megatron_rl.types import OUTCOMES, Example, Groups, Prompt


def chosen(
    prompts: Sequence[Prompt], samples_per_prompt: int, *, seed: int, step: int, per_domain: int
) -> dict[int, tuple[int, int]]:
    """Row of the [G x N] table -> its place in the order of choice, of the first `per_domain` samples of each domain.

    One sample of each prompt comes before a second of any.

    >>> prompts = [Prompt(serial=i, id="", domain="math", token_ids=(), opens_thought=False, item={}) for i in range(9)]
    >>> sorted(chosen(prompts, 4, seed=1, step=3, per_domain=2))
    [12, 29]
    """
    candidates = defaultdict(list)
    for index, prompt in enumerate(prompts):
        drawn = _number(seed, step, prompt.domain, prompt.serial)
        for turn in range(min(per_domain, samples_per_prompt)):
            row = index * samples_per_prompt + (drawn + turn) % samples_per_prompt
            candidates[prompt.domain].append(((turn, drawn), row))
    return {row: order for found in candidates.values() for order, row in sorted(found)[:per_domain]}


def _number(*parts: Any) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")


def examples_of(
    groups: Groups, orders: Mapping[int, tuple[int, int]], texts: Mapping[int, tuple[str, str]], tokenizer: Any
) -> list[Example]:
    """The chosen rows of the groups with their texts: response and the verdict's detail."""
    N, found = groups.rewards.shape[1], []
    for row, order in orders.items():
        group, sample = divmod(row, N)
        response, detail = texts[row]
        found.append(
            Example(
                order=order,
                prompt=groups.prompts[group],
                prompt_text=tokenizer.decode(list(groups.prompts[group].token_ids)),
                sample=sample,
                response=response,
                detail=detail,
                reward=float(groups.rewards[group, sample]),
                outcome=OUTCOMES[int(groups.outcomes[group, sample])],
                num_tokens=int(groups.lengths[group, sample]),
                is_truncated=bool(groups.truncated[group, sample]),
                policy_version=groups.policy_version,
            )
        )
    return found


def first_of(examples: Iterable[Example], per_domain: int) -> tuple[Example, ...]:
    """The first `per_domain` of each domain in the order of choice, over all rounds of a step."""
    by_domain = defaultdict(list)
    for example in examples:
        by_domain[example.prompt.domain].append(example)
    return tuple(
        example
        for _, found in sorted(by_domain.items())
        for example in sorted(found, key=lambda one: one.order)[:per_domain]
    )
