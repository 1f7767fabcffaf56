"""The cosine length term against its formula, and its schedule."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from megatron_rl.algorithms.advantages import advantages
from megatron_rl.algorithms.shaping import cosine_length_term, length_term_is_on, overlong_penalty, shaped_rewards
from megatron_rl.config.checks import UserError
from megatron_rl.config.recipe_checks import check_recipe
from megatron_rl.config.records import Algorithm, CosineLength, FormatReward, Overlong, Truncation
from recipes.prorl_v2 import RECIPE
from recipes.variants.prorl_v2_format_reward import RECIPE as FORMAT_REWARD
from recipes.variants.prorl_v2_signed_rewards import RECIPE as SIGNED_REWARDS
from recipes.variants.prorl_v2_two_cosines import RECIPE as TWO_COSINES
from tests.samples import columns_of

TERM = CosineLength(eta_max=0.2, eta_min=-0.7, weight=0.5, steps_on=100, steps_off=500, starts_on=False)


def shaped(algorithm: Algorithm, step: int, *, limit: int = 64, **columns: list[float]) -> Tensor:
    """The shaped rewards of one group."""
    recipe = dataclasses.replace(
        RECIPE, algorithm=algorithm, sampling=dataclasses.replace(RECIPE.sampling, max_response_tokens=limit)
    )
    return shaped_rewards(columns_of(len(columns["rewards"]), **columns), recipe, step)


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
    off, on = (shaped(algorithm, step, rewards=[1.0, 0.0], lengths=[16, 48]) for step in (499, 500))
    assert off.tolist() == [[1.0, 0.0]]
    assert off.dtype == on.dtype == torch.float64
    for found, raw, length in zip(on[0].tolist(), [1.0, 0.0], [16, 48], strict=True):
        assert found == pytest.approx(raw + 0.5 * (-0.25 + 0.45 * math.cos(math.pi * length / 64)), abs=1e-12)


def test_without_a_term_rewards_are_never_shaped() -> None:
    algorithm = dataclasses.replace(RECIPE.algorithm, length=None)
    for step in (0, 550):
        assert shaped(algorithm, step, rewards=[1.0, 0.0], lengths=[16, 48]).tolist() == [[1.0, 0.0]]


def test_only_the_height_of_the_cosine_survives_the_group_mean() -> None:
    columns = {"rewards": [1.0, 0.0, 1.0], "lengths": [5, 60, 33]}
    found = []
    for eta_max, eta_min in ((0.2, -0.7), (0.0, -0.9), (5.9, 5.0)):
        term = dataclasses.replace(TERM, eta_max=eta_max, eta_min=eta_min, starts_on=True)
        algorithm = dataclasses.replace(RECIPE.algorithm, length=term)
        found.append(advantages(shaped(algorithm, 0, **columns), columns_of(3, **columns), algorithm))
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


@pytest.mark.parametrize("limit", [64, 65])
@pytest.mark.parametrize("buffer_tokens", [1, 16, 64])
def test_overlong_penalty_equals_dapos_formula(buffer_tokens: int, limit: int) -> None:
    found = overlong_penalty(torch.arange(80), limit, Overlong(buffer_tokens=buffer_tokens, factor=0.5)).tolist()
    for length, value in enumerate(found):
        excess = length - (limit - buffer_tokens)
        expected = 0.0 if excess <= 0 else 0.5 * min(excess, buffer_tokens) / buffer_tokens
        assert value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("how", "value"), [("multiply", 0.0), ("multiply", 0.25), ("replace", -0.5)])
def test_only_truncated_responses_are_punished_and_then_shaped_by_length(how: str, value: float) -> None:
    algorithm = dataclasses.replace(
        RECIPE.algorithm, truncation=Truncation(how=how, value=value), length=dataclasses.replace(TERM, starts_on=True)
    )
    columns = {"rewards": [0.5, 0.5, 1.0], "lengths": [64, 64, 10], "truncated": [True, False, False]}
    found = shaped(algorithm, 0, **columns)[0].tolist()
    term = [0.5 * (-0.25 + 0.45 * math.cos(math.pi * length / 64)) for length in (64, 64, 10)]
    first = 0.5 * value if how == "multiply" else value
    assert found == pytest.approx([first + term[0], 0.5 + term[1], 1.0 + term[2]], abs=1e-12)


def test_overlong_and_length_add_up() -> None:
    algorithm = dataclasses.replace(
        RECIPE.algorithm,
        overlong=Overlong(buffer_tokens=32, factor=1.0),
        length=dataclasses.replace(TERM, starts_on=True),
    )
    found = shaped(algorithm, 0, rewards=[1.0, 0.0], lengths=[48, 64])[0].tolist()
    term = [0.5 * (-0.25 + 0.45 * math.cos(math.pi * length / 64)) for length in (48, 64)]
    assert found == pytest.approx([1 - 0.5 + term[0], -1 + term[1]], abs=1e-12)


def test_the_rewards_of_the_step_stay_as_they_were_judged() -> None:
    groups = columns_of(2, rewards=[1.0, 0.0], lengths=[16, 48], truncated=[True, False])
    for truncation in (None, Truncation(how="replace", value=-0.5)):
        algorithm = dataclasses.replace(RECIPE.algorithm, truncation=truncation)
        found = shaped_rewards(groups, dataclasses.replace(RECIPE, algorithm=algorithm), 0)
        found = found - torch.ones(1, 2)  # as the loop takes the KL off them
        assert groups.rewards.tolist() == [[1.0, 0.0]]


def cosine(length: int, limit: int, at_zero: float, at_limit: float) -> float:
    """CosFn of arXiv 2502.03373."""
    return at_limit + 0.5 * (at_zero - at_limit) * (1 + math.cos(math.pi * length / limit))


def test_two_cosines_equal_the_formulas_at_every_length() -> None:
    algorithm, lengths = TWO_COSINES.algorithm, list(range(65))
    for reward, at_zero, at_limit in ((1.0, 2.0, 1.0), (0.0, -10.0, 0.0), (0.6, -10.0, 0.0)):
        rewards = [reward] * len(lengths)
        found = shaped(algorithm, 550, rewards=rewards, lengths=lengths)[0].tolist()
        cut = shaped(algorithm, 550, rewards=rewards, lengths=lengths, truncated=[True] * len(lengths))[0].tolist()
        for length, plain, beyond in zip(lengths, found, cut, strict=True):
            assert plain == pytest.approx(reward + 0.5 * cosine(length, 64, at_zero, at_limit), abs=1e-12)
            assert beyond == pytest.approx(reward - 0.5 * 10)
    off = shaped(algorithm, 0, rewards=[1.0, 0.0], lengths=[3, 4], truncated=[False, True])
    assert off.tolist() == [[1.0, 0.0]]


def test_with_two_cosines_right_answers_earn_more_when_short_and_wrong_ones_when_long() -> None:
    lengths = list(range(64))
    right, wrong = (
        shaped(TWO_COSINES.algorithm, 550, rewards=[reward] * 64, lengths=lengths)[0] for reward in (1.0, 0.0)
    )
    assert (right.diff() < 0).all() and (wrong.diff() > 0).all()
    assert right.min() > wrong.max()


KINDS = ("group_mean_then_batch", "group_mean_and_std")
SCORES, LENGTHS = [1.0, 0.0, 0.25, 0.0, 1.0, 1.0, 0.0, 0.5], [5, 9, 3, 7, 2, 8, 6, 4]


def advantages_under(paid: FormatReward | None, unanswered: list[bool], kind: str) -> Tensor:
    algorithm = dataclasses.replace(RECIPE.algorithm, length=None, format_reward=paid, advantage=kind)  # type: ignore[arg-type]
    groups = columns_of(4, rewards=SCORES, lengths=LENGTHS, unanswered=unanswered)
    return advantages(shaped_rewards(groups, dataclasses.replace(RECIPE, algorithm=algorithm), 0), groups, algorithm)


@pytest.mark.parametrize("kind", KINDS)
def test_the_blog_s_two_schemes_train_alike_where_every_response_has_an_answer(kind: str) -> None:
    """-1 / 1 is 2 R - 1 of 0 / 1: the group mean takes away the shift, a standard deviation the scale."""
    first, second = FORMAT_REWARD.algorithm.format_reward, SIGNED_REWARDS.algorithm.format_reward
    found = [advantages_under(paid, [False] * 8, kind) for paid in (None, first, second)]
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[1], found[2], rtol=1e-6, atol=1e-7)  # not bit for bit: 1e-8 is added to the std
    # Without a division by a standard deviation only the scale is left.
    plain, signed = (advantages_under(paid, [False] * 8, "group_mean") for paid in (first, second))
    torch.testing.assert_close(2 * plain, signed, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_they_differ_in_order_where_an_answer_is_missing_and_the_scheme_that_would_not_is_another(kind: str) -> None:
    first, second = FORMAT_REWARD.algorithm.format_reward, SIGNED_REWARDS.algorithm.format_reward
    missing = [False, False, False, True] + [False] * 4
    one, two = (advantages_under(paid, missing, kind)[0].tolist() for paid in (first, second))
    assert one[3] < one[1] < one[2] < one[0]  # the form is worse than a wrong answer
    assert two[1] < two[3] < two[0]  # and better
    same = FormatReward(wrong=-1.0, unanswered=2 * -0.5 - 1)
    torch.testing.assert_close(
        advantages_under(first, missing, kind), advantages_under(same, missing, kind), rtol=1e-6, atol=1e-7
    )


def test_format_comes_before_the_other_shaping() -> None:
    algorithm = dataclasses.replace(
        SIGNED_REWARDS.algorithm, length=None, truncation=Truncation(how="multiply", value=0.5)
    )
    columns = {"rewards": [1.0, 0.0, 0.0], "lengths": [64] * 3, "unanswered": [False, False, True]}
    assert shaped(algorithm, 0, **columns).tolist() == [[1.0, -1.0, -0.5]]  # type: ignore[arg-type]
    assert shaped(algorithm, 0, truncated=[True] * 3, **columns).tolist() == [[0.5, -0.5, -0.25]]  # type: ignore[arg-type]


def test_a_factor_by_which_a_truncated_response_would_gain_is_refused() -> None:
    def checked(how: str, paid: FormatReward | None) -> None:
        cut = Truncation(how=how, value=0.0)  # type: ignore[arg-type]
        algorithm = dataclasses.replace(RECIPE.algorithm, truncation=cut, format_reward=paid)
        check_recipe(dataclasses.replace(RECIPE, algorithm=algorithm))

    signed = SIGNED_REWARDS.algorithm.format_reward
    for paid in (None, FormatReward(wrong=0.0, unanswered=0.0)):
        checked("multiply", paid)
    checked("replace", signed)
    for paid in (signed, FORMAT_REWARD.algorithm.format_reward):
        with pytest.raises(UserError, match=r"more than the -\S+ of algorithm.format_reward; use how='replace'"):
            checked("multiply", paid)
