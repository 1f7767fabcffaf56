"""Weights of domains and difficulty: what is met more often than what, resumably, and nothing else changes."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import torch

from megatron_rl.config.draws import Difficulty
from megatron_rl.config.records import Sampling
from megatron_rl.data.draws import chance_of_meeting
from megatron_rl.data.items import Item
from megatron_rl.data.prompts import PromptStream, load_tokenizer
from megatron_rl.types import Groups

DEMO = Path(__file__).parents[2] / "demo"
ITEMS = [
    Item(id=f"{domain}{k}", domain=domain, prompt=f"{k:03d}", item={})
    for domain, number in (("math", 30), ("code", 7), ("logic", 13))
    for k in range(number)
]
WEIGHTS = {"math": 1.0, "code": 2.5, "logic": 0.5}
THINNED = Difficulty(memory=0.5, easy_rate=0.9, min_probability=0.2)
SAMPLES = 4


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(DEMO / "model")


def stream_of(tokenizer, items: list[Item] = ITEMS, seed: int = 1, weights: dict[str, float] | None = None):
    return PromptStream(items, tokenizer, seed=seed, max_prompt_tokens=8, weights=weights)


def sampling(difficulty: Difficulty | None) -> Sampling:
    return Sampling(
        prompts_per_step=8,
        samples_per_prompt=SAMPLES,
        temperature=1.0,
        top_p=1.0,
        max_prompt_tokens=8,
        max_response_tokens=8,
        difficulty=difficulty,
    )


def test_without_weights_and_difficulty_the_order_and_the_cursor_are_as_they_were(tokenizer) -> None:
    plain, asked = stream_of(tokenizer), stream_of(tokenizer)
    asked.pass_rates = dict.fromkeys((item.id for item in ITEMS), 1.0)
    assert plain.take(120) == asked.take(120, None, sampling(None))
    assert plain.position == asked.position == 120


def test_any_stretch_has_as_many_of_a_domain_as_its_weight_says(tokenizer) -> None:
    stream = stream_of(tokenizer, weights=WEIGHTS)
    domains = [prompt.domain for prompt in stream.take(4000)]
    draw = random.Random(1)
    for _ in range(200):
        start, length = draw.randrange(3000), draw.randrange(1, 1000)
        counts = Counter(domains[start : start + length])
        for name, weight in WEIGHTS.items():
            assert abs(counts[name] - length * weight / 4) < 6, (start, length, name)


def test_with_weights_every_prompt_of_a_domain_is_met_once_before_any_is_met_again(tokenizer) -> None:
    taken = stream_of(tokenizer, weights=WEIGHTS).take(2000)
    for name in WEIGHTS:
        mine = [prompt.id for prompt in taken if prompt.domain == name]
        every = sorted(item.id for item in ITEMS if item.domain == name)
        for start in range(0, len(mine) - len(every), len(every)):
            assert sorted(mine[start : start + len(every)]) == every


def test_a_weighted_stream_goes_on_from_any_position_and_does_not_depend_on_the_order_of_the_file(tokenizer) -> None:
    prompts = stream_of(tokenizer, weights=WEIGHTS).take(300)
    other = stream_of(tokenizer, ITEMS[::-1], weights=dict(reversed(WEIGHTS.items())))
    assert other.take(300) == prompts
    for position in (0, 1, 77, 250):
        other.seek(position)
        assert other.take(50) == prompts[position : position + 50]
    assert stream_of(tokenizer, seed=2, weights=WEIGHTS).take(300) != prompts


def test_a_far_position_is_as_when_one_gets_there_step_by_step(tokenizer) -> None:
    far = (1 << 16) + 5  # beyond what is shared out at once
    walked, sought = stream_of(tokenizer, weights=WEIGHTS), stream_of(tokenizer, weights=WEIGHTS)
    last = [walked._at(serial).item.id for serial in range(far)][-10:]
    sought.seek(far - 10)
    assert [prompt.id for prompt in sought.take(10)] == last


def test_equal_weights_times_any_number_are_the_same_stream(tokenizer) -> None:
    one = stream_of(tokenizer, weights=WEIGHTS).take(100)
    assert stream_of(tokenizer, weights={name: 3 * weight for name, weight in WEIGHTS.items()}).take(100) == one


def test_what_is_met_follows_from_seed_cursor_and_pass_rates_alone(tokenizer) -> None:
    whole = stream_of(tokenizer)
    whole.pass_rates = {item.id: (k % 5) / 4 for k, item in enumerate(ITEMS)}
    first, position = whole.take(60, None, sampling(THINNED)), whole.position
    rest = whole.take(60, None, sampling(THINNED))
    assert position > 60, "some were passed over"
    other = stream_of(tokenizer, ITEMS[::-1])
    other.pass_rates = dict(reversed(whole.pass_rates.items()))
    other.seek(position)
    assert other.take(60, None, sampling(THINNED)) == rest
    assert [prompt.serial for prompt in first + rest] == sorted({prompt.serial for prompt in first + rest})


def test_a_prompt_is_met_as_often_as_its_chance_says_and_never_not_at_all(tokenizer) -> None:
    rates = {item.id: rate for item, rate in zip(ITEMS, [0.0, 0.05, 0.5, 0.8, 0.95, 1.0, None] * 8, strict=False)}
    stream = stream_of(tokenizer)
    stream.pass_rates = {name: rate for name, rate in rates.items() if rate is not None}
    passes = 1500
    met: Counter[str] = Counter()
    while stream.position < passes * len(ITEMS):
        met.update(prompt.id for prompt in stream.take(1, None, sampling(THINNED)))
    for name, rate in rates.items():
        chance = chance_of_meeting(rate, THINNED, SAMPLES)
        assert chance >= 0.2
        assert abs(met[name] / passes - chance) < 5 * (chance * (1 - chance) / passes) ** 0.5 + 2 / passes, (name, rate)


def test_a_rate_is_the_mean_of_the_judged_rewards_and_remembers_the_ones_before(tokenizer) -> None:
    stream = stream_of(tokenizer)
    prompts = stream.take(3)

    def groups(rewards: list[list[float]], outcomes: list[list[int]]) -> Groups:
        columns = Groups.tables(4, rewards=sum(rewards, []), outcomes=sum(outcomes, []))
        return Groups(**columns, prompts=prompts, samples={}, policy_version=0)

    judged, failed = [0] * 4, [1] * 4
    stream.note(groups([[1, 1, 0, 0], [1, 0, 0, 0], [0] * 4], [judged, [0, 0, 1, 1], failed]), THINNED)
    assert stream.pass_rates == {prompts[0].id: 0.5, prompts[1].id: 0.5}
    stream.note(groups([[1] * 4, [0] * 4, [1] * 4], [judged, failed, judged]), THINNED)
    assert stream.pass_rates == {prompts[0].id: 0.75, prompts[1].id: 0.5, prompts[2].id: 1.0}
    assert torch.is_tensor(groups([[0] * 4] * 3, [judged] * 3).rewards)


def test_a_prompt_is_expected_to_be_answered_as_it_was_or_as_its_domain_is(tokenizer) -> None:
    stream = stream_of(tokenizer)
    prompts = stream.take(3)

    def note(lengths: list[int]) -> None:
        columns = Groups.tables(2, lengths=lengths)
        stream.note_lengths(Groups(**columns, prompts=prompts[:2], samples={}, policy_version=0))

    assert stream.expected_tokens(prompts, {}) == [1.0] * 3
    note([10, 20, 40, 40])
    note([35, 35, 20, 20])
    assert stream.response_tokens == {prompts[0].id: 25.0, prompts[1].id: 30.0}
    unmet = prompts[2].domain
    assert stream.expected_tokens(prompts, {unmet: 7.0, "other": 9.0}) == [25.0, 30.0, 7.0]
    assert stream.expected_tokens(prompts, {"other": 9.0, "another": 11.0}) == [25.0, 30.0, 10.0]
