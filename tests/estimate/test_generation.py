"""The simulator of generation against one that takes a decoding step at a time, and what it must never do."""

from __future__ import annotations

import random

import pytest

from megatron_rl.estimate.generation import Decoding, Lengths, decode_seconds, simulate
from megatron_rl.estimate.sharing import pieces, shared_out

COST = Decoding(step_seconds=3.5e-3, sequence_seconds=6e-6, token_seconds=1.1e-8, prefill_token_seconds=1e-5)
LENGTHS = Lengths(median_tokens=60, sigma_of_prompts=0.7, sigma_within=0.5)


def step_by_step(requests: list[tuple[int, int]], slots: int, cost: Decoding) -> tuple[float, int]:
    """Seconds and tokens of the same engine, one decoding step after the other."""
    waiting, running, seconds, tokens = list(requests), [], 0.0, 0
    while waiting or running:
        while waiting and len(running) < slots:
            prompt, left = waiting.pop(0)
            running.append([prompt, left])
        read = sum(context for context, _ in running)
        seconds += cost.step_seconds + cost.sequence_seconds * len(running) + cost.token_seconds * read
        tokens += len(running)
        running = [[context + 1, left - 1] for context, left in running if left > 1]
    return seconds, tokens


@pytest.mark.parametrize("slots", [1, 3, 8, 100])
def test_events_take_the_time_of_single_steps_and_no_token_is_lost(slots: int) -> None:
    draw = random.Random(slots)
    requests = [(draw.randrange(1, 40), draw.randrange(1, 90)) for _ in range(50)]
    seconds, tokens = step_by_step(requests, slots, COST)
    assert tokens == sum(length for _, length in requests)
    assert decode_seconds(requests, slots, COST) == pytest.approx(seconds, rel=1e-9)


def test_more_slots_never_take_longer() -> None:
    for seed in range(20):
        requests = [(10, length) for group in LENGTHS.draw(8, 8, 400, seed) for length in group]
        found = [decode_seconds(requests, slots, COST) for slots in (1, 2, 3, 4, 6, 8, 16, 32, 64)]
        assert all(more <= less + 1e-9 for less, more in zip(found, found[1:], strict=False))


@pytest.mark.parametrize("piece", [None, 1, 3, 8, 64])
def test_every_sample_is_answered_once_however_it_is_shared_out(piece: int | None) -> None:
    drawn = LENGTHS.draw(7, 8, 400, 1)
    how = {"prompt_tokens": 10, "slots": 16, "cost": COST}
    found = simulate(drawn, num_engines=3, largest_piece=piece, **how)
    assert (found.num_samples, found.num_tokens) == (56, sum(map(sum, drawn)))
    assert 0 <= found.idle_seconds < found.seconds
    one = simulate(drawn, num_engines=1, largest_piece=piece, **how)
    assert found.seconds < one.seconds and one.idle_seconds == 0


def test_pieces_even_out_a_group_that_is_much_longer_than_the_others() -> None:
    drawn = [[300] * 64, [10] * 64, [10] * 64, [10] * 64]
    how = {"prompt_tokens": 10, "num_engines": 4, "slots": 16, "cost": COST}
    whole = simulate(drawn, largest_piece=None, **how)
    cut = simulate(drawn, largest_piece=16, **how)
    assert cut.seconds < 0.35 * whole.seconds and cut.idle_seconds < 0.1 * whole.idle_seconds


@pytest.mark.parametrize("num_engines", [1, 2, 5])
def test_a_division_has_every_piece_once_and_no_engine_far_ahead(num_engines: int) -> None:
    draw = random.Random(num_engines)
    cut = pieces(9, 20, 6)
    assert [(piece.group, piece.first + j) for piece in cut for j in range(piece.num_samples)] == [
        (group, sample) for group in range(9) for sample in range(20)
    ]
    expected = [piece.num_samples * draw.uniform(1, 5) for piece in cut]
    shares = shared_out(expected, num_engines)
    assert sorted(i for share in shares for i in share) == list(range(len(cut)))
    work = [sum(expected[i] for i in share) for share in shares]
    assert max(work) - min(work) <= max(expected)
    assert all(expected[a] >= expected[b] for share in shares for a, b in zip(share, share[1:], strict=False))
