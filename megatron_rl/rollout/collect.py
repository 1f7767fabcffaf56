"""A step's groups: generated in waves, scored, and replaced until enough of them have something to teach."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from megatron_rl import parallel
from megatron_rl.algorithms.groups import is_informative, prompts_for_round
from megatron_rl.config import Recipe
from megatron_rl.data.prompts import PromptStream
from megatron_rl.log import get_logger
from megatron_rl.rewards.score import Scorer
from megatron_rl.rollout.engine import Engine
from megatron_rl.seeds import request_seed
from megatron_rl.spans import span
from megatron_rl.types import Collected, Groups, Prompt, Sample, State, Verdict


class Rollouts:
    """Answers prompts with the engine and scores the answers. Its methods are collective over the world."""

    def __init__(
        self, engine: Engine, tokenizer: Any, scorer: Scorer, *, run_seed: int, sequences_per_wave: int
    ) -> None:
        self.engine, self.tokenizer, self.scorer = engine, tokenizer, scorer
        self.run_seed, self.sequences_per_wave = run_seed, sequences_per_wave

    def collect(self, prompts: PromptStream, recipe: Recipe, state: State) -> Collected:
        """`prompts_per_step` informative groups, or fewer when `max_rounds` rounds did not find them.

        A round takes new prompts from the stream, more than are missing where the last step kept few; groups beyond
        what the step needs are dropped, because the policy will have moved on by the next step.
        """
        sampling, dynamic = recipe.sampling, recipe.algorithm.dynamic_sampling
        max_rounds = 1 if dynamic is None else dynamic.max_rounds
        wanted = sampling.prompts_per_step
        num_prompts, num_kept = prompts_for_round(wanted, state.keep_rate, wanted), 0
        kept: list[Groups] = []
        tried: list[Groups] = []
        while num_prompts and len(tried) < max_rounds:
            groups = self.answer(
                prompts.take(num_prompts),
                state.step,
                samples_per_prompt=sampling.samples_per_prompt,
                max_response_tokens=sampling.max_response_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
            )
            informative = list(range(len(groups)))
            if dynamic is not None:
                informative = is_informative(groups.rewards, groups.judged, dynamic.keeps).nonzero().flatten().tolist()
            kept.append(groups.take(informative))
            tried.append(dataclasses.replace(groups, samples={}))
            num_kept += len(informative)
            keep_rate = num_kept / sum(map(len, tried))
            num_prompts = prompts_for_round(wanted - num_kept, keep_rate, wanted) if num_kept < wanted else 0
        found = joined(kept)
        if num_prompts and self.engine.ranks.is_main:
            get_logger().warning(
                "step %d: %d of %d groups were worth training on after %d rounds; training on those",
                state.step, len(found), wanted, len(tried),
            )  # fmt: skip
        return Collected(
            groups=found.take(range(min(wanted, len(found)))),
            tried=joined(tried),
            rounds=len(tried),
            keep_rate=keep_rate,
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
    ) -> Groups:
        """One group per prompt, in order. Engines share the prompts out in turn and work through theirs in waves."""
        ranks, version = self.engine.ranks, self.engine.version
        assert version is not None, "the engine has no weights before its first refit"
        num_engines = ranks.world // ranks.engine_size
        mine = range(ranks.engine, len(prompts), num_engines)
        samples: dict[int, tuple[Sample, ...]] = {}
        per_wave = max(1, self.sequences_per_wave // samples_per_prompt)
        for start in range(0, len(mine), per_wave):
            wave = mine[start : start + per_wave]
            answers = self.engine.generate(
                [prompts[i] for i in wave],
                [request_seed(self.run_seed, step, prompts[i].serial) for i in wave],
                samples_per_prompt=samples_per_prompt,
                max_response_tokens=max_response_tokens,
                temperature=temperature,
                top_p=top_p,
            )
            samples.update(zip(wave, answers, strict=True))
        speaks = ranks.engine_rank == 0  # the ranks of an engine hold the same samples; one of them scores
        verdicts = self._score(prompts, samples) if speaks else {}
        rows = {i: _numbers(samples[i], verdicts[i]) for i in samples} if speaks else {}
        everyone = {i: numbers for part in parallel.gather(rows) for i, numbers in part.items()}
        table = torch.tensor([everyone[i] for i in range(len(prompts))], dtype=torch.float64)
        table = table.reshape(len(prompts), samples_per_prompt, 4)
        return Groups(
            prompts=tuple(prompts),
            rewards=table[..., 0],
            judged=table[..., 1] > 0,
            lengths=table[..., 2].long(),
            truncated=table[..., 3] > 0,
            owners=torch.arange(len(prompts)) % num_engines,
            samples=samples,
            policy_version=version,
        )

    @span("score")
    def _score(self, prompts: Sequence[Prompt], samples: dict[int, tuple[Sample, ...]]) -> dict[int, list[Verdict]]:
        if not samples:  # of fewer prompts than engines; an empty batch would be decoded as one empty text
            return {}
        stop = set(self.engine.stop_tokens)
        texts = self.tokenizer.batch_decode(
            [
                sample.token_ids[:-1] if sample.token_ids[-1] in stop else sample.token_ids
                for group in samples.values()
                for sample in group
            ]
        )
        cases = [prompts[i] for i, group in samples.items() for _ in group]
        verdicts = iter(self.scorer.score([(p.domain, text, p.item) for p, text in zip(cases, texts, strict=True)]))
        return {i: [next(verdicts) for _ in group] for i, group in samples.items()}


def _numbers(samples: Sequence[Sample], verdicts: Sequence[Verdict]) -> list[list[float]]:
    """Per sample: reward, judged, response tokens, truncated."""
    return [
        [verdict.score, verdict.outcome == "judged", len(sample.token_ids), sample.finish_reason == "length"]
        for sample, verdict in zip(samples, verdicts, strict=True)
    ]


def joined(parts: Sequence[Groups]) -> Groups:
    """Several groups of groups of one policy version as one, in order."""

    def cat(field: str) -> Tensor:
        return torch.cat([getattr(part, field) for part in parts])

    starts = [sum(len(part) for part in parts[:i]) for i in range(len(parts))]
    return Groups(
        prompts=tuple(prompt for part in parts for prompt in part.prompts),
        rewards=cat("rewards"),
        judged=cat("judged"),
        lengths=cat("lengths"),
        truncated=cat("truncated"),
        owners=cat("owners"),
        samples={
            start + i: group for start, part in zip(starts, parts, strict=True) for i, group in part.samples.items()
        },
        policy_version=parts[0].policy_version,
    )
