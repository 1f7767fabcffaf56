"""Panels: which metrics stand together in a chart of the page, and how they are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PHASES = ("refit", "generate", "idle", "score", "pack", "logprob", "update", "validate", "save", "report", "other")
SECTIONS = {
    "learning": "Learning",
    "groups": "Groups and dynamic sampling",
    "policy": "The policy and its updates",
    "engines": "The two engines",
    "speed": "Speed and memory",
    "verifiers": "Verifiers",
}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart."""

    section: str  # one of SECTIONS
    title: str
    curves: Mapping[str, str]  # metric -> label
    caption: str
    per_domain: bool = False  # each metric is also given for each domain
    fraction: bool = False  # the axis spans 0..1
    log: bool = False
    stacked: bool = False  # the curves are parts of a whole
    limits: Mapping[str, str] = field(default_factory=dict)  # dotted field of the recipe -> label of the line there


PANELS = (
    Panel(
        section="learning",
        title="Validation accuracy",
        curves={"validation/accuracy": "mean"},
        caption="held-out problems, every domain counting the same",
        per_domain=True,
        fraction=True,
    ),
    Panel(
        section="learning",
        title="Reward",
        curves={"rollout/reward_mean": "before shaping", "rollout/reward_shaped_mean": "after shaping"},
        caption="of everything generated that was judged, dropped groups included",
        per_domain=True,
    ),
    Panel(
        section="learning",
        title="Response length",
        curves={
            "rollout/response_tokens_median": "median",
            "rollout/response_tokens_p90": "90 %",
            "rollout/response_tokens_max": "longest",
        },
        caption="tokens; the length term acts in the shaded spans",
        per_domain=True,
        limits={"sampling.max_response_tokens": "limit"},
    ),
    Panel(
        section="learning",
        title="Length of right and wrong responses",
        curves={"rollout/right_tokens_median": "right", "rollout/wrong_tokens_median": "wrong"},
        caption="median tokens of the judged responses",
        per_domain=True,
    ),
    Panel(
        section="learning",
        title="Cut off",
        curves={"rollout/truncated_fraction": "cut off"},
        caption="share of the responses that ran into the length limit",
        per_domain=True,
        fraction=True,
    ),
    Panel(
        section="groups",
        title="Kept, all right, all wrong",
        curves={
            "dynamic_sampling/keep_rate": "kept",
            "dynamic_sampling/all_right_fraction": "all right",
            "dynamic_sampling/all_wrong_fraction": "all wrong",
        },
        caption="share of the groups tried; kept ones have rewards that differ",
        per_domain=True,
        fraction=True,
    ),
    Panel(
        section="groups",
        title="Rounds",
        curves={"dynamic_sampling/rounds_count": "rounds"},
        caption="of generation until the step was full",
        limits={"algorithm.dynamic_sampling.max_rounds": "at most"},
    ),
    Panel(
        section="groups",
        title="Groups",
        curves={"dynamic_sampling/tried_count": "tried", "dynamic_sampling/trained_count": "trained on"},
        caption="a step's groups, generated and kept",
        per_domain=True,
    ),
    Panel(
        section="policy",
        title="Entropy",
        curves={"actor/entropy_nats": "entropy"},
        caption="nats per token, at the sampling temperature",
    ),
    Panel(
        section="policy",
        title="KL to the reference",
        curves={"actor/kl_reference_nats": "KL"},
        caption="nats per token, by the recipe's estimator; falls when the reference is reset",
    ),
    Panel(
        section="policy",
        title="Gradient norm",
        curves={"actor/gradient_norm": "mean of the step", "actor/gradient_norm_max": "largest of the step"},
        caption="before clipping; above the line the gradient is scaled down to it",
        limits={"optimizer.max_grad_norm": "clipped"},
    ),
    Panel(
        section="policy",
        title="Clipping of the ratio",
        curves={
            "actor/clip_high_fraction": "upper bound",
            "actor/clip_low_fraction": "lower bound",
            "actor/clip_dual_fraction": "dual clip",
        },
        caption="share of tokens whose gradient a bound takes away",
    ),
    Panel(
        section="policy",
        title="Learning rate",
        curves={"actor/learning_rate": "learning rate"},
        caption="of the step's last update",
    ),
    Panel(
        section="policy",
        title="Loss",
        curves={"actor/loss": "loss"},
        caption="policy loss and KL term; its level means little",
    ),
    Panel(
        section="engines",
        title="Gap of log-probabilities",
        curves={"mismatch/max_nats": "largest", "mismatch/mean_nats": "mean"},
        caption="|actor - rollout engine|, nats; grows when a refit goes wrong",
        log=True,
    ),
    Panel(
        section="engines",
        title="KL(rollout || actor)",
        curves={"mismatch/kl_nats": "KL"},
        caption="k3 estimate, nats per token",
        log=True,
    ),
    Panel(
        section="engines",
        title="Corrected",
        curves={"mismatch/corrected_fraction": "corrected"},
        caption="share of tokens beyond the bounds of the recipe's mismatch correction",
    ),
    Panel(
        section="speed",
        title="Where a step's time goes",
        curves={f"time/{name}_seconds": name for name in PHASES},
        caption="seconds per step",
        stacked=True,
    ),
    Panel(
        section="speed",
        title="Step",
        curves={"time/step_seconds": "step"},
        caption="seconds from one step to the next, validation and saving included",
    ),
    Panel(
        section="speed",
        title="Tokens per second",
        curves={
            "throughput/generated_tokens_per_second": "generated",
            "throughput/updated_tokens_per_second": "updated on",
            "throughput/tokens_per_second": "trained on, over the whole step",
        },
        caption="response tokens; the first two per second of their own phase",
    ),
    Panel(
        section="speed",
        title="Samples per second",
        curves={
            "throughput/generated_samples_per_second": "generated",
            "throughput/updated_samples_per_second": "updated on",
            "throughput/samples_per_second": "trained on, over the whole step",
        },
        caption="the first two per second of their own phase",
    ),
    Panel(
        section="speed",
        title="Tokens per second and device",
        curves={
            "throughput/generated_tokens_per_second_per_device": "generated",
            "throughput/updated_tokens_per_second_per_device": "updated on",
        },
        caption="per second of its own phase",
    ),
    Panel(
        section="speed",
        title="Memory",
        curves={"memory/device_bytes": "device", "memory/host_bytes": "host"},
        caption="bytes in use by the first rank when a step ended",
    ),
    Panel(
        section="verifiers",
        title="Verifiers that failed",
        curves={
            "verifier/timeout_count": "out of time",
            "verifier/crashed_count": "crashed",
            "verifier/sandbox_failed_count": "no sandbox",
            "verifier/overtime_count": "judged, but took all of its time",
        },
        caption="samples of a step; but for those judged they train nothing, and are not counted as wrong",
        per_domain=True,
    ),
    Panel(
        section="verifiers",
        title="Verdicts",
        curves={"verifier/judged_count": "judged"},
        caption="samples of a step",
        per_domain=True,
    ),
    Panel(
        section="verifiers",
        title="Work of the verifiers",
        curves={"time/verifier_seconds": "seconds"},
        caption="seconds of a step, summed over processes, most of it hidden behind generation",
        per_domain=True,
    ),
)
