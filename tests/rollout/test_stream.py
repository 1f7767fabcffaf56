"""Requests streamed through vLLM have the tokens of a wave by itself, whatever is answered beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megatron_rl import device
from megatron_rl.rollout.stream import STEPS_BETWEEN_LOOKS, Wanted, streamed
from megatron_rl.runtime import parallel
from megatron_rl.types import Request
from tests.models import make_folder, make_run
from tests.ranks import run_ranks
from tests.rollout.test_engine import LIMITS, some_prompts, weights_of

NUM_SAMPLES, IN_FLIGHT = 6, 4  # so that there are many more samples than seats
SHORT, LONG = 5, 24  # tokens


def wanted_of() -> list[Wanted]:
    """Two ways of answering, in turn."""
    requests = [Request(prompt=one, seed=one.serial << 16, num_samples=NUM_SAMPLES) for one in some_prompts()]
    return [Wanted(one, LONG if place % 2 else SHORT, 1.3, 0.95) for place, one in enumerate(requests)]


def facts(folder: str) -> dict[str, Any]:
    """Runs on each rank: what the tests below look at."""
    from megatron_rl.rollout.engine import Engine

    run = make_run(folder, recipe=LIMITS, max_requests_in_flight=IN_FLIGHT)
    hardware = device.select(run.scale)
    engine = Engine(run, parallel.start(run.scale, hardware, 120), hardware)
    engine.load(weights_of(folder), 0)
    wanted, found = wanted_of(), {}

    def tokens(streamed_samples: Any) -> dict[int, list[list[int]]]:
        return {place: [list(one.token_ids) for one in samples] for place, samples in streamed_samples}

    alone = [
        engine.generate([one.request], max_response_tokens=one.max_response_tokens, temperature=1.3, top_p=0.95)[0]
        for one in wanted
    ]
    found["alone"] = tokens(enumerate(alone))
    asked: list[int] = []
    found["streamed"] = tokens(streamed(engine, iter(wanted), has_to_leave=lambda: bool(asked.append(1))))
    found["num_looks"] = len(asked)
    found["most_under_way"] = engine.llm.llm_engine.get_num_unfinished_requests()
    found["left_at_once"] = tokens(streamed(engine, wanted, has_to_leave=lambda: True))
    looks = iter([False, True])
    found["left_later"] = tokens(streamed(engine, wanted, has_to_leave=lambda: next(looks)))
    found["after_leaving"] = tokens(streamed(engine, wanted[::-1], has_to_leave=lambda: False))
    found["nothing"] = tokens(streamed(engine, [], has_to_leave=lambda: False))
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
def test_streamed_requests_have_the_tokens_that_they_have_alone(found: dict[str, Any]) -> None:
    assert found["streamed"] == found["alone"]
    assert found["most_under_way"] == 0, "nothing is left behind"
    lengths = {place: max(map(len, group)) for place, group in found["alone"].items()}
    assert lengths[0] <= SHORT < lengths[1], "each as it was asked"


@pytest.mark.ranks
def test_a_stream_that_has_to_leave_drops_the_rest_and_the_engine_is_as_before(found: dict[str, Any]) -> None:
    assert found["left_at_once"] == {} and found["nothing"] == {}
    assert 0 < len(found["left_later"]) < len(found["alone"])
    assert all(found["alone"][place] == group for place, group in found["left_later"].items())
    backward = found["after_leaving"]
    assert [backward[place] for place in sorted(backward, reverse=True)] == [
        found["alone"][place] for place in sorted(found["alone"])
    ]


@pytest.mark.ranks
def test_whether_to_leave_is_asked_every_few_steps(found: dict[str, Any]) -> None:
    num_steps = -(-len(found["alone"]) * NUM_SAMPLES * (SHORT + LONG) // 2 // IN_FLIGHT)
    assert 2 <= found["num_looks"] <= num_steps // STEPS_BETWEEN_LOOKS + 2
