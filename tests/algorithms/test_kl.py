"""The estimators against their formulas, and their gradients against those of the divergences they stand for."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from megatron_rl.algorithms.kl import kl_estimate, kl_per_sequence
from megatron_rl.config.records import Kl

ESTIMATORS = ("k1", "k2", "k3")
K2 = Kl(estimator="k2", coefficient=1e-4, log_ratio_clamp=10.0, value_clamp=None, place="loss")


def of(estimator: str, *, log_ratio_clamp: float = 10.0, value_clamp: float | None = None) -> Kl:
    return dataclasses.replace(K2, estimator=estimator, log_ratio_clamp=log_ratio_clamp, value_clamp=value_clamp)


def oracle(new: float, reference: float, kl: Kl) -> float:
    """With r = pi_ref / pi: -log r, (log r)^2 / 2, r - 1 - log r."""
    log_r = max(-kl.log_ratio_clamp, min(kl.log_ratio_clamp, reference - new))
    value = {"k1": -log_r, "k2": log_r**2 / 2, "k3": math.exp(log_r) - 1 - log_r}[kl.estimator]
    return value if kl.value_clamp is None else max(-kl.value_clamp, min(kl.value_clamp, value))


def distributions(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits that require a gradient, and the log-probabilities [V] of policy and reference."""
    torch.manual_seed(seed)
    logits = torch.randn(11, dtype=torch.float64, requires_grad=True)
    return logits, logits.log_softmax(0), torch.randn(11, dtype=torch.float64).log_softmax(0)


@pytest.mark.parametrize("value_clamp", [None, 10.0, 0.1])
@pytest.mark.parametrize("log_ratio_clamp", [10.0, 20.0])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_estimate_equals_the_formula(estimator: str, log_ratio_clamp: float, value_clamp: float | None) -> None:
    pairs = [(-1.0, -1.5), (-0.1, -9.0), (-30.0, -1.0), (-1.0, -30.0), (-2.0, -2.0), (-2.0, -2.0001), (-15.0, -0.5)]
    kl = of(estimator, log_ratio_clamp=log_ratio_clamp, value_clamp=value_clamp)
    new, reference = (torch.tensor(values, dtype=torch.float64) for values in zip(*pairs, strict=True))
    for value, pair in zip(kl_estimate(new, reference, kl).tolist(), pairs, strict=True):
        assert value == pytest.approx(oracle(*pair, kl), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_gradient_equals_finite_differences_of_the_formula(estimator: str) -> None:
    kl, h = of(estimator), 1e-6
    new = torch.linspace(-4, -0.1, 30, dtype=torch.float64).requires_grad_()
    kl_estimate(new, torch.full_like(new, -2.0), kl).sum().backward()
    assert new.grad is not None
    for value, gradient in zip(new.tolist(), new.grad.tolist(), strict=True):
        expected = (oracle(value + h, -2.0, kl) - oracle(value - h, -2.0, kl)) / (2 * h)
        assert gradient == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_token_beyond_either_clamp_pulls_no_more(estimator: str) -> None:
    new = torch.tensor([-20.0, -1.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-1.0, -20.0], dtype=torch.float64)
    kl_estimate(new, reference, of(estimator)).sum().backward()
    assert new.grad is not None and new.grad.tolist() == [0.0, 0.0]
    near = torch.tensor([-3.0], dtype=torch.float64, requires_grad=True)
    kl_estimate(near, torch.tensor([-1.0], dtype=torch.float64), of(estimator, value_clamp=0.5)).sum().backward()
    assert near.grad is not None and near.grad.tolist() == [0.0]


def test_k2_pulls_towards_the_reference() -> None:
    logprobs = torch.tensor([-1.0, -3.0], dtype=torch.float64, requires_grad=True)
    kl_estimate(logprobs, torch.tensor([-2.0, -2.0], dtype=torch.float64), K2).sum().backward()
    assert logprobs.grad is not None
    # log(pi / pi_ref) is 1 (too likely: descent lowers it) and -1 (descent raises it).
    assert logprobs.grad.tolist() == [1.0, -1.0]


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_the_expectation_is_the_divergence_from_the_reference(estimator: str) -> None:
    # Over a whole vocabulary the expectation under the policy is a sum. k2's is another distance.
    _, logprobs, reference = distributions()
    divergence = (logprobs.exp() * (logprobs - reference)).sum()
    torch.testing.assert_close((logprobs.exp() * kl_estimate(logprobs, reference, of(estimator))).sum(), divergence)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_expected_gradient_is_the_one_the_papers_give(estimator: str) -> None:
    logits, logprobs, reference = distributions()
    expected = {
        "k1": 0 * logprobs.sum(),
        "k2": (logprobs.exp() * (logprobs - reference)).sum(),  # KL(pi || pi_ref)
        "k3": (reference.exp() * (reference - logprobs)).sum(),  # KL(pi_ref || pi)
    }[estimator]
    (gradient,) = torch.autograd.grad(expected, logits, retain_graph=True)
    loss = (logprobs.exp().detach() * kl_estimate(logprobs, reference, of(estimator))).sum()
    (found,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(found, gradient)


def test_sums_per_sequence_add_up_over_packs_whatever_has_no_weight() -> None:
    torch.manual_seed(1)
    estimates, weights = torch.randn(30, dtype=torch.float64), (torch.rand(30) < 0.7).float()
    rows = torch.randint(0, 5, (30,))
    whole = kl_per_sequence(estimates.masked_fill(weights == 0, torch.nan), weights, rows, 6)
    for row in range(6):
        expected = sum(
            e for e, w, r in zip(estimates.tolist(), weights.tolist(), rows.tolist(), strict=True) if r == row and w
        )
        assert whole[row].item() == pytest.approx(expected)
    parts = [kl_per_sequence(estimates[part], weights[part], rows[part], 6) for part in torch.arange(30).split(7)]
    torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_estimate_beyond_all_numbers_is_one_nevertheless_and_pulls_no_more(estimator: str) -> None:
    policy = torch.tensor([-200.0], requires_grad=True)
    found = kl_estimate(policy, torch.zeros(1), of(estimator, log_ratio_clamp=1000.0))
    found.sum().backward()
    assert policy.grad is not None
    assert found.isfinite().all() and policy.grad.isfinite().all()
