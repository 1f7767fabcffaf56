"""The seeds of a run are what they were: with others, a resumed run would answer the same prompts in other words."""

from __future__ import annotations

import pytest

from megatron_rl.runtime.seeds import SAMPLES_PER_REQUEST, request_seed


@pytest.mark.parametrize(
    ("run_seed", "step", "serial", "expected"),
    [
        (1, 0, 0, 1452930936409686016),
        (1, 0, 1, 2968028263756726272),
        (1, 1, 0, 3875301304520867840),
        (2, 0, 0, 4291470469409865728),
        (1, -1, 7, 2501892915520667648),
        (123456, 2999, 1535999, 1008138402142158848),
    ],
)
def test_seeds_stay_what_they_were(run_seed: int, step: int, serial: int, expected: int) -> None:
    assert request_seed(run_seed, step, serial) == expected


def test_no_two_prompts_share_seeds_and_every_part_of_the_key_counts() -> None:
    keys = [(run, step, serial) for run in range(4) for step in range(-1, 10) for serial in range(40)]
    seeds = {request_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(seed % SAMPLES_PER_REQUEST == 0 and 0 <= seed < 2**63 for seed in seeds)
