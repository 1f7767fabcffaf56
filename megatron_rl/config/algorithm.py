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
    low: float  # bound of the ratio; of its geometric mean over a response for sequence_mask
    high: float  # bound of the same


@dataclass(frozen=True, kw_only=True)
class FormatReward:
    """What is paid in place of the score: 1 for a right answer, and these; in between for a share."""

    wrong: float  # reward of a wrong answer
    unanswered: float  # reward of a response without an answer in the form that was asked for


@dataclass(frozen=True, kw_only=True)
class Truncation:
    """What becomes of the reward of a response that ran into the token limit."""

    how: Literal["multiply", "replace"]  # multiply the reward by `value`, or replace it with that
    value: float  # a factor in [0, 1], or a reward


@dataclass(frozen=True, kw_only=True)
class Overlong:
    """DAPO's soft penalty: linear over the last `buffer_tokens` before the limit, `factor` at the limit."""

    buffer_tokens: int  # the penalty begins so many tokens before max_response_tokens
    factor: float  # reward taken off at max_response_tokens


@dataclass(frozen=True, kw_only=True)
class WrongLength:
    """The cosine of answers that are not wholly right, where it is another one."""

    eta_at_zero: float  # of a response of no tokens
    eta_at_limit: float  # of a response as long as the limit
    eta_beyond: float  # of a response that was cut off at the limit, right or wrong


@dataclass(frozen=True, kw_only=True)
class CosineLength:
    """A reward for shortness that is on for some steps and off for others."""

    eta_max: float  # of a response of no tokens
    eta_min: float  # of a response as long as the limit
    weight: float  # reward per eta
    steps_on: int  # steps of a cycle with the term
    steps_off: int  # steps of a cycle without it
    starts_on: bool  # whether a cycle begins with the term on
    wrong: WrongLength | None = later_field(
        None, default=None
    )  # a cosine of their own for wrong answers; none: the same


@dataclass(frozen=True, kw_only=True)
class KlSpike:
    """The KL to the reference is this many times its median over the steps before."""

    ratio: float  # how many times the median
    window_steps: int  # steps before the newest, of which the median is taken
    min_history_steps: int  # steps since the last reset, before which there is no median


@dataclass(frozen=True, kw_only=True)
class Stall:
    """Validation got worse, or for long not better, counted from the last reset on."""

    patience_validations: int  # so many without a gain
    min_gain: float  # in mean accuracy, 0..1; less is no gain
    drop: float  # of the mean accuracy below its best, 0..1


@dataclass(frozen=True, kw_only=True)
class ReferenceReset:
    """When the reference becomes a copy of the policy, and what happens to the optimizer then."""

    period_steps: int | None  # so many steps after the last reset
    kl_spike: KlSpike | None
    stall: Stall | None
    min_steps_between: int  # steps between resets, whatever the reason; a stage's own reset does not wait
    target: Literal["current", "best_checkpoint"]  # what the reference becomes a copy of
    clears_optimizer: bool  # whether its moments and step count begin anew


@dataclass(frozen=True, kw_only=True)
class DynamicSampling:
    """Which groups are trained on, and how long replacements for the others are looked for."""

    # Which groups are trained on: by the spread, the mean, or the number of right ones of their rewards.
    keeps: Literal["reward_std_above_zero", "mean_inside_zero_one", "some_but_not_all_correct"]
    max_rounds: int  # rounds of generation in one step, the first included


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """How rewards become a loss; none leaves a part out."""

    # How rewards become advantages, as algorithms/advantages.py writes them.
    advantage: Literal["group_mean_and_std", "group_mean_then_batch", "leave_one_out", "group_mean"]
    statistics_over: Literal["samples", "tokens"]  # what of the batch group_mean_then_batch normalises over
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
    loss_divisor_tokens: int | None = later_field(None)  # what constant_length divides by, for each response
    format_reward: FormatReward | None = later_field(None)
