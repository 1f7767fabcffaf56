"""Which samples a person gets to read follows from seed, step, domain and prompts alone."""

from __future__ import annotations

from megatron_rl.rollout.examples import chosen
from megatron_rl.types import Prompt


def prompts(count: int, first: int = 0, domains: tuple[str, ...] = ("math", "code")) -> list[Prompt]:
    return [
        Prompt(serial=i, id=str(i), domain=domains[i % len(domains)], token_ids=(), opens_thought=False, item={})
        for i in range(first, first + count)
    ]


def test_each_domain_has_so_many_of_different_prompts() -> None:
    found = chosen(prompts(40), 16, seed=1, step=5, per_domain=2)
    groups = [row // 16 for row in found]
    assert len(found) == 4 and len(set(groups)) == 4
    assert sorted(group % 2 for group in groups) == [0, 0, 1, 1]


def test_few_prompts_give_several_samples_each_and_never_one_twice() -> None:
    found = chosen(prompts(1), 16, seed=1, step=5, per_domain=5)
    assert len(found) == 5
    assert len(chosen(prompts(1), 3, seed=1, step=5, per_domain=5)) == 3
    assert chosen(prompts(4), 3, seed=1, step=5, per_domain=0) == {}


def test_a_step_done_again_has_the_same_and_another_step_or_seed_has_others() -> None:
    one = chosen(prompts(40), 16, seed=1, step=5, per_domain=2)
    assert chosen(prompts(40), 16, seed=1, step=5, per_domain=2) == one
    assert chosen(prompts(40), 16, seed=1, step=6, per_domain=2) != one
    assert chosen(prompts(40), 16, seed=2, step=5, per_domain=2) != one


def test_every_place_in_a_group_is_chosen_about_as_often() -> None:
    places = [row % 4 for step in range(400) for row in chosen(prompts(8), 4, seed=1, step=step, per_domain=1)]
    assert len(places) == 800
    assert all(150 < places.count(place) < 250 for place in range(4))


def test_rounds_give_what_one_round_of_all_prompts_would() -> None:
    whole = chosen(prompts(40), 4, seed=1, step=5, per_domain=2)
    parts = [chosen(prompts(20, first), 4, seed=1, step=5, per_domain=2) for first in (0, 20)]
    merged = sorted((order, row + 80 * i) for i, part in enumerate(parts) for row, order in part.items())
    of_domain = [[row for _, row in merged if row // 4 % 2 == domain][:2] for domain in (0, 1)]
    assert sorted(row for rows in of_domain for row in rows) == sorted(whole)
