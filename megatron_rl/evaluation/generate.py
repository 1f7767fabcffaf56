"""The samples of an evaluation: cut into waves, which are kept whole, and streamed through engines that stay full."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from megatron_rl.data.items import Item
from megatron_rl.data.prompts import encode, held_out
from megatron_rl.evaluation import store
from megatron_rl.evaluation.keeper import Part
from megatron_rl.evaluation.plan import Ask, Evaluation, Policy
from megatron_rl.evaluation.store import SAMPLES, Wave
from megatron_rl.rollout.collect import waves
from megatron_rl.rollout.engine import Engine, Wanted
from megatron_rl.runtime import parallel
from megatron_rl.runtime.parallel import Ranks
from megatron_rl.runtime.preempt import Preempted, Preemption
from megatron_rl.runtime.seeds import request_seed
from megatron_rl.runtime.spans import span
from megatron_rl.types import Prompt, Request, Sample


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One benchmark put to one policy, cut into waves."""

    ask: Ask
    waves: tuple[tuple[Wave, tuple[Request, ...]], ...]

    @property
    def num_samples(self) -> int:
        return sum(request.num_samples for _, requests in self.waves for request in requests)


def samples_per_wave(num_samples: int, evaluation: Evaluation) -> int:
    """How many samples a wave has: as many as are decoded at once, but every engine has something to do.

    A kill costs the waves under way, and no more: the engine goes from one to the next without a pause.
    """
    return min(evaluation.scale.max_requests_in_flight, -(-num_samples // evaluation.scale.num_engines))


def prompts_of(ask: Ask, items: Sequence[Item], tokenizer: Any) -> tuple[Prompt, ...]:
    """The prompts of a benchmark, without those of too many tokens. Raises UserError where none is left."""
    limit, remedy = ask.answering.max_prompt_tokens, f"give --max-prompt-tokens, or a suite without {ask.name}"
    encoded = encode(items, tokenizer, max_prompt_tokens=limit, remedy=remedy)
    return held_out(encoded, max_prompts=len(items))


def asked_of(evaluation: Evaluation, policy: Policy, ask: Ask, prompts: Sequence[Prompt], size: int) -> Asked:
    """A benchmark's waves of at most `size` samples, the same on every rank; a group may be several requests."""
    wanted = ask.answering.samples_per_problem
    requests = [
        Request(
            prompt=prompt,
            seed=request_seed(evaluation.seed, ask.name, prompt.id) + first,
            num_samples=min(size, wanted - first),
        )
        for prompt in prompts
        for first in range(0, wanted, size)
    ]
    folder = store.folder_of(evaluation.directory, policy.name, ask.name)
    cut = waves(list(enumerate(requests)), size)
    return Asked(
        ask=ask,
        waves=tuple(
            (Wave(folder=folder, number=number), tuple(request for _, request in wave))
            for number, wave in enumerate(cut)
        ),
    )


class Generator:
    """Answers waves with one engine for all policies of an evaluation. Its methods are collective over the world."""

    def __init__(self, evaluation: Evaluation, engine: Engine, ranks: Ranks, preemption: Preemption) -> None:
        self.evaluation, self.engine, self.ranks = evaluation, engine, ranks
        self.preemption = preemption

    def answer(
        self,
        policy: Policy,
        asked: Sequence[Asked],
        *,
        tells: Callable[[int], None],
        keeps: Callable[[Ask, Wave, tuple[Part, ...]], None],
    ) -> None:
        """Generates the waves that are not stored yet.

        `tells` is given the number of samples finished by this rank's engine, `keeps` each wave whose last sample was
        finished, on the engine's first rank. Raises Preempted on all ranks; waves that were whole have been kept.
        """
        missing = [(one.ask, wave, requests) for one in asked for wave, requests in one.waves]
        found = parallel.gather([wave.has(SAMPLES) for _, wave, _ in missing] if self.ranks.is_main else None)[0]
        missing = [one for one, is_there in zip(missing, found, strict=True) if not is_there]
        if missing:
            self._load(policy)
        is_whole = self._generate(missing[self.ranks.engine :: self.evaluation.scale.num_engines], tells, keeps)
        if reasons := [one for one in parallel.gather(None if is_whole else self.preemption.reason) if one]:
            raise Preempted(reasons[0])

    def _load(self, policy: Policy) -> None:
        self.engine.wake("weights")
        self.engine.load(weights_of(policy), 0)
        self.engine.wake("kv_cache")

    @span("generate")
    def _generate(
        self,
        waves: Sequence[tuple[Ask, Wave, tuple[Request, ...]]],
        tells: Callable[[int], None],
        keeps: Callable[[Ask, Wave, tuple[Part, ...]], None],
    ) -> bool:
        """Generates this engine's waves, one flowing into the next; False where it had to leave before the last."""
        if not waves:
            return True
        wanted = [
            Wanted(requests, how.max_response_tokens, how.temperature, how.top_p)
            for how, requests in ((ask.answering, requests) for ask, _, requests in waves)
        ]
        num_whole = 0
        streamed = self.engine.stream(wanted, keeps_logprobs=False, has_to_leave=self._has_to_leave, tells=tells)
        with closing(streamed):
            for number, samples in streamed:
                num_whole += 1
                if self.ranks.engine_rank == 0:
                    ask, wave, requests = waves[number]
                    parts = [self._part(ask, *one) for one in zip(requests, samples, strict=True)]
                    keeps(ask, wave, tuple(parts))
        return num_whole == len(waves)

    def _has_to_leave(self) -> bool:
        return parallel.as_engine_leader(self.ranks, bool(self.preemption.reason))

    def _part(self, ask: Ask, request: Request, samples: tuple[Sample, ...]) -> Part:
        prompt = request.prompt
        first = request.seed - request_seed(self.evaluation.seed, ask.name, prompt.id)
        return Part(prompt.id, first, request.seed, prompt.opens_thought, samples)


def weights_of(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a policy's folder by Hugging Face name, one at a time."""
    from safetensors import safe_open

    for path in policy.weights:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                yield name, file.get_tensor(name)
