"""The policy loss against plain Python, its gradient against finite differences and against signs worked by hand."""

import dataclasses
import math
import random

import pytest
import torch
from torch import Tensor

from megatron_rl.algorithms.losses import cispo_loss, clipped, loss_weights, policy_loss
from recipes.prorl_v2 import RECIPE

LOW, HIGH = 0.2, 0.28
PLAIN = dataclasses.replace(RECIPE.algorithm, clip_low=LOW, clip_high=HIGH, dual_clip=None)
DUAL = dataclasses.replace(PLAIN, dual_clip=1.5)
both = pytest.mark.parametrize("algorithm", [PLAIN, DUAL], ids=["plain", "dual"])
AGGREGATIONS = ("token_mean", "sequence_mean", "prompt_mean", "constant_length")
CONSTANT = 5


def weights_of(lengths: Tensor, judged: Tensor, aggregation: str) -> Tensor:
    divisor = CONSTANT if aggregation == "constant_length" else None
    chosen = dataclasses.replace(PLAIN, loss_aggregation=aggregation, loss_divisor_tokens=divisor)  # type: ignore[arg-type]
    return loss_weights(lengths, judged, chosen)


def oracle(logprob: float, old: float, advantage: float, dual_clip: float | None = None) -> float:
    """PPO's surrogate with DAPO's bounds; and the dual clip's max(surrogate, c A) where A < 0."""
    ratio = math.exp(logprob - old)
    surrogate = min(ratio * advantage, max(1 - LOW, min(1 + HIGH, ratio)) * advantage)
    if dual_clip is not None and advantage < 0:
        surrogate = max(surrogate, dual_clip * advantage)
    return -surrogate


