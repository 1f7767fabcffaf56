"""Algorithm: how rewards become a loss, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from megatron_rl.config.fingerprint import later_field


@dataclass(frozen=True, kw_only=True)
class Kl:
    """Penalty that keeps the policy near the reference."""

    estimator: Literal["k1", "k2", "k3"]  # as algorithms/kl.py writes them
    coefficient: float  # beta
    log_ratio_clamp: float  # nats: log(pi_ref / pi) is cut to +- this
    value_clamp: float | None  # nats: the estimate is cut to +- this
    place: Literal["loss", "reward"]  # a term of each token, or taken off the reward of the response


@dataclass(frozen=True, kw_only=True)
class Correction:
    """Weights pi_actor / pi_rollout that make up for an engine which samples from slightly other probabilities."""

    method: Literal["truncate", "icepop", "sequence_mask"]  # as algorithms/mismatch.py writes them
    low: float  # of the ratio; of its geometric mean over a response for sequence_mask
    high: float


@dataclass(frozen=True, kw_only=True)
class FormatReward:
    """What is paid in place of the score: 1 for a right answer, and these; in between for a share."""

    wrong: float  # for a wrong answer
    unanswered: float  # for a response without an answer in the form that was asked for


@dataclass(frozen=True, kw_only=True)
class Truncation:
    """What becomes of the reward of a response that ran into the token limit."""

    how: Literal["multiply", "replace"]  # the reward by, or with, `value`
    value: float  # the factor in [0, 1], or the reward


@dataclass(frozen=True, kw_only=True)
class Overlong:
    """DAPO's soft penalty: linear over the last `buffer_tokens` before the limit, `factor` at the limit."""

    buffer_tokens: int  # before max_response_tokens
    factor: float  # reward


@dataclass(frozen=True, kw_only=True)
class WrongLength:
    """The cosine of answers that are not wholly right, where it is another one."""

    eta_at_zero: float  # response tokens
    eta_at_limit: float
    eta_beyond: float  # of a response that was cut off at the limit, right or wrong


@dataclass(frozen=True, kw_only=True)
class CosineLength:
    """A reward for shortness that is on for some steps and off for others."""

    eta_max: float  # at zero response tokens
    eta_min: float  # at the response limit
    weight: float  # reward per eta
    steps_on: int  # of a cycle
    steps_off: int  # of a cycle
    starts_on: bool  # which of the two comes first
    wrong: WrongLength | None = later_field(None, default=None)  # None: right and wrong answers alike


@dataclass(frozen=True, kw_only=True)
class KlSpike:
    """The KL to the reference is this many times its median over the steps before."""

    ratio: float
    window_steps: int  # that the median is taken over
    min_history_steps: int  # since the last reset, before which there is no median


@dataclass(frozen=True, kw_only=True)
class Stall:
    """Validation got worse, or for long not better, counted from the last reset on."""

    patience_validations: int  # without a gain
    min_gain: float  # of the mean accuracy, 0..1; less is no gain
    drop: float  # of the mean accuracy below the best, 0..1


@dataclass(frozen=True, kw_only=True)
class ReferenceReset:
    """When the reference becomes a copy of the policy, and what happens to the optimizer then."""

    period_steps: int | None  # since the last reset
    kl_spike: KlSpike | None
    stall: Stall | None
    min_steps_between: int  # whatever the reason
    target: Literal["current", "best_checkpoint"]  # what the reference becomes a copy of
    clears_optimizer: bool  # moments and step count


@dataclass(frozen=True, kw_only=True)
class DynamicSampling:
    """Which groups are trained on, and how long replacements for the others are looked for."""

    keeps: Literal["reward_std_above_zero", "mean_inside_zero_one", "some_but_not_all_correct"]
    max_rounds: int  # rounds of generation in one step, the first included


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """How rewards become a loss; None leaves a part out."""

    advantage: Literal["group_mean_and_std", "group_mean_then_batch", "leave_one_out", "group_mean"]
    statistics_over: Literal["samples", "tokens"]  # of the batch, for group_mean_then_batch
    clip_low: float  # the ratio is held above 1 - this
    clip_high: float  # the ratio is held below 1 + this
    dual_clip: float | None  # bound of the ratio where the advantage is negative
    loss_aggregation: Literal["token_mean", "sequence_mean", "prompt_mean", "constant_length"]  # over an update
    updates_per_step: int  # optimizer steps, each on its own share of the groups
    kl: Kl | None
    correction: Correction | None
    truncation: Truncation | None
    overlong: Overlong | None
    length: CosineLength | None
    dynamic_sampling: DynamicSampling | None
    reference_reset: ReferenceReset | None
    policy_loss: Literal["clip", "cispo", "gspo"] = later_field("clip")  # as algorithms/losses.py writes them
    loss_divisor_tokens: int | None = later_field(None)  # a response's length, whatever it is, for constant_length
    format_reward: FormatReward | None = later_field(None)  # before any other shaping
