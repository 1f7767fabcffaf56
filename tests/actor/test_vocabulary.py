"""Log-probabilities and entropy against a float64 softmax, on one rank and with the vocabulary split over two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from megatron_rl.actor import vocabulary
from megatron_rl.actor.vocabulary import Head, log_probabilities, log_probabilities_and_entropy
from megatron_rl.device.cpu import cpu
from tests.ranks import run_ranks

in_fp32 = cpu(torch.float32).product_in_fp32
TOKENS, VOCABULARY = 13, 48
TEMPERATURES = (1.0, 0.6, 1.7)
SIZES = (1.0, 30.0, 2e4)  # of the logits: exp overflows where the maximum is not taken off


@pytest.fixture(scope="module")
def group() -> Iterator[Any]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def case(size: float) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [T, V], targets [T] at both ends and between, and what each log-probability's gradient is."""
    generator = torch.Generator().manual_seed(int(size))
    logits = torch.randn(TOKENS, VOCABULARY, generator=generator) * size
    targets = torch.randint(VOCABULARY, (TOKENS,), generator=generator)
    targets[:4] = torch.tensor([0, VOCABULARY // 2 - 1, VOCABULARY // 2, VOCABULARY - 1])
    return logits, targets, torch.randn(TOKENS, generator=generator)


def oracle(logits: Tensor, targets: Tensor, upstream: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, entropy and gradient in float64, from the definition and by autograd."""
    exact = logits.double().requires_grad_()
    everything = (exact / temperature).log_softmax(-1)
    chosen = everything.gather(-1, targets[:, None])[:, 0]
    (gradient,) = torch.autograd.grad((chosen * upstream).sum(), exact)
    entropy = torch.special.entr(everything.detach().exp()).sum(-1)
    return chosen.detach(), entropy, gradient


def head_of(logits: Tensor, first: int = 0, size: int = VOCABULARY) -> Head:
    """A head whose hidden states are the logits: its weights are the identity, of which a rank may have a share."""
    weight = torch.eye(VOCABULARY, dtype=logits.dtype)[first : first + size]
    return Head(hidden=logits, weight=weight, product=in_fp32)


def found_by(
    logits: Tensor, targets: Tensor, upstream: Tensor, temperature: float, group: Any, *share: int
) -> dict[str, Tensor]:
    """The same three of the code under test."""
    leaf = logits.clone().requires_grad_()
    chosen = log_probabilities(head_of(leaf, *share), targets, temperature, group)
    (chosen * upstream).sum().backward()
    again, entropy = log_probabilities_and_entropy(head_of(logits, *share), targets, temperature, group)
    assert leaf.grad is not None
    return {"chosen": chosen.detach(), "again": again, "entropy": entropy, "gradient": leaf.grad}


def check(found: dict[str, Tensor], expected: tuple[Tensor, Tensor, Tensor], size: float) -> None:
    chosen, entropy, gradient = expected
    tolerance = {"rtol": 2e-6, "atol": 1e-6 * max(1.0, size)}  # fp32 logits of this size are known no better
    torch.testing.assert_close(found["chosen"].double(), chosen, **tolerance)
    torch.testing.assert_close(found["again"].double(), chosen, **tolerance)
    torch.testing.assert_close(found["entropy"].double(), entropy, rtol=1e-5, atol=2e-6 * max(1.0, size))
    torch.testing.assert_close(found["gradient"].double(), gradient, rtol=1e-5 * max(1.0, size), atol=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradient_are_those_of_a_float64_softmax(group: Any, size: float, temperature: float) -> None:
    logits, targets, upstream = case(size)
    check(found_by(logits, targets, upstream, temperature, group), oracle(logits, targets, upstream, temperature), size)


def test_the_gradient_is_that_of_finite_differences(group: Any) -> None:
    logits, targets, upstream = case(1.0)
    gradient = found_by(logits, targets, upstream, 0.6, group)["gradient"]
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).double()
    step = 1e-4
    ahead, behind = (oracle(logits + sign * step * direction, targets, upstream, 0.6)[0] for sign in (1, -1))
    slope = ((ahead - behind) * upstream).sum() / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-4)


def test_entropy_is_that_of_a_uniform_and_of_a_certain_distribution(group: Any) -> None:
    logits = torch.zeros(2, VOCABULARY)
    logits[1, 3] = 1000.0
    _, entropy = log_probabilities_and_entropy(head_of(logits), torch.tensor([0, 3]), 1.0, group)
    torch.testing.assert_close(entropy, torch.tensor([VOCABULARY, 1]).log())


def test_the_gradient_of_bfloat16_logits_is_bfloat16(group: Any) -> None:
    logits, targets, upstream = case(1.0)
    found = found_by(logits.bfloat16(), targets, upstream, 0.6, group)
    chosen, _, gradient = oracle(logits.bfloat16().float(), targets, upstream, 0.6)
    assert found["gradient"].dtype == torch.bfloat16
    assert found["chosen"].dtype == torch.float32
    torch.testing.assert_close(found["chosen"].double(), chosen, rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(found["gradient"].double(), gradient, rtol=1e-2, atol=1e-3)


@pytest.fixture(params=["whole, kept", "blocks, kept", "blocks, made again"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The vocabulary in one block or in five, the last of them shorter; the logits kept for the gradient or not."""
    way: str = request.param
    if way != "whole, kept":
        monkeypatch.setattr(vocabulary, "VOCABULARY_AT_ONCE", 10)
    if way == "blocks, made again":
        monkeypatch.setattr(vocabulary, "MAX_LOGITS_KEPT", 0)
    return way


def made(precision: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, weights, targets and what each log-probability's gradient is."""
    generator = torch.Generator().manual_seed(7)
    hidden = torch.randn(TOKENS, 24, generator=generator, dtype=torch.float64)
    weight = torch.randn(VOCABULARY, 24, generator=generator, dtype=torch.float64)
    return hidden.to(precision), weight.to(precision), *case(1.0)[1:]


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, upstream: Tensor, temperature: float) -> list[Tensor]:
    """Log-probabilities, entropy and the gradients of hidden states and weights, from the definition in float64."""
    leaves = [hidden.double().requires_grad_(), weight.double().requires_grad_()]
    everything = (leaves[0] @ leaves[1].t() / temperature).log_softmax(-1)
    chosen = everything.gather(-1, targets[:, None])[:, 0]
    gradients = torch.autograd.grad((chosen * upstream).sum(), leaves)
    return [chosen.detach(), torch.special.entr(everything.detach().exp()).sum(-1), *gradients]


def fused(
    hidden: Tensor, weight: Tensor, targets: Tensor, upstream: Tensor, temperature: float, group: Any, **options: bool
) -> list[Tensor]:
    leaves = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    head = Head(hidden=leaves[0], weight=leaves[1], product=in_fp32, **options)
    chosen = log_probabilities(head, targets, temperature, group)
    gradients = torch.autograd.grad((chosen * upstream).sum(), leaves)
    again, entropy = log_probabilities_and_entropy(head, targets, temperature, group)
    torch.testing.assert_close(again, chosen.detach())
    return [chosen.detach(), entropy, *gradients]


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_values_and_gradients_equal_the_plain_form_in_float64(group: Any, ways: str, temperature: float) -> None:
    given = made(torch.float64)
    for found, expected in zip(fused(*given, temperature, group), plain(*given, temperature), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("size", SIZES)
def test_blocks_lose_nothing_where_later_logits_are_larger(group: Any, ways: str, size: float) -> None:
    logits, targets, upstream = case(size)
    logits = logits.sort(-1).values
    check(found_by(logits, targets, upstream, 0.6, group), oracle(logits, targets, upstream, 0.6), size)


@pytest.mark.parametrize("rounds", [False, True])
def test_bfloat16_heads_have_exact_or_rounded_logits_as_asked(group: Any, ways: str, rounds: bool) -> None:
    hidden, weight, targets, upstream = made(torch.bfloat16)
    found = fused(hidden, weight, targets, upstream, 1.2, group, rounds_logits=rounds)
    logits = in_fp32(hidden, weight.t())
    chosen, entropy, _ = oracle(logits.bfloat16() if rounds else logits, targets, upstream, 1.2)
    torch.testing.assert_close(found[0].double(), chosen, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(found[1].double(), entropy, rtol=1e-5, atol=2e-6)
    for gradient, expected in zip(found[2:], plain(hidden, weight, targets, upstream, 1.2)[2:], strict=True):
        assert gradient.dtype == torch.bfloat16
        torch.testing.assert_close(gradient.double(), expected, rtol=2e-2, atol=2e-2)


def test_no_more_logits_are_made_at_once_than_one_block(group: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "VOCABULARY_AT_ONCE", 10)
    hidden, weight, targets, upstream = made(torch.float32)
    shapes = []

    def seen(left: Tensor, right: Tensor) -> Tensor:
        shapes.append((len(left), right.size(-1)))
        return left @ right

    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    head = Head(hidden=leaves[0], weight=leaves[1], product=seen)
    (log_probabilities(head, targets, 1.0, group) * upstream).sum().backward()
    blocks = [(TOKENS, 10)] * 4 + [(TOKENS, 8)]
    assert shapes == blocks + [(TOKENS, 24)] * 5  # kept: made once, then five shares of the hidden states' gradient
    shapes.clear()
    monkeypatch.setattr(vocabulary, "MAX_LOGITS_KEPT", TOKENS * VOCABULARY - 1)
    log_probabilities(head, targets, 1.0, group).sum().backward()
    again = [shape for block in blocks for shape in (block, (TOKENS, 24))]
    assert shapes == blocks + again


def sharded() -> list[dict[str, Any]]:
    """Runs on every rank: each case on this rank's share of the vocabulary."""
    dist.init_process_group("gloo")
    vocabulary.VOCABULARY_AT_ONCE, vocabulary.MAX_LOGITS_KEPT = 10, 0
    rank, share = dist.get_rank(), VOCABULARY // dist.get_world_size()
    results = []
    for size in SIZES:
        for temperature in TEMPERATURES:
            logits, targets, upstream = case(size)
            found = found_by(logits, targets, upstream, temperature, dist.group.WORLD, rank * share, share)
            results.append({name: tensor.tolist() for name, tensor in found.items()})
    return results


@pytest.mark.ranks
def test_a_vocabulary_split_over_two_ranks_changes_nothing(group: Any) -> None:
    ranks = run_ranks("tests.actor.test_vocabulary:sharded", 2)
    cases = [(size, temperature) for size in SIZES for temperature in TEMPERATURES]
    for (size, temperature), *parts in zip(cases, *ranks, strict=True):
        logits, targets, upstream = case(size)
        found = {name: torch.tensor(value) for name, value in parts[0].items()}
        for name in ("chosen", "again", "entropy"):
            assert parts[0][name] == parts[1][name], f"{name} differs between the ranks"
        found["gradient"] = sum(torch.tensor(part["gradient"]) for part in parts)
        check(found, oracle(logits, targets, upstream, temperature), size)
        whole = found_by(logits, targets, upstream, temperature, group)
        for name in found:
            torch.testing.assert_close(found[name], whole[name], rtol=2e-6, atol=1e-6 * max(1.0, size))
