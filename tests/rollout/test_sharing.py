"""Pieces of groups over engines: the same samples for any number of engines and any size of piece."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_rl.data.prompts import load_tokenizer
from megatron_rl.rewards.score import Scorer
from megatron_rl.rollout import collect
from megatron_rl.rollout.collect import Rollouts
from megatron_rl.rollout.engine import Wanted
from megatron_rl.runtime import parallel
from megatron_rl.runtime.preempt import Preemption
from megatron_rl.types import Groups, Prompt, Request, Sample, State
from tests.models import make_run
from tests.rollout.test_collect import DEMO, ONE, VERSION
from tests.samples import sample_of

N = 12
FIELDS = ("rewards", "outcomes", "lengths", "truncated")
OPTIONS = {"samples_per_prompt": N, "max_response_tokens": 40, "temperature": 1.0, "top_p": 1.0}


class SeededEngine:
    """Answers a request by its seeds alone, as an engine on a CPU does, a prompt's own number of tokens long."""

    prompt_tokens, cached_tokens = 8, 6

    def __init__(self, engine: int, num_engines: int) -> None:
        self.ranks = dataclasses.replace(ONE, rank=engine, world=num_engines, engine=engine)
        self.version, self.stop_tokens = VERSION, (1,)
        self.asked: list[Request] = []

    def stream(self, waves: Iterable[Wanted]) -> Iterator[tuple[int, list[tuple[Sample, ...]]]]:
        for place, wave in enumerate(waves):
            self.asked += wave.requests
            yield (
                place,
                [
                    tuple(self.sample(one.seed + j, 1 + one.prompt.serial % 30) for j in range(one.num_samples))
                    for one in wave.requests
                ],
            )

    def sample(self, seed: int, length: int) -> Sample:
        tokens = [3 + (seed * 7919 + place) % 50 for place in range(length)]
        return sample_of(tokens, [-0.5] * length, version=VERSION)


class Gathered(Exception):
    """Raised where an engine has done its part and would wait for the others."""


def prompts() -> list[Prompt]:
    return [
        Prompt(
            serial=k, id=str(k), domain=("math", "logic")[k % 5 == 0], token_ids=(3, 4 + k), opens_thought=False,
            item={"answer": "5"} if k % 5 else {"task": "x", "entry": {}},
        )
        for k in range(9)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def scorer() -> Any:
    with Scorer(num_processes=1, timeout_seconds=20.0) as scorer:
        yield scorer


def answered(
    num_engines: int, piece: int, wave: int, expected: dict[str, float], scorer: Scorer, monkeypatch: Any
) -> tuple[Groups, list[list[Request]], Rollouts]:
    """The groups with the samples of all engines, what each engine was asked, and the last engine's rollouts."""
    monkeypatch.setattr(collect, "LARGEST_PIECE", piece)
    tokenizer, parts, asked, samples = load_tokenizer(DEMO / "model"), [], [], {}
    run = make_run(DEMO / "model", sequences_per_wave=wave)
    for turn in (0, 1):  # what the engines made is known to all in the second
        for engine in range(num_engines):
            rollouts = Rollouts(
                SeededEngine(engine, num_engines),
                tokenizer,
                scorer,
                Preemption(None, 0.0),
                run,  # type: ignore[arg-type]
            )

            def gather(part: Any, turn: int = turn) -> Any:
                if turn:
                    return parts
                # Each took a second longer than the one before.
                parts.append((*part[:2], part[2]._replace(seconds=1.0 + part[0]), part[3]))
                raise Gathered

            monkeypatch.setattr(parallel, "gather", gather)
            try:
                known = [expected[one.domain] for one in prompts()] if expected else []
                groups = rollouts.answer(prompts(), 3, expected_tokens=known, **OPTIONS)
            except Gathered:
                asked.append(rollouts.engine.asked)  # type: ignore[attr-defined]
            else:
                samples |= groups.samples
    return dataclasses.replace(groups, samples=samples), asked, rollouts


@pytest.mark.parametrize("expected", [{}, {"math": 9.0, "logic": 30.0}, {"math": 9.0, "logic": 2.0}])
def test_samples_are_the_same_for_any_number_of_engines_and_any_size_of_piece(
    expected: dict[str, float], scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _, _ = answered(1, N, 300, {}, scorer, monkeypatch)
    for num_engines, piece, wave in ((1, 5, 300), (2, N, 300), (3, 4, 8), (4, 1, 3)):
        found, asked, rollouts = answered(num_engines, piece, wave, expected, scorer, monkeypatch)
        assert dict(found.samples) == dict(whole.samples), (num_engines, piece)
        for field in FIELDS:
            assert torch.equal(getattr(found, field), getattr(whole, field)), field
        assert all(one.num_samples <= piece for share in asked for one in share)
        # They took 1, 2, .. seconds.
        assert rollouts.idle_tails == {engine: num_engines - 1.0 - engine for engine in range(num_engines)}
        assert rollouts.spent.cached_tokens == 0.75 * rollouts.spent.prompt_tokens > 0


def test_what_is_expected_to_take_longer_comes_first_and_no_engine_gets_much_more(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {"math": 10.0, "logic": 30.0}
    _, asked, _ = answered(3, 4, 300, expected, scorer, monkeypatch)
    work = [[one.num_samples * expected[one.prompt.domain] for one in share] for share in asked]
    assert all(share == sorted(share, reverse=True) for share in work)
    assert max(map(sum, work)) - min(map(sum, work)) <= 4 * 30


def test_without_anything_known_groups_go_to_the_engines_in_turn(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, asked, _ = answered(2, N, 300, {}, scorer, monkeypatch)
    assert [[one.prompt.serial for one in share] for share in asked] == [[0, 2, 4, 6, 8], [1, 3, 5, 7]]


def test_a_state_remembers_how_long_the_answers_of_a_domain_are(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    groups, _, _ = answered(1, N, 300, {}, scorer, monkeypatch)
    logic = sum(1 + k % 30 for k in (0, 5)) / 2
    assert groups.running_lengths({})["logic"] == logic
    found = groups.running_lengths({"logic": 10.0, "code": 4.0})
    assert found["logic"] == (10.0 + logic) / 2 and set(found) == {"logic", "math"}
    assert State.fresh().response_tokens == {}
