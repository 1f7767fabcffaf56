"""The clipped loss against plain Python, its gradient against finite differences and against signs worked by hand."""

import math
import random

import pytest
import torch
from torch import Tensor

from megatron_rl.algorithms.losses import clipped_policy_loss, held_by_clip

LOW, HIGH = 0.2, 0.28


def oracle(logprob: float, old: float, advantage: float) -> float:
    ratio = math.exp(logprob - old)
    clipped = max(1 - LOW, min(1 + HIGH, ratio))
    return -min(ratio * advantage, clipped * advantage)


def tokens(num: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, old ones and advantages [T], with ratios on both sides of both bounds."""
    rng = random.Random(seed)
    old = [-3 * rng.random() for _ in range(num)]
    new = [value + rng.uniform(-0.6, 0.6) for value in old]
    signs = [rng.choice([-1.0, 0.0, 1.0]) * rng.uniform(0.1, 3) for _ in range(num)]
    return tuple(torch.tensor(values, dtype=torch.float64) for values in (new, old, signs))  # type: ignore[return-value]


def test_loss_equals_the_formula() -> None:
    new, old, advantages = tokens(500)
    found = clipped_policy_loss(new, old, advantages, LOW, HIGH).tolist()
    for value, *inputs in zip(found, new.tolist(), old.tolist(), advantages.tolist(), strict=True):
        assert value == pytest.approx(oracle(*inputs), abs=1e-12)


def test_gradient_equals_finite_differences_of_the_formula() -> None:
    new, old, advantages = tokens(200, seed=1)
    new.requires_grad_()
    clipped_policy_loss(new, old, advantages, LOW, HIGH).sum().backward()
    assert new.grad is not None
    h = 1e-6
    for i, (n, o, a) in enumerate(zip(new.tolist(), old.tolist(), advantages.tolist(), strict=True)):
        if min(abs(math.exp(n - o) - bound) for bound in (1 - LOW, 1 + HIGH)) > 1e-4:  # a kink has no derivative
            assert float(new.grad[i]) == pytest.approx((oracle(n + h, o, a) - oracle(n - h, o, a)) / (2 * h), abs=1e-6)


def test_gradcheck() -> None:
    new, old, advantages = tokens(50, seed=2)
    assert torch.autograd.gradcheck(
        lambda logprobs: clipped_policy_loss(logprobs, old, advantages, LOW, HIGH), new.requires_grad_()
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "gradient", "held_low", "held_high"),
    [
        (1.0, 2.0, -2.0, 0, 0),
        (1.0, -2.0, 2.0, 0, 0),
        (1.27, 1.0, -1.27, 0, 0),  # within the decoupled upper bound, beyond a symmetric one
        (1.29, 1.0, 0.0, 0, 1),
        (1.29, -1.0, 1.29, 0, 0),  # too likely and bad: pushed down with its full ratio
        (0.79, -1.0, 0.0, 1, 0),
        (0.79, 1.0, -0.79, 0, 0),  # too unlikely and good: pulled up
        (0.81, -1.0, 0.81, 0, 0),
        (5.0, 0.0, 0.0, 0, 0),  # no advantage: nothing to hold
    ],
)
def test_gradient_sign_and_hold_by_hand(
    ratio: float, advantage: float, gradient: float, held_low: int, held_high: int
) -> None:
    logprobs = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    signs = torch.tensor([advantage], dtype=torch.float64)
    clipped_policy_loss(logprobs, torch.zeros_like(logprobs), signs, LOW, HIGH).sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.item() == pytest.approx(gradient)
    low, high = held_by_clip(logprobs.exp(), signs, LOW, HIGH)
    assert (low.item(), high.item()) == (held_low, held_high)
    assert not low.requires_grad


def test_held_tokens_are_exactly_those_without_gradient() -> None:
    new, old, advantages = tokens(2000, seed=3)
    new.requires_grad_()
    clipped_policy_loss(new, old, advantages, LOW, HIGH).sum().backward()
    low, high = held_by_clip((new - old).exp(), advantages, LOW, HIGH)
    assert new.grad is not None
    assert low.any() and high.any()
    assert torch.equal((low + high) > 0, (new.grad == 0) & (advantages != 0))


def test_any_split_into_microbatches_sums_to_the_same_loss_and_gradient() -> None:
    new, old, advantages = tokens(300, seed=4)

    def run(sizes: list[int]) -> tuple[float, Tensor]:
        logprobs = new.clone().requires_grad_()
        total = 0.0
        for part in torch.arange(len(new)).split(sizes):
            loss = clipped_policy_loss(logprobs[part], old[part], advantages[part], LOW, HIGH).sum() / len(new)
            loss.backward()
            total += loss.item()
        assert logprobs.grad is not None
        return total, logprobs.grad

    whole, gradient = run([300])
    for sizes in ([150, 150], [1] * 300, [7, 200, 93]):
        split, split_gradient = run(sizes)
        assert split == pytest.approx(whole, abs=1e-12)
        torch.testing.assert_close(split_gradient, gradient)


def test_on_policy_the_loss_is_the_negative_advantage_and_nothing_is_held() -> None:
    _, old, advantages = tokens(50, seed=5)
    assert torch.equal(clipped_policy_loss(old, old, advantages, LOW, HIGH), -advantages)
    assert not any(mask.any() for mask in held_by_clip(torch.ones(50), advantages, LOW, HIGH))
