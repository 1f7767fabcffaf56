"""Metrics: every name with its meaning and unit; report/measures.py makes them of a step's records.

Names are phase/name_unit; some take a domain, as in validation/accuracy/logic. Those that begin as MEASURED says differ
from one time to the next; all others are equal in a run and its repetition.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

Metrics = dict[str, float]
MEASURED = ("time/", "throughput/", "memory/", "rollout/idle_tail_seconds")


@dataclass(frozen=True)
class Metric:
    """What a number says, and in which unit; `per_domain` where it is also given for each domain."""

    meaning: str
    unit: str
    per_domain: bool = False


METRICS: Mapping[str, Metric] = {
    "run/samples_count": Metric("samples generated for training since the run began", "samples"),
    "run/tokens_count": Metric("response tokens trained on since the run began", "tokens"),
    "run/idle_steps_count": Metric("steps since the run began that had nothing to update on", "steps"),
    "rollout/reward_mean": Metric("mean raw reward of the judged samples of all groups tried", "0..1", True),
    "rollout/reward_shaped_mean": Metric(
        "the same after shaping: form, truncation and length; dropped groups included, a KL in the reward not",
        "reward",
        True,
    ),
    "rollout/response_tokens_mean": Metric("mean response length of all samples tried", "tokens", True),
    "rollout/response_tokens_median": Metric("half of the responses are no longer", "tokens", True),
    "rollout/response_tokens_p90": Metric("nine of ten responses are no longer", "tokens", True),
    "rollout/response_tokens_max": Metric("longest response", "tokens", True),
    "rollout/right_tokens_median": Metric("median length of the responses with reward 1", "tokens", True),
    "rollout/wrong_tokens_median": Metric("median length of the other judged responses", "tokens", True),
    "rollout/idle_tail_seconds": Metric("an engine waiting for the last one to end its rounds, mean over engines", "s"),
    "rollout/idle_tail_seconds_max": Metric("the same of the engine that waited longest", "s"),
    "rollout/truncated_fraction": Metric("samples stopped by the length limit", "fraction", True),
    "rollout/unjudged_fraction": Metric("samples whose verifier failed; they train nothing", "fraction"),
    "verifier/judged_count": Metric("verdicts on the samples tried", "samples", True),
    "verifier/timeout_count": Metric("samples whose verifier ran out of time", "samples", True),
    "verifier/overtime_count": Metric(
        "samples judged, mostly wrong, whose verdict took the whole time limit", "samples", True
    ),
    "verifier/crashed_count": Metric("samples whose verifier failed", "samples", True),
    "verifier/sandbox_failed_count": Metric("samples whose program could not be run in a sandbox", "samples", True),
    "dynamic_sampling/rounds_count": Metric("rounds of generation that filled the step", "rounds"),
    "dynamic_sampling/tried_count": Metric("groups generated", "groups", True),
    "dynamic_sampling/trained_count": Metric("groups trained on; fewer than asked for when rounds ran out", "groups"),
    "dynamic_sampling/keep_rate": Metric("groups tried whose raw rewards have a spread", "fraction", True),
    "dynamic_sampling/keep_rate_by_mean": Metric("groups tried with a mean reward inside (0, 1)", "fraction"),
    "dynamic_sampling/keep_rate_by_correct": Metric("groups tried with some, not all, rewards at 1", "fraction"),
    "dynamic_sampling/all_right_fraction": Metric(
        "groups tried in which every judged sample has reward 1", "fraction", True
    ),
    "dynamic_sampling/all_wrong_fraction": Metric(
        "groups tried in which every judged sample has reward 0", "fraction", True
    ),
    "actor/loss": Metric(
        "policy loss + KL term, by the recipe's loss_aggregation; of several updates their mean by tokens", "-"
    ),
    "actor/entropy_nats": Metric("entropy of the policy at the sampling temperature, before the updates", "nats"),
    "actor/kl_reference_nats": Metric("the recipe's estimate of the distance to the reference", "nats"),
    "actor/clip_low_fraction": Metric(
        "tokens whose gradient the lower bound takes away; of CISPO, whose weight it raises", "fraction"
    ),
    "actor/clip_high_fraction": Metric(
        "tokens whose gradient the upper bound takes away; of CISPO, whose weight it lowers", "fraction"
    ),
    "actor/clip_dual_fraction": Metric("tokens whose gradient the dual clip takes away", "fraction"),
    "actor/ratio_mean": Metric("mean of pi / pi_old; 1 on policy", "-"),
    "actor/gradient_norm": Metric("gradient norm before clipping, mean over the step's updates", "-"),
    "actor/gradient_norm_max": Metric("gradient norm before clipping, largest of the step's updates", "-"),
    "actor/learning_rate": Metric("learning rate of the step's last update", "-"),
    "actor/loss_scale": Metric("factor of the loss after the step's last update; precision fp16 alone", "-"),
    "actor/overflows_count": Metric("updates made again with half the loss scale; precision fp16 alone", "updates"),
    "mismatch/mean_nats": Metric("mean |actor - rollout log-probability|", "nats"),
    "mismatch/max_nats": Metric("largest |actor - rollout log-probability|", "nats"),
    "mismatch/kl_nats": Metric("k3 estimate of KL(rollout || actor)", "nats"),
    "mismatch/corrected_fraction": Metric("tokens beyond the bounds of the recipe's mismatch correction", "fraction"),
    "reference/reset": Metric("1 when the reference was replaced after this step", "0 or 1"),
    "length_term/is_on": Metric("1 while the cosine length term shapes the reward", "0 or 1"),
    "validation/unjudged_fraction": Metric("held-out samples without a verdict, mean over domains", "fraction", True),
    "validation/accuracy": Metric("mean verdict on held-out prompts, every domain counting the same", "0..1", True),
    "time/step_seconds": Metric("wall time since the step before, validation and saving included", "s"),
    "time/refit_seconds": Metric("weights from the actor into the rollout engine, and what is offloaded", "s"),
    "time/generate_seconds": Metric("rollouts of the step", "s"),
    "time/score_seconds": Metric("verifiers of the step", "s"),
    "time/idle_seconds": Metric("engines waiting for the last one to end a round, mean over engines", "s"),
    "time/pack_seconds": Metric("samples to the ranks that train on them, and into microbatches", "s"),
    "time/logprob_seconds": Metric("log-probabilities of policy and reference", "s"),
    "time/update_seconds": Metric("forward, backward and optimizer", "s"),
    "time/validate_seconds": Metric("validation, its generation and scoring included", "s"),
    "time/verifier_seconds": Metric("work of the verifiers, summed over processes, hidden or not", "s", True),
    "time/save_seconds": Metric("the checkpoint written since the step before", "s"),
    "time/report_seconds": Metric("this journal, the display and the page, on the step before", "s"),
    "time/other_seconds": Metric("what no other phase accounts for, waiting included", "s"),
    "throughput/samples_per_second": Metric(
        "judged samples trained on, per second without validating, saving, reporting", "1/s"
    ),
    "throughput/tokens_per_second": Metric("response tokens trained on, per second likewise", "1/s"),
    "throughput/generated_tokens_per_second": Metric(
        "response tokens of all samples tried, without waves that an attempt before stored, per second until the last "
        "engine has ended",
        "1/s",
    ),
    "throughput/generated_samples_per_second": Metric("all samples tried, likewise", "1/s"),
    "throughput/prefix_hit_fraction": Metric("prompt tokens of all samples that the prefix cache had", "fraction"),
    "throughput/updated_tokens_per_second": Metric("response tokens trained on, per second updating", "1/s"),
    "throughput/updated_samples_per_second": Metric("judged samples trained on, per second updating", "1/s"),
    "throughput/generated_tokens_per_second_per_device": Metric("generated_tokens_per_second, for each device", "1/s"),
    "throughput/updated_tokens_per_second_per_device": Metric("updated_tokens_per_second, for each device", "1/s"),
    "memory/device_bytes": Metric("the first rank's memory in use at the end of the step, on its device", "bytes"),
    "memory/host_bytes": Metric("the first rank's memory in use at the end of the step, on its host", "bytes"),
}


def checked(metrics: Metrics) -> Metrics:
    """The same metrics. Raises RuntimeError for a value that is not finite; an undeclared name is a fault.

    >>> checked({"validation/accuracy/math": 0.5})
    {'validation/accuracy/math': 0.5}
    """
    for name, value in metrics.items():
        base = name if name in METRICS else name.rpartition("/")[0]
        is_declared = base in METRICS and (base == name or METRICS[base].per_domain)
        assert is_declared, f"metric '{name}' is not declared; add its meaning and unit to report/metrics.py"
        if not math.isfinite(value):
            raise RuntimeError(f"metric {name} is {value}; the newest checkpoint is from before it")
    return metrics
