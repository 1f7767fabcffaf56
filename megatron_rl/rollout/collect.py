"""A step's groups: generated in waves, scored, and replaced until enough of them have something to teach."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import torch

from megatron_rl.algorithms.groups import counted, is_informative
from megatron_rl.config.records import Recipe
from megatron_rl.config.run import Run
from megatron_rl.data.prompts import PromptStream
from megatron_rl.estimate.sharing import LARGEST_PIECE, pieces, shared_out
from megatron_rl.estimate.step import prompts_to_try
from megatron_rl.rewards.score import Case, Scorer
from megatron_rl.rollout.engine import Engine, Wanted
from megatron_rl.rollout.examples import chosen, examples_of, first_of
from megatron_rl.rollout.verdicts import check_verifiers
from megatron_rl.rollout.waves import WaveStore
from megatron_rl.runtime import parallel
from megatron_rl.runtime.log import get_logger
from megatron_rl.runtime.preempt import Preempted, Preemption
from megatron_rl.runtime.seeds import request_seed
from megatron_rl.runtime.spans import span, tell
from megatron_rl.types import OUTCOMES, Collected, Columns, Example, Groups, Prompt, Request, Sample, State, Verdict

COLUMNS = [column.name for column in dataclasses.fields(Columns)]
Wave = list[tuple[int, Request]]  # with the first row of each request's samples
STRAGGLER_SECONDS, STRAGGLER_RATIO = 10.0, 2.0  # chosen: an engine slower than both is named in the log


class Spent(NamedTuple):
    """What an engine did for a round, and what lay on the disk and cost it nothing."""

    seconds: float = 0.0  # generating
    prompt_tokens: int = 0  # of all samples
    cached_tokens: int = 0  # of them, found in the prefix cache
    stored_samples: int = 0
    stored_tokens: int = 0  # of their responses

    def plus(self, other: Spent) -> Spent:
        return Spent(*(mine + more for mine, more in zip(self, other, strict=True)))


class Rollouts:
    """Answers prompts with the engine and scores the answers. Its methods are collective over the world."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Any,
        scorer: Scorer,
        preemption: Preemption,
        run: Run,
    ) -> None:
        self.engine, self.tokenizer, self.scorer, self.preemption = engine, tokenizer, scorer, preemption
        self.run, self.sequences_per_wave = run, run.scale.sequences_per_wave
        self.idle_tails: dict[int, float] = {}  # engine -> seconds it waited for the last one in the step under way
        self.spent = Spent()  # of all engines in the step under way
        self.spent_here = Spent()  # of this one in the round under way

    def collect(self, prompts: PromptStream, recipe: Recipe, state: State) -> Collected:
        """`prompts_per_step` informative groups, or fewer when `max_rounds` rounds did not find them.

        A round takes new prompts from the stream, more than are missing where the last step kept few: as many as let
        the step expect to end soonest, by a model that asks no clock. Groups beyond what the step needs are dropped,
        the last ones of the stream whatever their length, because the policy will have moved on by the next step.

        Waves that an attempt before this one finished are not generated again. Raises Preempted where this one has to
        leave: what was finished is stored, and the stream is back where the step began. Raises RuntimeError when more
        than `run.max_unjudged_share` of a round's samples, or of a domain's in the step, could not be judged: what is
        left of the groups is no fair sample.
        """
        position = prompts.position
        try:
            return self._collected(prompts, recipe, state)
        except Preempted:
            prompts.seek(position)
            raise

    def _collected(self, prompts: PromptStream, recipe: Recipe, state: State) -> Collected:
        sampling, dynamic = recipe.sampling, recipe.algorithm.dynamic_sampling
        max_rounds = 1 if dynamic is None else dynamic.max_rounds
        wanted, self.idle_tails, self.spent = sampling.prompts_per_step, {}, Spent()
        known = state.response_tokens.values()
        mean_tokens = statistics.fmean(known) if known else sampling.max_response_tokens / 2
        missing, keep_rate = wanted, state.keep_rate
        kept: list[Groups] = []
        tried: list[Groups] = []
        examples: list[Example] = []
        per_domain = self.run.samples_per_domain
        while missing and len(tried) < max_rounds:
            num_prompts = prompts_to_try(missing, keep_rate, mean_tokens, recipe, self.run.scale)
            asked = prompts.take(num_prompts, {domain.name for domain in recipe.domains}, sampling)
            readable = chosen(
                asked, sampling.samples_per_prompt, seed=self.run.seed, step=state.step, per_domain=per_domain
            )
            groups = self.answer(
                asked,
                state.step,
                samples_per_prompt=sampling.samples_per_prompt,
                max_response_tokens=sampling.max_response_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                store=self._store(state),
                readable=readable,
                expected_tokens=prompts.expected_tokens(asked, state.response_tokens),
            )
            check_verifiers([*tried, groups], state.step, self.run.max_unjudged_share)
            groups = paid(groups, recipe)
            examples += examples_of(groups, readable, groups.texts, self.tokenizer)
            informative = list(range(len(groups)))
            if dynamic is not None:
                informative = is_informative(groups.rewards, groups.judged, dynamic.keeps).nonzero().flatten().tolist()
            kept.append(groups.take(informative))
            tried.append(dataclasses.replace(groups, samples={}, texts={}))
            num_kept = sum(map(len, kept))
            keep_rate, missing = num_kept / sum(map(len, tried)), max(0, wanted - num_kept)
        found, everyone = concatenated(kept), concatenated(tried)
        prompts.note_lengths(everyone)
        if sampling.difficulty is not None:
            prompts.note(everyone, sampling.difficulty)
        if missing and self.engine.ranks.is_main:
            get_logger().warning(
                "step %d: %d of %d groups were worth training on after %d rounds; training on those",
                state.step, len(found), wanted, len(tried),
            )  # fmt: skip
        return Collected(
            groups=found.take(range(min(wanted, len(found)))),
            tried=everyone,
            rounds=len(tried),
            keep_rate=keep_rate,
            examples=first_of(examples, per_domain),
            idle_tails=tuple(self.idle_tails.values()),
            prefix_hits=self.spent.cached_tokens / self.spent.prompt_tokens if self.spent.prompt_tokens else None,
            stored_samples=self.spent.stored_samples,
            stored_tokens=self.spent.stored_tokens,
        )

    def answer(
        self,
        prompts: Sequence[Prompt],
        step: int,
        *,
        samples_per_prompt: int,
        max_response_tokens: int,
        temperature: float,
        top_p: float,
        store: WaveStore | None = None,
        readable: Collection[int] = (),
        expected_tokens: Sequence[float] = (),
    ) -> Groups:
        """One group per prompt, in order. Engines share pieces out, longest first, and work through theirs in waves.

        `expected_tokens` are those of a response to each prompt; none means that all are alike. A store is looked into
        first, and keeps each wave. The rows of the [G x N] table that are `readable` come with their texts. Raises
        Preempted on all ranks.
        """
        ranks, version = self.engine.ranks, self.engine.version
        assert version is not None, "the engine has no weights before its first refit"
        num_engines = ranks.world // ranks.engine_size
        options = {"max_response_tokens": max_response_tokens, "temperature": temperature, "top_p": top_p}
        samples: dict[int, Sample] = {}
        scored: list[tuple[dict[int, Sample], list[Case], Future[list[Verdict]]]] = []
        own = self._own_waves(prompts, step, samples_per_prompt, expected_tokens)
        tell(f"0 of {len(prompts)} groups, 0 of {len(own)} waves")
        self.spent_here = Spent()
        with span("generate"):
            for num_whole, (wave, made) in enumerate(self._generated(own, options, store), start=1):
                rows = _rows(wave, made)
                samples |= rows
                if ranks.engine_rank == 0:  # the ranks of an engine hold the same samples; one of them scores
                    at = [prompts[row // samples_per_prompt] for row in rows]
                    cases = self._cases(at, rows)
                    scored.append((rows, cases, self.scorer.submit(cases)))  # while the other waves are generated
                num_done = len(samples) * num_engines // samples_per_prompt
                tell(f"{num_done} of {len(prompts)} groups, {num_whole} of {len(own)} waves")
        with span("score"):
            mine = {
                row: found for *made, verdicts in scored for row, found in _judged(*made, verdicts.result(), readable)
            }
        with span("idle"):
            parts = parallel.gather((ranks.engine, mine, self.spent_here, self.preemption.reason))
        if reasons := [reason for *_, reason in parts if reason]:
            raise Preempted(reasons[0])
        self._note(step, {engine: spent for engine, _, spent, _ in parts})
        facts = {row: found | {"owners": engine} for engine, part, *_ in parts for row, found in part.items()}
        in_order = [facts[row] for row in range(len(prompts) * samples_per_prompt)]
        columns = {name: [fact[name] for fact in in_order] for name in COLUMNS}
        return Groups(
            **Groups.tables(samples_per_prompt, **columns),
            prompts=tuple(prompts),
            samples=dict(sorted(samples.items())),
            policy_version=version,
            texts={row: facts[row]["text"] for row in readable},
        )

    def _store(self, state: State) -> WaveStore:
        return WaveStore(
            directory=self.run.directory,
            step=state.step,
            start=self.run.identity,
            policy_digest=state.policy_digest,
            min_seconds=self.run.store_waves_longer_than_seconds,
        )

    def _generated(
        self, own: Sequence[Wave], options: dict[str, Any], store: WaveStore | None
    ) -> Iterator[tuple[Wave, Sequence[tuple[Sample, ...]]]]:
        """The waves with their samples: those that are stored, then the others as they are finished.

        No wave is begun any more once this engine has to leave; those under way are finished.
        """
        missing: list[Wave] = []
        for wave in own:
            stored = None if store is None else store.find(_requests(wave), options)
            if stored is None:
                missing.append(wave)
            else:
                lengths = [len(sample.token_ids) for part in stored for sample in part]
                self.spent_here = self.spent_here.plus(Spent(stored_samples=len(lengths), stored_tokens=sum(lengths)))
                yield wave, stored
        # Where the same bits are wanted of a GPU, each has the engine to itself.
        for some in [[wave] for wave in missing] if self.run.scale.deterministic else [missing]:
            began, begun = time.perf_counter(), []
            for place, made in self.engine.stream(self._begun(some, options, begun)):
                if store is not None and self.engine.ranks.engine_rank == 0:
                    store.keep(_requests(some[place]), options, made, time.perf_counter() - begun[place])
                yield some[place], made
            seconds = time.perf_counter() - began
            self.spent_here = self.spent_here.plus(
                Spent(seconds, self.engine.prompt_tokens, self.engine.cached_tokens) if begun else Spent()
            )

    def _begun(self, waves: Sequence[Wave], options: dict[str, Any], begun: list[float]) -> Iterator[Wanted]:
        """The waves until this engine has to leave: all of its ranks, or none. Notes in `begun` when each was taken."""
        for wave in waves:
            if parallel.as_engine_leader(self.engine.ranks, bool(self.preemption.reason)):
                return
            begun.append(time.perf_counter())
            yield Wanted(_requests(wave), **options)

    def _note(self, step: int, spent: Mapping[int, Spent]) -> None:
        """Adds up what the engines did and waited for the last of them in this round; names one that is far behind."""
        seconds = {engine: one.seconds for engine, one in sorted(spent.items())}
        for engine, one in spent.items():
            self.idle_tails[engine] = self.idle_tails.get(engine, 0.0) + max(seconds.values()) - one.seconds
            self.spent = self.spent.plus(one)
        slowest, usual = max(seconds, key=seconds.__getitem__), statistics.median(seconds.values())
        if self.engine.ranks.is_main and seconds[slowest] > max(STRAGGLER_SECONDS, STRAGGLER_RATIO * usual):
            get_logger().warning(
                "step %d: engine %d took %.0f s to generate, where %.0f s is usual",
                step, slowest, seconds[slowest], usual,
            )  # fmt: skip

    def _own_waves(
        self, prompts: Sequence[Prompt], step: int, samples_per_prompt: int, expected_tokens: Sequence[float]
    ) -> list[Wave]:
        """(first row, request) of each piece that this engine answers, the longest first, in waves."""
        ranks, cut = self.engine.ranks, min(LARGEST_PIECE, self.sequences_per_wave)
        every = pieces(len(prompts), samples_per_prompt, cut)
        work = [one.num_samples * (expected_tokens[one.group] if expected_tokens else 1.0) for one in every]
        own = [every[i] for i in shared_out(work, ranks.world // ranks.engine_size)[ranks.engine]]
        requests = [
            (
                one.group * samples_per_prompt + one.first,
                Request(
                    prompt=prompts[one.group],
                    seed=request_seed(self.run.seed, step, prompts[one.group].serial) + one.first,
                    num_samples=one.num_samples,
                ),
            )
            for one in own
        ]
        return list(waves(requests, self.sequences_per_wave))

    def _cases(self, prompts: Sequence[Prompt], samples: Mapping[int, Sample]) -> list[Case]:
        """What the verifiers read: the responses as text, without their stop token."""
        stop = set(self.engine.stop_tokens)
        tokens = [sample.token_ids for sample in samples.values()]
        texts = self.tokenizer.batch_decode([list(ids[:-1] if ids[-1] in stop else ids) for ids in tokens])
        return [
            Case(prompt.domain, text, prompt.item, prompt.opens_thought)
            for prompt, text in zip(prompts, texts, strict=True)
        ]


def _requests(wave: Wave) -> list[Request]:
    return [request for _, request in wave]


def _rows(wave: Wave, made: Sequence[Sequence[Sample]]) -> dict[int, Sample]:
    """The samples of a wave by their row in the [G x N] table."""
    return {row + j: sample for (row, _), part in zip(wave, made, strict=True) for j, sample in enumerate(part)}


def _judged(
    samples: Mapping[int, Sample], cases: Sequence[Case], verdicts: Sequence[Verdict], readable: Collection[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Row and columns, but for its owner, of each sample, with the text of a readable one.

    Its tokens stay where it was made.
    """
    for (row, sample), case, verdict in zip(samples.items(), cases, verdicts, strict=True):
        yield (
            row,
            {
                "rewards": verdict.score,
                "outcomes": OUTCOMES.index(verdict.outcome),
                "verifier_seconds": verdict.seconds,
                "lengths": len(sample.token_ids),
                "truncated": sample.finish_reason == "length",
                "unanswered": verdict.is_unanswered,
                **({"text": (case.response, verdict.detail)} if row in readable else {}),
            },
        )


def paid(groups: Groups, recipe: Recipe) -> Groups:
    """The groups with the rewards that training pays in their domains."""
    how = {domain.name: domain.reward for domain in recipe.domains}
    rewards = [counted(row, how[prompt.domain]) for prompt, row in zip(groups.prompts, groups.rewards, strict=True)]
    return dataclasses.replace(groups, rewards=torch.stack(rewards)) if rewards else groups


def waves(requests: Sequence[tuple[int, Request]], max_sequences: int) -> Iterator[Wave]:
    """The requests in order, cut into lists of at most `max_sequences` samples, one request at least."""
    wave: Wave = []
    for row, request in requests:
        if wave and sum(other.num_samples for _, other in wave) + request.num_samples > max_sequences:
            yield wave
            wave = []
        wave.append((row, request))
    if wave:
        yield wave


def concatenated(parts: Sequence[Groups]) -> Groups:
    """Several groups of groups of one policy version as one, in order."""

    starts = [sum(len(part) for part in parts[:i]) for i in range(len(parts))]
    num_samples = parts[0].rewards.shape[1]
    return Groups(
        **{name: torch.cat([part.columns()[name] for part in parts]) for name in COLUMNS},
        prompts=tuple(prompt for part in parts for prompt in part.prompts),
        samples={
            start * num_samples + row: sample
            for start, part in zip(starts, parts, strict=True)
            for row, sample in part.samples.items()
        },
        policy_version=parts[0].policy_version,
    )