def tokens(num: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, old ones and advantages [T], with ratios on both sides of both bounds."""
    rng = random.Random(seed)
    old = [-3 * rng.random() for _ in range(num)]
    new = [value + rng.uniform(-0.6, 0.6) for value in old]
    signs = [rng.choice([-1.0, 0.0, 1.0]) * rng.uniform(0.1, 3) for _ in range(num)]
    return tuple(torch.tensor(values, dtype=torch.float64) for values in (new, old, signs))  # type: ignore[return-value]


@both
def test_loss_equals_the_formula(algorithm) -> None:
    new, old, advantages = tokens(500)
    found = policy_loss(new, old, advantages, algorithm).tolist()
    for value, *inputs in zip(found, new.tolist(), old.tolist(), advantages.tolist(), strict=True):
        assert value == pytest.approx(oracle(*inputs, algorithm.dual_clip), abs=1e-12)


@both
def test_gradient_equals_finite_differences_of_the_formula(algorithm) -> None:
    new, old, advantages = tokens(200, seed=1)
    new.requires_grad_()
    policy_loss(new, old, advantages, algorithm).sum().backward()
    assert new.grad is not None
    h, c = 1e-6, algorithm.dual_clip
    for i, (n, o, a) in enumerate(zip(new.tolist(), old.tolist(), advantages.tolist(), strict=True)):
        if min(abs(math.exp(n - o) - kink) for kink in (1 - LOW, 1 + HIGH, c or 0)) > 1e-4:  # there is no derivative
            expected = (oracle(n + h, o, a, c) - oracle(n - h, o, a, c)) / (2 * h)
            assert float(new.grad[i]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("nats", [89.0, 200.0, 800.0, math.inf])  # of fp32, of fp64, and of a token without probability
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("policy", ["clip", "cispo"])
def test_a_ratio_beyond_all_numbers_leaves_loss_and_gradient_numbers(nats: float, dtype: torch.dtype, policy) -> None:
    advantages = torch.tensor([1.0, 0.0, -1.0], dtype=dtype)
    old = torch.full((3,), -nats, dtype=dtype)
    new = torch.zeros(3, dtype=dtype, requires_grad=True)
    losses = (policy_loss if policy == "clip" else cispo_loss)(new, old, advantages, DUAL)
    losses.sum().backward()
    assert new.grad is not None
    if policy == "clip":
        assert losses.tolist() == pytest.approx([-(1 + HIGH), 0, 1.5]) and new.grad.tolist() == [0, 0, 0]
        unbounded = policy_loss(new, old, advantages, PLAIN)[2]
        assert unbounded.isfinite() and unbounded > 1e30
    else:
        assert new.grad.tolist() == pytest.approx([-(1 + HIGH), 0, 1 + HIGH])


def test_gradcheck() -> None:
    new, old, advantages = tokens(50, seed=2)
    assert torch.autograd.gradcheck(
        lambda logprobs: policy_loss(logprobs, old, advantages, PLAIN), new.requires_grad_()
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
    policy_loss(logprobs, torch.zeros_like(logprobs), signs, PLAIN).sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.item() == pytest.approx(gradient)
    held = clipped(logprobs.exp(), signs, PLAIN)
    assert [mask.item() for mask in held] == [held_low, held_high, 0]
    assert not held.low.requires_grad


@both
def test_held_tokens_are_exactly_those_without_gradient(algorithm) -> None:
    new, old, advantages = tokens(2000, seed=3)
    new.requires_grad_()
    policy_loss(new, old, advantages, algorithm).sum().backward()
    held = clipped((new - old).exp(), advantages, algorithm)
    assert new.grad is not None
    assert held.low.any() and held.high.any() and bool(held.dual.any()) == (algorithm is DUAL)
    assert torch.equal(sum(held), ((new.grad == 0) & (advantages != 0)).double())


def test_cispo_leaves_no_token_without_gradient_and_says_whose_weight_it_cuts() -> None:
    algorithm = dataclasses.replace(PLAIN, policy_loss="cispo")
    new, old, advantages = tokens(2000, seed=3)
    new.requires_grad_()
    cispo_loss(new, old, advantages, algorithm).sum().backward()
    assert new.grad is not None
    ratio = (new.detach() - old).exp()
    assert torch.equal(new.grad == 0, advantages == 0)
    torch.testing.assert_close(new.grad, -ratio.clamp(1 - LOW, 1 + HIGH) * advantages)
    held = clipped(ratio, advantages, algorithm)
    assert torch.equal(held.low + held.high, ((new.grad != -ratio * advantages) & (advantages != 0)).double())
    assert held.low.any() and held.high.any() and not held.dual.any()


def test_any_split_into_microbatches_sums_to_the_same_loss_and_gradient() -> None:
    new, old, advantages = tokens(300, seed=4)

    def run(sizes: list[int]) -> tuple[float, Tensor]:
        logprobs = new.clone().requires_grad_()
        total = 0.0
        for part in torch.arange(len(new)).split(sizes):
            loss = policy_loss(logprobs[part], old[part], advantages[part], PLAIN).sum() / len(new)
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
    assert torch.equal(policy_loss(old, old, advantages, DUAL), -advantages)
    assert not any(mask.any() for mask in clipped(torch.ones(50), advantages, DUAL))


def mean_oracle(losses: list[list[list[float]]], aggregation: str) -> float:
    """DAPO's mean over all tokens; the mean over sequences of each one's mean over its tokens; ScaleRL's mean over
    prompts of the mean over their tokens; Dr. GRPO's mean over sequences of their sum over a constant.
    """
    rows = [row for group in losses for row in group]
    if aggregation == "token_mean":
        return sum(map(sum, rows)) / sum(map(len, rows))
    if aggregation == "prompt_mean":
        groups = [[loss for row in group for loss in row] for group in losses if group]
        return sum(sum(group) / len(group) for group in groups) / len(groups)
    if aggregation == "constant_length":
        return sum(map(sum, rows)) / CONSTANT / len(rows)
    return sum(sum(row) / len(row) for row in rows) / len(rows)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("seed", range(5))
def test_shares_sum_token_losses_to_the_papers_mean(aggregation: str, seed: int) -> None:
    rng = random.Random(seed)
    losses = [[rng.gauss(0, 1) for _ in range(rng.randint(1, 9))] for _ in range(12)]
    judged = [rng.random() < 0.7 for _ in losses]
    judged[:4] = [False] * 4 if seed == 0 else judged[:4]
    lengths = torch.tensor([len(row) for row in losses]).reshape(3, 4)
    weights = weights_of(lengths, torch.tensor(judged).reshape(3, 4), aggregation)
    assert weights.dtype == torch.float64
    found = sum(weight * sum(row) for weight, row in zip(weights.flatten().tolist(), losses, strict=True))
    grouped = [[losses[i] for i in range(first, first + 4) if judged[i]] for first in (0, 4, 8)]
    expected = mean_oracle(grouped, aggregation)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_shares_of_an_update_sum_to_one_and_to_nothing_where_nothing_was_judged(
    aggregation: str,
) -> None:
    lengths, judged = torch.tensor([[3, 5], [2, 7]]), torch.tensor([[True, False], [True, True]])
    total = 12 / 3 / CONSTANT if aggregation == "constant_length" else 1  # 3 + 2 + 7 tokens of three responses
    assert (weights_of(lengths, judged, aggregation) * lengths * judged).sum().item() == pytest.approx(total)
    nothing = weights_of(lengths, torch.zeros_like(judged), aggregation)
    assert nothing.tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_any_split_into_microbatches_and_ranks_sums_to_the_same_loss_and_gradient(
    aggregation: str,
) -> None:
    lengths, judged = (
        torch.tensor([[3, 90], [20, 7], [55, 1]]),
        torch.tensor([[True, True], [True, False], [True, True]]),
    )
    rows = torch.arange(6).repeat_interleave(lengths.flatten())
    new, old, advantages = tokens(len(rows), seed=6)
    weights = weights_of(lengths, judged, aggregation).flatten()

    def run(packs: list[list[int]]) -> tuple[float, Tensor]:
        """The sum over packs of sequences, wherever they are worked on."""
        logprobs, total = new.clone().requires_grad_(), 0.0
        for members in packs:
            part = torch.isin(rows, torch.tensor(members))
            loss = (policy_loss(logprobs[part], old[part], advantages[part], PLAIN) * weights[rows[part]]).sum()
            loss.backward()
            total += loss.item()
        assert logprobs.grad is not None
        return total, logprobs.grad

    whole, gradient = run([[0, 1, 2, 3, 4, 5]])
    assert gradient[rows == 3].abs().max() == 0  # not judged
    for packs in ([[0], [1], [2], [3], [4], [5]], [[5, 0], [3, 1], [4, 2]]):
        split, split_gradient = run(packs)
        assert split == pytest.approx(whole, abs=1e-12)
        torch.testing.assert_close(split_gradient, gradient)


def test_the_means_agree_where_all_lengths_are_equal() -> None:
    lengths, judged = torch.full((3, 4), 7), torch.ones(3, 4, dtype=torch.bool)
    for aggregation in ("sequence_mean", "prompt_mean"):
        torch.testing.assert_close(weights_of(lengths, judged, "token_mean"), weights_of(lengths, judged, aggregation))
