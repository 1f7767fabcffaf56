"""pass@k against every choice of k responses, its expectation against the binomial, the bound against real means."""

import itertools
import math

import pytest
import torch

from megatron_rl.algorithms.pass_at_k import pass_at_k, pass_at_k_bound, pass_at_k_of_probability


@pytest.mark.parametrize("num_samples", [1, 4, 7])
def test_the_estimate_is_the_fraction_of_choices_that_hold_a_right_response(num_samples: int) -> None:
    for num_correct, k in itertools.product(range(num_samples + 1), range(1, num_samples + 1)):
        choices = list(itertools.combinations(range(num_samples), k))
        right = sum(min(choice) < num_correct for choice in choices)
        assert pass_at_k(num_samples, num_correct, k) == pytest.approx(right / len(choices), abs=1e-15)


@pytest.mark.parametrize("probability", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("k", [1, 5, 16])
def test_the_estimate_is_unbiased(probability: float, k: int) -> None:
    n = 16
    mean = sum(
        math.comb(n, c) * probability**c * (1 - probability) ** (n - c) * pass_at_k(n, c, k) for c in range(n + 1)
    )
    expected = pass_at_k_of_probability(torch.tensor(probability, dtype=torch.float64), k).item()
    assert mean == pytest.approx(expected, abs=1e-12)


def test_the_estimate_of_many_samples_neither_overflows_nor_rounds_to_certainty() -> None:
    assert pass_at_k(51_200, 1, 51_199) == pytest.approx(51_199 / 51_200, rel=1e-12)
    assert pass_at_k(256, 129, 128) == 1.0


@pytest.mark.parametrize(("num_samples", "num_correct", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 1), (4, -1, 1), (0, 0, 1)])
def test_impossible_counts_are_refused(num_samples: int, num_correct: int, k: int) -> None:
    with pytest.raises(ValueError, match=r"pass@k: (k|num_correct)="):
        pass_at_k(num_samples, num_correct, k)


def test_every_pass_at_k_rises_with_the_probability() -> None:
    probabilities = torch.linspace(0, 0.5, 20, dtype=torch.float64)
    for k in (1, 2, 16):
        assert (pass_at_k_of_probability(probabilities, k).diff() > 0).all()


def test_the_bound_is_never_below_the_mean() -> None:
    torch.manual_seed(0)
    for k in (2, 3, 16, 128):
        for power in (0.2, 1.0, 5.0):
            rho = torch.rand(50, dtype=torch.float64) ** power
            assert pass_at_k_of_probability(rho, k).mean() <= pass_at_k_bound(rho, k) + 1e-12


def test_the_bound_falls_with_the_variance_and_is_reached_without() -> None:
    same = torch.full((4,), 0.3, dtype=torch.float64)
    spread = torch.tensor([0.0, 0.0, 0.2, 1.0], dtype=torch.float64)
    assert pass_at_k_bound(same, 8).item() == pytest.approx(1 - 0.7**8)
    assert pass_at_k_bound(spread, 8) < pass_at_k_bound(same, 8)


def test_a_bound_where_the_formula_is_none_is_refused() -> None:
    spread = torch.tensor([0.0, 1.0])
    assert 1 - ((1 - spread.mean()) ** 2 + spread.var(correction=0)) ** 0.5 < spread.mean()
    with pytest.raises(ValueError, match="k >= 2"):
        pass_at_k_bound(spread, 1)
