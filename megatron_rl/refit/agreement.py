"""Agreement: the actor and the rollout engine must give the same tokens the same log-probabilities.

They are asked before the first step is spent, at a start and after a resume; from then on every step's mismatch says
so. What makes them differ trains wrongly in silence: weights that were mixed up on their way, or are old; a field of
config.json that one of them reads otherwise; a kernel that computes something else.

Not covered: what both have wrong alike, and what differs by less than rounding in bf16 does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from megatron_rl.actor.actor import Actor
from megatron_rl.actor.pack import pack
from megatron_rl.config.checks import UserError
from megatron_rl.config.records import Recipe
from megatron_rl.refit.phase import rollout_phase
from megatron_rl.rollout.engine import Engine
from megatron_rl.runtime import parallel
from megatron_rl.runtime.log import get_logger
from megatron_rl.types import Groups, PolicyView, Prompt, Request, Sample

PROMPTS_PER_ENGINE, SAMPLES_PER_PROMPT, MAX_TOKENS = 2, 2, 16


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Mean |actor - rollout log-probability| in nats: beyond `warns` a human should look, beyond `ends` a run ends."""

    warns: float
    ends: float


# In fp32 1e-6 is usual, in fp16 a few 1e-3, in bf16 a few 1e-2.
BOUNDS = {
    torch.float32: Bounds(warns=1e-5, ends=1e-4),
    torch.float16: Bounds(warns=0.02, ends=0.1),
    torch.bfloat16: Bounds(warns=0.1, ends=0.3),
}
REMEDY = "they compute different things, and what is sampled is not what is trained; see docs/cluster.md, section 7"


def check_start(actor: Actor, engine: Engine, prompts: Sequence[Prompt], recipe: Recipe, step: int) -> None:
    """Asks every engine for a few samples, and the actor for their log-probabilities. Collective over the world.

    Leaves nothing behind but the engine's weights, as policy version `step`. Raises UserError on every rank where an
    engine's mean lies beyond the bound.
    """
    ranks, num_engines = actor.ranks, actor.ranks.world // actor.ranks.engine_size
    chosen = extremes(prompts, PROMPTS_PER_ENGINE * num_engines)
    mine = range(ranks.engine, len(chosen), num_engines)
    with rollout_phase(actor, engine, step):
        made = engine.generate(
            [Request(prompt=chosen[i], seed=i << 16, num_samples=SAMPLES_PER_PROMPT) for i in mine],
            max_response_tokens=min(MAX_TOKENS, recipe.sampling.max_response_tokens),
            temperature=recipe.sampling.temperature,
            top_p=recipe.sampling.top_p,
        )
    groups = _groups(chosen, dict(zip(mine, made, strict=True)), num_engines, step)
    one_update = replace(recipe.algorithm, updates_per_step=1)
    batch = pack(groups, ranks, one_update, actor.limits)
    actor.settle_scaling(batch, recipe)
    view = actor.logprobs(batch, recipe)
    sums = torch.zeros(num_engines, dtype=torch.float64)
    for part, logprobs in zip(batch.packs, view.logprobs, strict=True):
        if logprobs is not None and ranks.counts_tokens:
            gaps = (logprobs.cpu() - part.rollout_logprobs.cpu()).abs() * (part.response_mask.cpu() > 0)
            sums.index_add_(0, groups.owners.flatten()[part.sequences.cpu()], gaps.double())
    tokens = torch.zeros(num_engines, dtype=torch.float64)
    tokens.index_add_(0, groups.owners.flatten(), groups.lengths.flatten().double())
    means = parallel.total(sums) / tokens
    worst, bounds = int(means.nan_to_num(torch.inf).argmax()), BOUNDS[actor.device.dtype]
    found = (
        f"mean |actor - rollout log-probability| {float(means[worst]):.2g} nats, largest {view.mismatch_max_nats:.2g}, "
        f"over {int(tokens[worst])} tokens of {PROMPTS_PER_ENGINE} prompts"
    )
    if not means[worst] <= bounds.ends:
        raise UserError(
            f"actor and rollout engine {worst} do not agree: {found}; the bound is {bounds.ends:g}; {REMEDY}"
        )
    if ranks.is_main:
        get_logger().info("actor and rollout engines agree: %s in the worst of %d", found, num_engines)
        _warn(float(means[worst]), bounds, "at the start")


def check_step(actor: Actor, policy: PolicyView, step: int) -> None:
    """Looks at a step's mismatch. Raises RuntimeError, on every rank, where it lies beyond the bound."""
    bounds, gap = BOUNDS[actor.device.dtype], policy.mismatch_mean_nats
    if not gap <= bounds.ends:
        raise RuntimeError(
            f"step {step}: actor and rollout engine do not agree: mean |actor - rollout log-probability| {gap:.2g} "
            f"nats, the bound is {bounds.ends:g}; {REMEDY}"
        )
    if actor.ranks.is_main:
        _warn(gap, bounds, f"in step {step}")


def _warn(gap: float, bounds: Bounds, when: str) -> None:
    if gap > bounds.warns:
        get_logger().warning(
            "actor and rollout engine are %.2g nats apart %s, and more than %g is not usual; a run ends beyond %g",
            gap, when, bounds.warns, bounds.ends,
        )  # fmt: skip


def extremes(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """So many prompts, the longest and the shortest in turn; over again where there are fewer."""
    by_length = sorted(prompts, key=lambda prompt: len(prompt.token_ids))
    in_turn = [by_length[~(i // 2)] if i % 2 == 0 else by_length[i // 2] for i in range(len(by_length))]
    return [in_turn[i % len(in_turn)] for i in range(count)]


def _groups(prompts: Sequence[Prompt], made: dict[int, tuple[Sample, ...]], num_engines: int, version: int) -> Groups:
    """The samples as a step's groups, of which every rank knows the lengths. Collective over the world."""
    everyone = parallel.gather({i: [len(sample.token_ids) for sample in group] for i, group in made.items()})
    lengths = {i: row for part in everyone for i, row in part.items()}
    columns = Groups.tables(
        SAMPLES_PER_PROMPT,
        lengths=[length for i in range(len(prompts)) for length in lengths[i]],
        owners=[i % num_engines for i in range(len(prompts)) for _ in range(SAMPLES_PER_PROMPT)],
    )
    return Groups(
        **columns,
        prompts=tuple(prompts),
        samples={i * SAMPLES_PER_PROMPT + j: sample for i, group in made.items() for j, sample in enumerate(group)},
        policy_version=version,
    )
