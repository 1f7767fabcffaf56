"""The records that travel round the loop: prompts -> rollouts -> rewards -> advantages -> update.

Shape letters: G groups, N samples per group, S sequences (G x N), T tokens of a pack, V vocabulary.
Log-probabilities are in nats, at the sampling temperature.
"""

from __future__ import annotations

import dataclasses
import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Outcome = Literal["judged", "timeout", "crashed", "sandbox_failed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One problem, as the model reads it and as its verifier reads it."""

    serial: int  # its position in the prompt stream; a prompt met twice has two
    id: str
    domain: str
    token_ids: tuple[int, ...]
    opens_thought: bool  # it ends within a thought, which the response has to close
    item: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Samples that are generated together: a group, or a part of one that is too large for a wave."""

    prompt: Prompt
    seed: int  # of its first sample; the next has seed + 1
    num_samples: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One response of the policy: 8 bytes a token."""

    token_ids: array[int]  # type code i
    logprobs: array[float]  # type code f: the rollout engine's own, one per token; empty for greedy ones
    finish_reason: Literal["stop", "length"]
    policy_version: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a verifier found; a verifier that failed has no opinion, which is not a wrong answer."""

    score: float  # 0..1; 0 when not judged
    outcome: Outcome
    detail: str
    seconds: float = 0.0  # wall time that it took, of the process that judged
    is_unanswered: bool = False  # the response has no answer in the form that was asked for


def _column(dtype: str) -> Any:
    return dataclasses.field(metadata={"dtype": dtype})


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What every rank knows of each sample: a tensor [G, N] per column.

    A group of three answers, one right, one wrong, one that the verifier gave up on, the last cut off at 8 tokens:

    >>> table = Columns.tables(3, rewards=[1, 0, 0], outcomes=[0, 0, 1], lengths=[5, 7, 8], truncated=[0, 0, 1])
    >>> Columns(**table).judged.tolist(), table["truncated"].tolist(), table["owners"].tolist()
    ([[True, True, False]], [[False, False, True]], [[0, 0, 0]])
    """

    rewards: Tensor = _column("float64")  # raw verdict scores, before any shaping
    outcomes: Tensor = _column("int64")  # place of the verdict's outcome in OUTCOMES
    verifier_seconds: Tensor = _column("float64")  # wall time that the verdict took
    lengths: Tensor = _column("int64")  # response tokens
    truncated: Tensor = _column("bool")  # stopped by the length limit
    owners: Tensor = _column("int64")  # the engine that made the sample
    unanswered: Tensor = _column("bool")  # no answer in the form that was asked for

    @staticmethod
    def tables(num_samples: int, **values: Sequence[Any]) -> dict[str, Any]:
        """Every column [G, N] of its dtype, from the values of the samples row by row; one not given is zeros."""
        import torch

        num_rows = len(next(iter(values.values())))
        return {
            column.name: torch.tensor(
                list(values.pop(column.name, [0] * num_rows)), dtype=getattr(torch, column.metadata["dtype"])
            ).view(-1, num_samples)
            for column in dataclasses.fields(Columns)
        } | values  # a name that is no column is for the constructor to refuse

    @property
    def judged(self) -> Tensor:
        """[G, N] bool: False where the verifier failed."""
        return self.outcomes == OUTCOMES.index("judged")

    def columns(self) -> dict[str, Any]:
        """Every column by its name."""
        return {column.name: getattr(self, column.name) for column in dataclasses.fields(Columns)}


@dataclass(frozen=True, kw_only=True)
class Groups(Columns):
    """G groups of N samples. Every rank knows the columns; the tokens stay on the engine that made them."""

    prompts: tuple[Prompt, ...]  # G
    samples: Mapping[int, Sample]  # row of the [G x N] table -> sample, of the rows this rank's engine made
    policy_version: int
    texts: Mapping[int, tuple[str, str]] = field(default_factory=dict)  # of the rows asked for: response, detail

    def __len__(self) -> int:
        return len(self.prompts)

    def running_lengths(self, before: Mapping[str, float]) -> dict[str, float]:
        """Mean response tokens of each domain here, half of it what it was `before`."""
        lengths: dict[str, list[float]] = {}
        for prompt, mean in zip(self.prompts, self.lengths.double().mean(1).tolist(), strict=True):
            lengths.setdefault(prompt.domain, []).append(mean)
        means = {domain: sum(found) / len(found) for domain, found in sorted(lengths.items())}
        return {domain: (before.get(domain, mean) + mean) / 2 for domain, mean in means.items()}

    def take(self, indices: Sequence[int]) -> Groups:
        """The groups at `indices`, in that order."""
        N = self.rewards.shape[1]
        rows = [(new * N + j, old * N + j) for new, old in enumerate(indices) for j in range(N)]
        return Groups(
            **{name: column[list(indices)] for name, column in self.columns().items()},
            prompts=tuple(self.prompts[i] for i in indices),
            samples={new: self.samples[old] for new, old in rows if old in self.samples},
            policy_version=self.policy_version,
        )


@dataclass(frozen=True, kw_only=True)
class Example:
    """A sample for a person to read."""

    order: tuple[int, int]  # its place in the choice of its domain: the lowest come first
    prompt: Prompt
    prompt_text: str
    sample: int  # its place in its group, 0..N-1
    response: str
    detail: str  # of the verdict
    reward: float  # raw, as training pays it
    outcome: Outcome
    num_tokens: int
    is_truncated: bool
    policy_version: int


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What a step's generation gave: the groups to train on, and all that were tried to find them."""

    groups: Groups
    tried: Groups  # without tokens
    rounds: int
    keep_rate: float  # fraction of the groups tried whose rewards have a spread
    examples: tuple[Example, ...] = ()  # of all that were tried
    idle_tails: tuple[float, ...] = ()  # seconds that each engine waited for the last one, over all rounds
    prefix_hits: float | None = None  # part of all samples' prompt tokens that lay in a prefix cache, of waves made now
    stored_samples: int = 0  # of those tried: an attempt before has generated them
    stored_tokens: int = 0  # of their responses

    @property
    def idle_tail_seconds(self) -> float:
        """Mean over the engines."""
        return sum(self.idle_tails) / max(1, len(self.idle_tails))


@dataclass(frozen=True, kw_only=True)
class Pack:
    """One microbatch: whole sequences end to end, T tokens. Position t predicts `targets[t]`."""

    token_ids: Tensor  # [T] int64
    targets: Tensor  # [T] int64: the next token of the same sequence
    position_ids: Tensor  # [T] int64, from 0 in every sequence
    cumulative_lengths: Tensor  # [sequences + 1] int32: where each sequence starts, then T
    longest: int  # tokens of its longest sequence
    sequences: Tensor  # [T] int64: row of the step's [G x N] table that a token belongs to
    response_mask: Tensor  # [T] float32: 1 where a judged response token is predicted, else 0
    loss_weights: Tensor  # [T] float32: the token's in its update's loss, times the update's tokens; mostly 1
    rollout_logprobs: Tensor  # [T] float32: 0 where the mask is
    old_logprobs: Tensor | None = None  # [T]; only on the last pipeline stage, and None where they are the update's own
    reference_logprobs: Tensor | None = None  # [T]; only on the last pipeline stage
    advantages: Tensor | None = None  # [T]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The packs of this data-parallel rank, one list per update of the step."""

    groups: Groups
    updates: tuple[tuple[Pack, ...], ...]
    advantages: Tensor | None = None  # [G, N] float64, as given

    def with_logprobs(self, *, old: Sequence[Tensor | None], reference: Sequence[Tensor | None]) -> Batch:
        """The batch with the two log-probabilities of each pack, given in the order of `packs`."""
        pairs = iter(zip(old, reference, strict=True))
        return self._each(lambda pack: dict(zip(("old_logprobs", "reference_logprobs"), next(pairs), strict=True)))

    def with_advantages(self, advantages: Tensor) -> Batch:
        """The batch with `advantages` [G, N] spread over the tokens of each sequence."""
        flat = advantages.float().flatten()
        batch = self._each(
            lambda pack: {"advantages": flat.to(pack.sequences.device)[pack.sequences] * (pack.response_mask > 0)}
        )
        return dataclasses.replace(batch, advantages=advantages)

    @property
    def packs(self) -> list[Pack]:
        return [pack for update in self.updates for pack in update]

    def _each(self, changes: Any) -> Batch:
        updates = tuple(tuple(dataclasses.replace(pack, **changes(pack)) for pack in part) for part in self.updates)
        return dataclasses.replace(self, updates=updates)


@dataclass(frozen=True, kw_only=True)
class PolicyView:
    """What one pass of the policy that a step began with gave, pack by pack; empty off the last pipeline stage."""

    logprobs: Sequence[Tensor | None]  # [T] float32 each; None for a pack whose update makes its own
    num_tokens: int  # response tokens of all ranks that were looked at; the means are over them
    entropy_nats: float
    mismatch_mean_nats: float  # mean |actor - rollout|
    mismatch_max_nats: float
    mismatch_kl_nats: float  # k3 estimate of KL(rollout || actor)

    def with_own(self, updates: Sequence[Update]) -> PolicyView:
        """The view of a whole step, once the update that makes its own is done.

        >>> half = PolicyView(logprobs=(), num_tokens=1, entropy_nats=1.0, mismatch_mean_nats=0.0,
        ...                   mismatch_max_nats=0.0, mismatch_kl_nats=0.0)
        >>> own = dataclasses.replace(half, num_tokens=3, mismatch_mean_nats=4.0, mismatch_max_nats=9.0)
        >>> whole = half._joined(own)
        >>> whole.num_tokens, whole.entropy_nats, whole.mismatch_mean_nats, whole.mismatch_max_nats
        (4, 1.0, 3.0, 9.0)
        """
        own = next((update.policy for update in updates if update.policy is not None), None)
        return self if own is None else self._joined(own)

    def _joined(self, own: PolicyView) -> PolicyView:
        tokens = max(1, self.num_tokens + own.num_tokens)

        def mean(name: str) -> float:
            parts = ((view.num_tokens, getattr(view, name)) for view in (self, own) if view.num_tokens)
            return float(sum(count / tokens * value for count, value in parts))

        return dataclasses.replace(
            self,
            num_tokens=self.num_tokens + own.num_tokens,
            entropy_nats=mean("entropy_nats"),
            mismatch_mean_nats=mean("mismatch_mean_nats"),
            mismatch_max_nats=max(self.mismatch_max_nats, own.mismatch_max_nats),
            mismatch_kl_nats=mean("mismatch_kl_nats"),
        )


@dataclass(frozen=True, kw_only=True)
class Update:
    """What one optimizer step did; means are over the response tokens of the update, on all ranks."""

    num_tokens: int
    loss: float
    gradient_norm: float  # before clipping
    learning_rate: float
    clip_low_fraction: float
    clip_high_fraction: float
    clip_dual_fraction: float
    ratio_mean: float
    kl_reference: float  # the recipe's estimate in nats, 0 for a recipe without a reference
    correction_fraction: float  # of the tokens whose ratio to the rollout's probability lay beyond the bounds
    loss_scale: float | None = None  # after the update; precision fp16 alone has one
    num_overflows: int = 0  # times that the update was made again with half the loss scale
    policy: PolicyView | None = None  # where its forward pass was the one that saw the policy it began with


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Validation: mean verdict score per domain, without the domains whose verifier failed too often."""

    step: int
    accuracy: Mapping[str, float]
    unjudged: Mapping[str, float] = field(default_factory=dict)  # share of each domain's samples without a verdict

    @property
    def is_complete(self) -> bool:
        """True where every domain has an accuracy; else nothing may be decided by the mean."""
        return bool(self.accuracy) and self.unjudged.keys() <= self.accuracy.keys()

    @property
    def mean(self) -> float:
        """Average over domains, each counting the same."""
        assert self.is_complete, f"no mean accuracy at step {self.step}: it has {sorted(self.accuracy)}"
        return sum(self.accuracy.values()) / len(self.accuracy)


@dataclass(frozen=True, kw_only=True)
class Validated:
    """What a validation gave: the scores that a state remembers, and samples for a person to read."""

    scores: Scores
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reset:
    """The reference became a copy of the policy after `step` steps."""

    step: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a run stands after `step` steps."""

    step: int
    samples_seen: int
    tokens_seen: int
    keep_rate: float  # of the last step's groups; sizes the next step's first round
    reference_resets: tuple[Reset, ...]
    kl_history: tuple[float, ...]  # KL to the reference in nats of each step since the last reset
    scores: tuple[Scores, ...]
    idle_steps: int  # that had nothing to update on, since the run began
    idle_streak: int  # of them in a row, up to this one
    news: tuple[str, ...]  # decisions since the last step, which the next one tells of
    policy_digest: str  # hash of all that the optimizer did: equal in two runs that went the same way to the bit
    response_tokens: Mapping[str, float] = field(default_factory=dict)  # running mean of each domain met

    @classmethod
    def fresh(cls) -> State:
        return cls(
            step=0,
            samples_seen=0,
            tokens_seen=0,
            keep_rate=1.0,
            reference_resets=(),
            kl_history=(),
            scores=(),
            idle_steps=0,
            idle_streak=0,
            news=(),
            policy_digest="",
        )

    @property
    def last_reset(self) -> int:
        """Steps finished at the last reset of the reference; 0 before the first."""
        return max((reset.step for reset in self.reference_resets), default=0)

    def after(self, collected: Collected, updates: Sequence[Update]) -> State:
        """The state one step on: counts all samples generated, and the tokens trained on."""
        num_tokens = sum(update.num_tokens for update in updates)
        kl = sum(update.kl_reference * update.num_tokens for update in updates)
        return dataclasses.replace(
            self,
            step=self.step + 1,
            samples_seen=self.samples_seen + collected.tried.rewards.numel(),
            tokens_seen=self.tokens_seen + num_tokens,
            keep_rate=collected.keep_rate,
            news=(),
            idle_steps=self.idle_steps + (num_tokens == 0),
            idle_streak=0 if num_tokens else self.idle_streak + 1,
            kl_history=(*self.kl_history, kl / num_tokens) if num_tokens else self.kl_history,
            policy_digest=hashlib.sha256(f"{self.policy_digest}{updates}".encode()).hexdigest()[:16],
            response_tokens={**self.response_tokens, **collected.tried.running_lengths(self.response_tokens)},
        )

    def with_scores(self, scores: Scores) -> State:
        """The state with one more validation; validating a step again replaces what was known of it."""
        return dataclasses.replace(self, scores=(*(old for old in self.scores if old.step != scores.step), scores))

    @property
    def newest_is_best(self) -> bool:
        """True when the newest validation is complete and none before it was as good."""
        means = [scores.mean for scores in self.scores if scores.is_complete]
        return self.scores[-1].is_complete and all(mean < means[-1] for mean in means[:-1])

    def with_news(self, decision: str) -> State:
        """The state with a decision that the next step tells of."""
        return dataclasses.replace(self, news=(*self.news, decision))

    def with_reset(self, reason: str) -> State:
        """The state with a reference reset after its step."""
        resets = (*self.reference_resets, Reset(step=self.step, reason=reason))
        return dataclasses.replace(self, reference_resets=resets, kl_history=())
