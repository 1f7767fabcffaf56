"""Waves streamed through vLLM have the tokens that each has by itself, whatever is answered beside them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_rl import device
from megatron_rl.rollout.engine import AHEAD, STEPS_BETWEEN_LOOKS, Wanted
from megatron_rl.runtime import parallel
from megatron_rl.types import Request
from tests.models import make_folder, make_run
from tests.ranks import run_ranks
from tests.rollout.test_engine import LIMITS, some_prompts, weights_of

NUM_SAMPLES, IN_FLIGHT = 6, 4  # so that there are many more samples than seats
SHORT, LONG = 5, 24  # tokens


def wanted_of() -> list[Wanted]:
    """Two ways of answering, in turn; every third wave is of two requests."""
    requests = [Request(prompt=one, seed=one.serial << 16, num_samples=NUM_SAMPLES) for one in some_prompts()]
    waves = [requests[i : i + 1] if i % 3 else [requests[i], requests[0]] for i in range(len(requests))]
    return [Wanted(wave, LONG if place % 2 else SHORT, 1.3, 0.95) for place, wave in enumerate(waves)]


def facts(folder: str) -> dict[str, Any]:
    """Runs on each rank: what the tests below look at."""
    from megatron_rl.rollout.engine import Engine

    run = make_run(folder, recipe=LIMITS, max_requests_in_flight=IN_FLIGHT)
    hardware = device.select(run.scale)
    engine = Engine(run, parallel.start(run.scale, hardware, 120), hardware)
    engine.load(weights_of(folder), 0)
    wanted, found, core = wanted_of(), {}, engine.llm.llm_engine
    step, steps = core.step, []
    core.step = lambda: steps.append(core.get_num_unfinished_requests()) or step()

    def tokens(waves: Any) -> dict[int, list[list[list[int]]]]:
        return {place: [[list(one.token_ids) for one in group] for group in samples] for place, samples in waves}

    found["alone"] = tokens(enumerate(engine.generate(wave.requests, **wave.options) for wave in wanted))
    found["steps_alone"] = len(steps)
    asked: list[int] = []
    told: list[int] = []
    steps.clear()
    state = torch.random.get_rng_state()
    streamed = engine.stream(iter(wanted), has_to_leave=lambda: bool(asked.append(1)), tells=told.append)
    found["streamed"] = tokens(streamed)
    found["same_random_state"] = torch.equal(state, torch.random.get_rng_state())
    found |= {"num_looks": len(asked), "num_told": sum(told), "steps": len(steps), "most_under_way": max(steps)}
    found["left_behind"] = core.get_num_unfinished_requests()
    found["left_at_once"] = tokens(engine.stream(wanted, has_to_leave=lambda: True))
    looks = iter([False, True])
    found["left_later"] = tokens(engine.stream(wanted, has_to_leave=lambda: next(looks)))
    found["after_leaving"] = tokens(engine.stream(wanted[::-1]))
    failing = engine.stream(wanted)
    with pytest.raises(OSError, match="no room"), closing(failing):
        for _ in failing:
            raise OSError("no room")
    found["left_by_a_failure"] = core.get_num_unfinished_requests()
    found["after_a_failure"] = tokens(engine.stream(wanted))
    found["nothing"] = tokens(engine.stream([]))
    engine.close()
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = make_folder(tmp_path_factory.mktemp("qwen2"))
    (one,) = run_ranks("tests.rollout.test_stream:facts", 1, folder=str(Path(folder)))
    return {
        name: {int(place): group for place, group in value.items()} if isinstance(value, dict) else value
        for name, value in one.items()
    }


@pytest.mark.ranks
def test_streamed_waves_have_the_tokens_that_they_have_alone(found: dict[str, Any]) -> None:
    assert found["streamed"] == found["alone"]
    assert found["left_behind"] == 0
    assert found["num_told"] == sum(len(group) for wave in found["alone"].values() for group in wave)
    lengths = {place: max(len(one) for group in wave for one in group) for place, wave in found["alone"].items()}
    assert lengths[0] <= SHORT < lengths[1], "each as it was asked"
    assert found["same_random_state"], "what vLLM draws is not the actor's"


@pytest.mark.ranks
def test_no_seat_stays_empty_and_no_wave_is_taken_early(found: dict[str, Any]) -> None:
    assert found["steps"] < found["steps_alone"], "a wave's last samples are decoded beside the next one's first"
    assert IN_FLIGHT < found["most_under_way"] < IN_FLIGHT + AHEAD + NUM_SAMPLES


@pytest.mark.ranks
def test_a_stream_that_has_to_leave_drops_the_rest_and_the_engine_is_as_before(found: dict[str, Any]) -> None:
    assert found["left_at_once"] == {} and found["nothing"] == {}
    assert 0 < len(found["left_later"]) < len(found["alone"])
    assert all(found["alone"][place] == wave for place, wave in found["left_later"].items())
    backward = found["after_leaving"]
    assert [backward[place] for place in sorted(backward, reverse=True)] == [
        found["alone"][place] for place in sorted(found["alone"])
    ]


@pytest.mark.ranks
def test_who_fails_between_two_waves_leaves_nothing_in_the_engine(found: dict[str, Any]) -> None:
    assert found["left_by_a_failure"] == 0
    assert found["after_a_failure"] == found["alone"]


@pytest.mark.ranks
def test_whether_to_leave_is_asked_every_few_steps(found: dict[str, Any]) -> None:
    assert 2 <= found["num_looks"] == -(-found["steps"] // STEPS_BETWEEN_LOOKS)
