"""Pieces on real engines: the same tokens for any number of engines and size of piece, and after a kill."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from megatron_rl import device
from megatron_rl.data.prompts import load_tokenizer
from megatron_rl.rewards.score import Scorer
from megatron_rl.rollout import collect
from megatron_rl.rollout.collect import Rollouts
from megatron_rl.rollout.waves import WaveStore
from megatron_rl.runtime import parallel
from megatron_rl.runtime.preempt import Preempted, Preemption
from megatron_rl.types import Groups, Prompt
from tests.models import make_run
from tests.ranks import run_ranks
from tests.rollout.test_collect import DEMO
from tests.rollout.test_engine import weights_of

WIDE, WAVE, STEP = 512, 96, 3  # samples of BroRL's group; of a wave: several of them in each engine
OPTIONS: dict[str, Any] = {"max_response_tokens": 16, "temperature": 1.2, "top_p": 1.0}
SIZES = {16: 7, WIDE: 2}  # samples of a group -> groups


class Told(Preemption):
    """Hears the notice when so many waves are done."""

    def __init__(self, done: list[int], after_waves: int) -> None:
        super().__init__(None, 0.0)
        self.done, self.after_waves = done, after_waves

    @property
    def reason(self) -> str | None:  # type: ignore[override]
        return "told to leave" if len(self.done) >= self.after_waves else None


def prompts(num_groups: int) -> list[Prompt]:
    """Some of the demo's characters."""
    return [
        Prompt(serial=k, id=str(k), domain="math", token_ids=tuple(range(4, 8 + k)), opens_thought=False,
               item={"answer": "5"})
        for k in range(num_groups)
    ]  # fmt: skip


def facts_of(groups: Groups) -> dict[str, Any]:
    """The tokens that are here, hashed by their row, and what all ranks know of all."""
    return {
        "tokens": {
            row: hashlib.sha256(sample.token_ids.tobytes()).hexdigest()[:16] for row, sample in groups.samples.items()
        },
        "known": [groups.rewards.tolist(), groups.lengths.tolist(), groups.truncated.tolist()],
        "owners": groups.owners.tolist(),
    }


def answers(pieces: list[int], directory: str) -> dict[str, Any]:
    """Runs on every rank, an engine each: groups of both sizes in pieces of each size, and once more with a kill."""
    from megatron_rl.rollout.engine import Engine

    found: dict[str, Any] = {}
    run = make_run(DEMO / "model", devices_per_node=int(os.environ["WORLD_SIZE"]), sequences_per_wave=WAVE)
    run, hardware = dataclasses.replace(run, directory=Path(directory)), device.select(run.scale)
    ranks = parallel.start(run.scale, hardware, 120)
    engine = Engine(run, ranks, hardware)
    engine.load(weights_of(str(DEMO / "model")), 0)
    tokenizer, stream, done = load_tokenizer(DEMO / "model"), engine.stream, []

    def counted(*arguments: Any, **options: Any) -> Any:
        for place, made in stream(*arguments, **options):
            done.append(sum(map(len, made)))
            yield place, made

    engine.stream = counted  # type: ignore[method-assign]
    store = WaveStore(directory=run.directory, step=STEP, start=run.identity, policy_digest="", min_seconds=0.0)
    with Scorer(num_processes=1, timeout_seconds=20.0) as scorer:

        def answered(samples: int, preemption: Preemption, store: WaveStore | None) -> Groups:
            rollouts = Rollouts(engine, tokenizer, scorer, preemption, run)
            asked = prompts(SIZES[samples])
            known = [(9.0, 4.0)[k % 2] for k in range(SIZES[samples])]
            return rollouts.answer(
                asked, STEP, samples_per_prompt=samples, store=store, expected_tokens=known, **OPTIONS
            )

        for piece in pieces:
            collect.LARGEST_PIECE = piece  # type: ignore[misc]
            for samples in SIZES:
                found[f"{samples} by {piece}"] = facts_of(answered(samples, Preemption(None, 0.0), None))
        done.clear()
        try:
            answered(WIDE, Told(done, 1), store)
        except Preempted as left:
            found["left"] = {"reason": str(left), "made": list(done)}
        done.clear()
        found["again"] = facts_of(answered(WIDE, Preemption(None, 0.0), store))
        found["made_again"] = list(done)
    engine.close()
    return found


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    directory = str(tmp_path_factory.mktemp("one"))
    return run_ranks("tests.rollout.test_pieces_on_engines:answers", 1, pieces=[WIDE, 7], directory=directory)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    directory = str(tmp_path_factory.mktemp("two"))
    return run_ranks("tests.rollout.test_pieces_on_engines:answers", 2, pieces=[32], directory=directory)


def together(ranks: list[dict[str, Any]], name: str) -> dict[str, str]:
    """The tokens of all engines."""
    return {row: digest for rank in ranks for row, digest in rank[name]["tokens"].items()}


@pytest.mark.ranks
@pytest.mark.parametrize("samples", SIZES)
def test_tokens_are_the_same_for_any_number_of_engines_and_size_of_piece(
    samples: int, one: list[dict[str, Any]], two: list[dict[str, Any]]
) -> None:
    whole = together(one, f"{samples} by {WIDE}")
    assert len(whole) == SIZES[samples] * samples and len(set(whole.values())) > 16
    assert together(one, f"{samples} by 7") == together(two, f"{samples} by 32") == whole
    known = one[0][f"{samples} by {WIDE}"]["known"]
    assert [rank[f"{samples} by 32"]["known"] for rank in two] == [known, known]


@pytest.mark.ranks
def test_both_engines_answer_half_of_a_large_group(two: list[dict[str, Any]]) -> None:
    for group in two[0][f"{WIDE} by 32"]["owners"]:
        assert [group.count(engine) for engine in (0, 1)] == [WIDE // 2, WIDE // 2]


@pytest.mark.ranks
def test_a_killed_step_repeats_no_wave_and_ends_with_the_same_tokens(
    one: list[dict[str, Any]], two: list[dict[str, Any]]
) -> None:
    assert together(one, "again") == together(two, "again") == together(two, f"{WIDE} by 32")
    for rank in two:
        assert rank["left"]["reason"] == "told to leave"
        made = rank["left"]["made"]
        assert made == [WAVE] * len(made) and sum(made) < WIDE, "what was begun is finished, and nothing else is begun"
        assert sum(rank["made_again"]) == WIDE - sum(made)  # of this engine's half of both groups
