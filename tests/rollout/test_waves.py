"""The wave store: what a checkpoint has left behind goes, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megatron_rl.rollout import waves
from megatron_rl.rollout.waves import WaveStore
from megatron_rl.types import Prompt, Request
from tests.samples import sample_of

OPTIONS: dict[str, Any] = {"max_response_tokens": 8, "temperature": 1.0, "top_p": 1.0}


def requests(seed: int = 1 << 16, num_samples: int = 2) -> list[Request]:
    prompt = Prompt(serial=3, id="i3", domain="math", token_ids=(4, 5), opens_thought=False, item={})
    return [Request(prompt=prompt, seed=seed, num_samples=num_samples)]


def store(
    directory: Path, step: int = 5, digest: str = "abc", min_seconds: float = 1.0, weights: str = "ab"
) -> WaveStore:
    start = {"weights": weights}
    return WaveStore(directory=directory, step=step, start=start, policy_digest=digest, min_seconds=min_seconds)


MADE = [(sample_of([7, 1], [-0.5, -0.25], version=5), sample_of([8, 9, 7], [-1.0, -2.0, -3.0], is_cut=True, version=5))]


def test_a_wave_is_found_as_it_was_generated(tmp_path: Path) -> None:
    store(tmp_path).keep(requests(), OPTIONS, MADE, 1.0)
    assert store(tmp_path).find(requests(), OPTIONS) == MADE


def test_a_wave_is_found_by_nothing_but_what_it_was_asked_for(tmp_path: Path) -> None:
    store(tmp_path).keep(requests(), OPTIONS, MADE, 1.0)
    assert store(tmp_path, step=6).find(requests(), OPTIONS) is None
    assert store(tmp_path, digest="abd").find(requests(), OPTIONS) is None
    assert store(tmp_path, weights="ac").find(requests(), OPTIONS) is None
    assert store(tmp_path).find(requests(seed=2 << 16), OPTIONS) is None
    assert store(tmp_path).find(requests(), OPTIONS | {"temperature": 1.2}) is None


def test_a_wave_that_was_cheap_is_not_kept(tmp_path: Path) -> None:
    store(tmp_path).keep(requests(), OPTIONS, MADE, 0.99)
    assert store(tmp_path).find(requests(), OPTIONS) is None


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_wave_is_as_good_as_none(tmp_path: Path, damage: str) -> None:
    store(tmp_path).keep(requests(), OPTIONS, MADE, 1.0)
    (path,) = tmp_path.glob("rollouts/*/*.wave")
    content = path.read_bytes()
    path.write_bytes(content[:-3] if damage == "cut" else content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    assert store(tmp_path).find(requests(), OPTIONS) is None


def test_a_checkpoint_clears_the_waves_before_it_and_keeps_those_of_the_step_under_way(tmp_path: Path) -> None:
    for step in (3, 4, 5, 6):
        store(tmp_path, step=step).keep(requests(), OPTIONS, MADE, 1.0)
    waves.clear(tmp_path, before_step=5)
    assert [store(tmp_path, step=step).find(requests(), OPTIONS) for step in (3, 4, 5, 6)] == [None, None, MADE, MADE]
