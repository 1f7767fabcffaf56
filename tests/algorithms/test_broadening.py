"""BroRL's theorem 1 against finite differences written in plain Python, lemma 2 against every possible draw."""

import itertools
import math
import random

import pytest
import torch

from megatron_rl.algorithms.broadening import MassChange, expected_unsampled_squares, logit_change, mass_change

V = 40
REWARDS = [(1.0, -1.0), (1.0, 0.0), (0.0, -1.0), (0.25, -3.0), (5.0, -0.1)]
Case = tuple[list[float], list[bool], list[int]]  # logits, which are correct, the draws


def softmax(logits: list[float]) -> list[float]:
    weights = [math.exp(logit) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def make_case(num_samples: int, seed: int) -> Case:
    rng = random.Random(seed)
    logits = [rng.gauss(0, 2) for _ in range(V)]
    return logits, [rng.random() < 0.4 for _ in range(V)], rng.choices(range(V), softmax(logits), k=num_samples)


def terms_of(case: Case, correct: float, incorrect: float, num_samples: int, step_size: float) -> MassChange:
    logits, is_correct, draws = case
    is_sampled = torch.zeros(V, dtype=torch.bool)
    is_sampled[draws] = True
    return mass_change(
        torch.tensor(softmax(logits), dtype=torch.float64),
        torch.tensor(is_correct),
        is_sampled,
        reward_correct=correct,
        reward_incorrect=incorrect,
        num_samples=num_samples,
        step_size=step_size,
    )


def mass_after(case: Case, correct: float, incorrect: float, num_samples: int, step_size: float) -> float:
    """Q_pos after a step on L = -(1/N) sum of R p over the set of sampled tokens; dL by central differences."""
    logits, is_correct, draws = case

    def loss(at: list[float]) -> float:
        p = softmax(at)
        return -sum((correct if is_correct[i] else incorrect) * p[i] for i in set(draws)) / num_samples

    stepped = []
    for i, logit in enumerate(logits):
        up, down = ([*logits[:i], logit + h, *logits[i + 1 :]] for h in (1e-5, -1e-5))
        stepped.append(logit - step_size * (loss(up) - loss(down)) / 2e-5)
    return sum(p for p, right in zip(softmax(stepped), is_correct, strict=True) if right)


@pytest.mark.parametrize(("correct", "incorrect"), REWARDS)
@pytest.mark.parametrize("num_samples", [1, 3, 16, 200])
def test_the_three_terms_add_up_to_the_finite_difference_of_the_correct_mass(
    correct: float, incorrect: float, num_samples: int
) -> None:
    for seed in range(3):
        case = make_case(num_samples, seed)
        step = 1e-3 * num_samples
        after, before = (mass_after(case, correct, incorrect, num_samples, sign * step) for sign in (1, -1))
        terms = terms_of(case, correct, incorrect, num_samples, step)
        size = float(sum(abs(term) for term in terms))
        assert float(sum(terms)) == pytest.approx((after - before) / 2, abs=1e-5 * size + 1e-13)


@pytest.mark.parametrize("field", MassChange._fields)
def test_no_term_can_be_left_out(field: str) -> None:
    case = make_case(16, 0)
    after, before = (mass_after(case, 1.0, -1.0, 16, sign * 0.016) for sign in (1, -1))
    rest = terms_of(case, 1.0, -1.0, 16, 0.016)._replace(**{field: torch.zeros(())})
    assert float(sum(rest)) != pytest.approx((after - before) / 2, rel=1e-3)


def test_sampled_tokens_never_lower_the_correct_mass_and_unsampled_ones_may() -> None:
    unsampled = []
    for seed, (correct, incorrect), n in itertools.product(range(30), REWARDS, (1, 4, 64)):
        terms = terms_of(make_case(n, seed), correct, incorrect, n, 1.0)
        assert terms.sampled_correct >= 0 and terms.sampled_incorrect >= 0
        unsampled.append(float(terms.unsampled))
    assert min(unsampled) < 0 < max(unsampled)


def test_without_unsampled_tokens_the_third_term_is_gone() -> None:
    logits, is_correct, _ = make_case(1, 0)
    terms = terms_of((logits, is_correct, list(range(V))), 1.0, -1.0, V, 1.0)
    assert terms.unsampled == 0 and terms.sampled_correct > 0


def test_one_step_of_few_samples_can_lower_the_correct_mass() -> None:
    totals = [float(sum(terms_of(make_case(2, seed), 1.0, -1.0, 2, 1.0))) for seed in range(300)]
    assert min(totals) < 0


def test_the_step_is_the_gradient_of_the_surrogate() -> None:
    torch.manual_seed(0)
    logits = torch.randn(V, dtype=torch.float64, requires_grad=True)
    rewards = torch.randn(V, dtype=torch.float64) * (torch.rand(V) < 0.5)
    surrogate = -(rewards @ logits.softmax(0)) / 7
    surrogate.backward()
    assert logits.grad is not None
    torch.testing.assert_close(logit_change(logits.detach().softmax(0), rewards, 7, 0.3), -0.3 * logits.grad)


def test_rewards_of_the_wrong_sign_are_refused() -> None:
    with pytest.raises(AssertionError, match="Rc >= 0 >= Rw"):
        terms_of(make_case(1, 0), -1.0, 1.0, 1, 1.0)


@pytest.mark.parametrize("num_samples", [0, 1, 2, 6])
def test_unsampled_squares_equal_the_mean_over_every_possible_draw(num_samples: int) -> None:
    p = [0.4, 0.3, 0.2, 0.1]
    means = [0.0] * 4
    for draws in itertools.product(range(4), repeat=num_samples):
        for token in set(range(4)) - set(draws):
            means[token] += math.prod(p[i] for i in draws) * p[token] ** 2
    found = expected_unsampled_squares(torch.tensor(p, dtype=torch.float64), num_samples)
    assert found.tolist() == pytest.approx(means, rel=1e-12)


def test_unsampled_squares_equal_a_monte_carlo_mean_over_many_tokens() -> None:
    torch.manual_seed(0)
    p = (2 * torch.randn(500, dtype=torch.float64)).softmax(0)
    draws = torch.multinomial(p, 64 * 2000, replacement=True).view(2000, 64)
    is_sampled = torch.zeros(2000, 500, dtype=torch.bool).scatter_(1, draws, True)
    sums = (p.square() * ~is_sampled).sum(1)
    error = sums.std() / 2000**0.5
    assert abs(sums.mean() - expected_unsampled_squares(p, 64).sum()) < 4 * error < 0.1 * sums.mean()


def test_more_samples_leave_less_unsampled() -> None:
    p = torch.tensor(softmax(make_case(1, 0)[0]), dtype=torch.float64)
    sums = [expected_unsampled_squares(p, n).sum() for n in (1, 2, 4, 16, 512, 51_200)]
    assert sums == sorted(sums, reverse=True) and sums[-1] < 1e-3 * sums[0]
