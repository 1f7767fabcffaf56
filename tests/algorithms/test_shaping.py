"""The cosine length term against its formula, and its schedule."""

import dataclasses
import math

import pytest
import torch

from megatron_rl.algorithms.advantages import advantages
from megatron_rl.algorithms.shaping import cosine_length_term, length_term_is_on, shaped_rewards
from megatron_rl.config import CosineLength
from recipes.prorl_v2 import RECIPE

TERM = CosineLength(eta_max=0.2, eta_min=-0.7, weight=0.5, steps_on=100, steps_off=500, starts_on=False)


def test_term_equals_the_formula_at_every_length() -> None:
    found = cosine_length_term(torch.arange(65), 64, TERM).tolist()
    for length, value in enumerate(found):
        assert value == pytest.approx(-0.7 + 0.5 * (0.2 + 0.7) * (1 + math.cos(math.pi * length / 64)), abs=1e-12)
    assert found[0] == pytest.approx(0.2)
    assert found[64] == pytest.approx(-0.7)


def test_a_longer_answer_never_earns_more() -> None:
    found = cosine_length_term(torch.arange(8193), 8192, TERM)
    assert (found.diff() < 0).all()


@pytest.mark.parametrize("starts_on", [True, False])
def test_a_cycle_is_on_for_its_steps_and_off_for_the_others(starts_on: bool) -> None:
    term = dataclasses.replace(TERM, starts_on=starts_on)
    phases = [length_term_is_on(step, term) for step in range(1200)]
    expected = [True] * 100 + [False] * 500 if starts_on else [False] * 500 + [True] * 100
    assert phases == expected * 2


def test_rewards_move_only_while_the_term_is_on() -> None:
    algorithm = dataclasses.replace(RECIPE.algorithm, length=TERM)
    rewards, lengths = torch.tensor([[1.0, 0.0]]), torch.tensor([[16, 48]])
    off = shaped_rewards(rewards, lengths, limit=64, step=499, algorithm=algorithm)
    on = shaped_rewards(rewards, lengths, limit=64, step=500, algorithm=algorithm)
    assert off.tolist() == [[1.0, 0.0]]
    assert off.dtype == on.dtype == torch.float64
    for found, raw, length in zip(on[0].tolist(), [1.0, 0.0], [16, 48], strict=True):
        assert found == pytest.approx(raw + 0.5 * (-0.25 + 0.45 * math.cos(math.pi * length / 64)), abs=1e-12)


def test_without_a_term_rewards_are_never_shaped() -> None:
    algorithm = dataclasses.replace(RECIPE.algorithm, length=None)
    rewards, lengths = torch.tensor([[1.0, 0.0]]), torch.tensor([[16, 48]])
    for step in (0, 550):
        assert shaped_rewards(rewards, lengths, limit=64, step=step, algorithm=algorithm).tolist() == [[1.0, 0.0]]


def test_only_the_height_of_the_cosine_survives_the_group_mean() -> None:
    rewards, lengths = torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([[5, 60, 33]])
    found = []
    for eta_max, eta_min in ((0.2, -0.7), (0.0, -0.9), (5.9, 5.0)):
        term = dataclasses.replace(TERM, eta_max=eta_max, eta_min=eta_min, starts_on=True)
        algorithm = dataclasses.replace(RECIPE.algorithm, length=term)
        shaped = shaped_rewards(rewards, lengths, limit=64, step=0, algorithm=algorithm)
        found.append(advantages(shaped, torch.ones(1, 3, dtype=torch.bool), lengths, algorithm))
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])
