"""Measures: the functions that turn a step's records into plain floats, by the names of report/metrics.py."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from megatron_rl.algorithms.groups import tests
from megatron_rl.algorithms.shaping import length_term_is_on, shaped_rewards
from megatron_rl.config.records import Recipe
from megatron_rl.report.metrics import Metrics, checked
from megatron_rl.types import OUTCOMES, Collected, Groups, PolicyView, Scores, State, Update

GENERATING = ("generate", "idle")  # phases that last together until the last engine has ended


def validation_metrics(scores: Scores) -> Metrics:
    """What one validation found."""
    unjudged = scores.unjudged.values()
    return checked(
        ({"validation/accuracy": scores.mean} if scores.is_complete else {})
        | {f"validation/accuracy/{domain}": value for domain, value in scores.accuracy.items()}
        | {"validation/unjudged_fraction": sum(unjudged) / max(1, len(unjudged))}
        | {f"validation/unjudged_fraction/{domain}": value for domain, value in scores.unjudged.items()}
    )


def step_metrics(
    *,
    recipe: Recipe,
    state: State,
    collected: Collected,
    policy: PolicyView,
    updates: Sequence[Update],
    phase_seconds: Mapping[str, float],
    step_seconds: float,
    verifier_timeout_seconds: float,
    num_devices: int,
    memory: Mapping[str, int],
) -> Metrics:
    """All that one step did; `state` is the one it led to, `phase_seconds` do not overlap."""
    length = recipe.algorithm.length
    return checked(
        {
            "run/samples_count": float(state.samples_seen),
            "run/tokens_count": float(state.tokens_seen),
            "rollout/idle_tail_seconds": collected.idle_tail_seconds,
            "rollout/idle_tail_seconds_max": max(collected.idle_tails, default=0.0),
            **rollout_metrics(collected.tried, recipe, state.step - 1),
            **verifier_metrics(collected.tried, verifier_timeout_seconds),
            **dynamic_sampling_metrics(collected),
            "run/idle_steps_count": float(state.idle_steps),
            **(actor_metrics(updates) | policy_metrics(policy) if any(update.num_tokens for update in updates) else {}),
            "reference/reset": float(state.last_reset == state.step),
            "length_term/is_on": float(length is not None and length_term_is_on(state.step - 1, length)),
            "time/step_seconds": step_seconds,
            **{f"time/{name}_seconds": seconds for name, seconds in phase_seconds.items()},
            "time/other_seconds": step_seconds - sum(phase_seconds.values()),
            **throughput_metrics(collected, updates, phase_seconds, step_seconds, num_devices),
            **{f"memory/{place}_bytes": float(count) for place, count in memory.items()},
        }
    )


def throughput_metrics(
    collected: Collected,
    updates: Sequence[Update],
    phase_seconds: Mapping[str, float],
    step_seconds: float,
    num_devices: int,
) -> Metrics:
    """How fast samples and response tokens were generated, trained on, and both.

    Generating lasts until the last engine has ended: what the first rank waits for it counts. What an attempt before
    has generated was not generated in this time, and what no verifier judged is not trained on.
    """
    training_seconds = step_seconds - sum(phase_seconds.get(name, 0.0) for name in ("validate", "save", "report"))
    generating, updating = (sum(phase_seconds.get(name, 0.0) for name in names) for names in (GENERATING, ("update",)))
    trained_samples, trained_tokens = int(collected.groups.judged.sum()), sum(update.num_tokens for update in updates)
    made_samples = collected.tried.rewards.numel() - collected.stored_samples
    made_tokens = int(collected.tried.lengths.sum()) - collected.stored_tokens
    made = {
        "generated_tokens_per_second": per_second(made_tokens, generating),
        "generated_samples_per_second": per_second(made_samples, generating),
        "generated_tokens_per_second_per_device": per_second(made_tokens, generating) / num_devices,
    }
    return {
        "throughput/samples_per_second": per_second(trained_samples, training_seconds),
        "throughput/tokens_per_second": per_second(trained_tokens, training_seconds),
        **{f"throughput/{name}": rate for name, rate in made.items() if made_samples},
        **({} if collected.prefix_hits is None else {"throughput/prefix_hit_fraction": collected.prefix_hits}),
        "throughput/updated_tokens_per_second": per_second(trained_tokens, updating),
        "throughput/updated_samples_per_second": per_second(trained_samples, updating),
        "throughput/updated_tokens_per_second_per_device": per_second(trained_tokens, updating) / num_devices,
    }


def domains_of(tried: Groups) -> dict[str, list[int]]:
    """Domain -> the groups that are of it."""
    domains = [prompt.domain for prompt in tried.prompts]
    return {domain: [i for i, found in enumerate(domains) if found == domain] for domain in sorted(set(domains))}


def rollout_metrics(tried: Groups, recipe: Recipe, step: int) -> Metrics:
    """Rewards and lengths of everything generated, kept or not: what the policy is like."""
    shaped = shaped_rewards(tried, recipe, step)
    found = {"rollout/unjudged_fraction": float((~tried.judged).double().mean())}
    everything = {"": list(range(len(tried)))}
    for domain, members in (everything | domains_of(tried)).items():
        judged, lengths = tried.judged[members], tried.lengths[members]
        right = judged & (tried.rewards[members] >= 1)
        named = {
            "response_tokens_mean": float(lengths.double().mean()),
            "response_tokens_median": quantile(lengths, 0.5),
            "response_tokens_p90": quantile(lengths, 0.9),
            "response_tokens_max": float(lengths.max()),
            "truncated_fraction": float(tried.truncated[members].double().mean()),
        }
        if judged.any() or not domain:
            named["reward_mean"] = mean_of(tried.rewards[members], judged)
            named["reward_shaped_mean"] = mean_of(shaped[members], judged)
        for which, chosen in (("right", right), ("wrong", judged & ~right)):
            if chosen.any():
                named[f"{which}_tokens_median"] = quantile(lengths[chosen], 0.5)
        found |= {f"rollout/{name}/{domain}".rstrip("/"): value for name, value in named.items()}
    return found


def quantile(values: Tensor, share: float) -> float:
    """The smallest of the values that at least this share of them do not exceed.

    >>> import torch
    >>> quantile(torch.tensor([4, 1, 3, 2]), 0.5), quantile(torch.tensor([4, 1, 3, 2]), 0.9)
    (2.0, 4.0)
    """
    return float(values.flatten().kthvalue(max(1, math.ceil(share * values.numel()))).values)


def verifier_metrics(tried: Groups, timeout_seconds: float) -> Metrics:
    """What became of the verdicts, and what they cost, whole and of each domain."""
    found = {f"verifier/{outcome}_count": float((tried.outcomes == i).sum()) for i, outcome in enumerate(OUTCOMES)}
    found["time/verifier_seconds"] = float(tried.verifier_seconds.sum())
    took_all = tried.judged & (tried.verifier_seconds >= timeout_seconds)
    found["verifier/overtime_count"] = float(took_all.sum())
    for domain, members in domains_of(tried).items():
        outcomes = tried.outcomes[members]
        found |= {f"verifier/{name}_count/{domain}": float((outcomes == i).sum()) for i, name in enumerate(OUTCOMES)}
        found[f"verifier/overtime_count/{domain}"] = float(took_all[members].sum())
        found[f"time/verifier_seconds/{domain}"] = float(tried.verifier_seconds[members].sum())
    return found


def dynamic_sampling_metrics(collected: Collected) -> Metrics:
    """How hard it was to find groups worth training on, and what the other published rules would have kept."""
    tried = collected.tried
    num_judged = tried.judged.sum(1)
    kept = tests(tried.rewards, tried.judged)
    all_right = (((tried.rewards >= 1) & tried.judged).sum(1) == num_judged) & (num_judged > 0)
    all_wrong = (((tried.rewards <= 0) & tried.judged).sum(1) == num_judged) & (num_judged > 0)

    def fraction(groups: Tensor) -> float:
        return float(groups.double().mean())

    found = {
        "dynamic_sampling/rounds_count": float(collected.rounds),
        "dynamic_sampling/trained_count": float(len(collected.groups)),
        "dynamic_sampling/keep_rate_by_mean": fraction(kept["mean_inside_zero_one"]),
        "dynamic_sampling/keep_rate_by_correct": fraction(kept["some_but_not_all_correct"]),
    }
    everything = {"": list(range(len(tried)))}
    for domain, members in (everything | domains_of(tried)).items():
        named = {
            "tried_count": float(len(members)),
            "keep_rate": fraction(kept["reward_std_above_zero"][members]),
            "all_right_fraction": fraction(all_right[members]),
            "all_wrong_fraction": fraction(all_wrong[members]),
        }
        found |= {f"dynamic_sampling/{name}/{domain}".rstrip("/"): value for name, value in named.items()}
    return found


def policy_metrics(policy: PolicyView) -> Metrics:
    """What the policy is like on the tokens that are trained on, of which there must be some."""
    return {
        "actor/entropy_nats": policy.entropy_nats,
        "mismatch/mean_nats": policy.mismatch_mean_nats,
        "mismatch/max_nats": policy.mismatch_max_nats,
        "mismatch/kl_nats": policy.mismatch_kl_nats,
    }


def actor_metrics(updates: Sequence[Update]) -> Metrics:
    """What the optimizer did in a step: token means over its updates, of which there must be one."""
    num_tokens = sum(update.num_tokens for update in updates)

    def token_mean(field: str) -> float:
        return sum(float(getattr(update, field)) * update.num_tokens for update in updates) / num_tokens

    norms = [update.gradient_norm for update in updates]
    return {
        "actor/loss": token_mean("loss"),
        "actor/kl_reference_nats": token_mean("kl_reference"),
        "actor/clip_low_fraction": token_mean("clip_low_fraction"),
        "actor/clip_high_fraction": token_mean("clip_high_fraction"),
        "actor/clip_dual_fraction": token_mean("clip_dual_fraction"),
        "actor/ratio_mean": token_mean("ratio_mean"),
        "mismatch/corrected_fraction": token_mean("correction_fraction"),
        "actor/gradient_norm": sum(norms) / len(norms),
        "actor/gradient_norm_max": max(norms),
        "actor/learning_rate": updates[-1].learning_rate,
        **loss_scale_metrics(updates),
    }


def loss_scale_metrics(updates: Sequence[Update]) -> Metrics:
    """How fp16's loss scale fared in a step; nothing in another precision."""
    if (loss_scale := updates[-1].loss_scale) is None:
        return {}
    overflows = sum(update.num_overflows for update in updates)
    return {"actor/loss_scale": loss_scale, "actor/overflows_count": float(overflows)}


def mean_of(values: Tensor, counted: Tensor) -> float:
    """Mean of the counted values, 0 where there is none."""
    return float(values[counted].double().mean()) if counted.any() else 0.0


def per_second(count: int, seconds: float) -> float:
    """A rate, 0 where nothing was timed."""
    return count / seconds if seconds > 0 else 0.0
