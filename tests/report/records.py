"""Records of a step that did not happen, for the report's tests."""

from __future__ import annotations

from collections.abc import Sequence

from megatron_rl.types import Batch, Collected, Groups, PolicyView, Prompt, Update
from tests.samples import groups_of

POLICY = PolicyView(
    logprobs=[], num_tokens=8, entropy_nats=0.7, mismatch_mean_nats=1e-7, mismatch_max_nats=2e-6, mismatch_kl_nats=1e-9
)


def groups(
    *,
    rewards: list[list[float]],
    domains: Sequence[str],
    judged: list[list[bool]] | None = None,
    lengths: list[list[int]] | None = None,
    truncated: list[list[bool]] | None = None,
) -> Groups:
    rows = [reward for row in rewards for reward in row]
    given = {"lengths": lengths or [[5] * len(row) for row in rewards], "truncated": truncated}
    return groups_of(
        [
            Prompt(serial=i, id=f"{domain}-{i}", domain=domain, token_ids=(1, 2), opens_thought=False, item={})
            for i, domain in enumerate(domains)
        ],
        {},
        len(rewards[0]),
        rewards=rows,
        outcomes=[int(not is_judged) for row in judged for is_judged in row] if judged else [0] * len(rows),
        verifier_seconds=[0.5] * len(rows),
        **{name: [value for row in table for value in row] for name, table in given.items() if table},
    )


def collected() -> Collected:
    tried = groups(rewards=[[1.0, 0.0], [1.0, 1.0], [0.0, 0.5]], domains=["math", "math", "logic"])
    return Collected(
        groups=tried.take([0, 2]), tried=tried, rounds=1, keep_rate=1.0, idle_tails=(0.0, 3.0), prefix_hits=0.5
    )


def batch() -> Batch:
    """What was trained on of `collected`."""
    kept = collected().groups
    return Batch(groups=kept, updates=(), advantages=kept.rewards - kept.rewards.mean(1, keepdim=True))


def update(num_tokens: int = 20, loss: float = 0.1, norm: float = 1.0) -> Update:
    return Update(
        num_tokens=num_tokens,
        loss=loss,
        gradient_norm=norm,
        learning_rate=1e-6,
        clip_low_fraction=0.01,
        clip_high_fraction=0.02,
        clip_dual_fraction=0.0,
        ratio_mean=1.0,
        kl_reference=0.001,
        correction_fraction=0.0,
    )


def step_row(step: int, reward: float = 0.5, *, is_reset: bool = False, is_on: bool = False) -> dict[str, float]:
    """A journal line with what the display and the page read."""
    return {
        "step": step,
        "run/samples_count": 256.0 * step,
        "rollout/reward_mean": reward,
        "rollout/response_tokens_mean": 9.5,
        "dynamic_sampling/keep_rate": 0.5,
        "actor/entropy_nats": 0.7,
        "actor/kl_reference_nats": 0.001,
        "mismatch/mean_nats": 1e-7,
        "mismatch/max_nats": 1e-6,
        "reference/reset": float(is_reset),
        "length_term/is_on": float(is_on),
        "time/step_seconds": 2.0,
        "time/generate_seconds": 1.5,
        "time/other_seconds": 0.5,
        "throughput/samples_per_second": 128.0,
    }


def validation_row(step: int, accuracy: float) -> dict[str, float]:
    found = {"validation/accuracy": accuracy, "validation/accuracy/math": accuracy, "validation/unjudged_fraction": 0.0}
    return {"step": step, **found}
