"""Log-probabilities and entropy against a float64 softmax, on one rank and with the vocabulary split over two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from megatron_rl.actor.vocabulary import log_probabilities, log_probabilities_and_entropy
from tests.ranks import run_ranks

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


def found_by(logits: Tensor, targets: Tensor, upstream: Tensor, temperature: float, group: Any) -> dict[str, Tensor]:
    """The same three of the code under test; it overwrites what it is given."""
    leaf = logits.clone().requires_grad_()
    chosen = log_probabilities(leaf * 1, targets, temperature, group)
    (chosen * upstream).sum().backward()
    again, entropy = log_probabilities_and_entropy(logits.clone(), targets, temperature, group)
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
    _, entropy = log_probabilities_and_entropy(logits, torch.tensor([0, 3]), 1.0, group)
    torch.testing.assert_close(entropy, torch.tensor([VOCABULARY, 1]).log())


def test_the_gradient_of_bfloat16_logits_is_bfloat16(group: Any) -> None:
    logits, targets, upstream = case(1.0)
    found = found_by(logits.bfloat16(), targets, upstream, 0.6, group)
    chosen, _, gradient = oracle(logits.bfloat16().float(), targets, upstream, 0.6)
    assert found["gradient"].dtype == torch.bfloat16
    assert found["chosen"].dtype == torch.float32
    torch.testing.assert_close(found["chosen"].double(), chosen, rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(found["gradient"].double(), gradient, rtol=1e-2, atol=1e-3)


def sharded() -> list[dict[str, Any]]:
    """Runs on every rank: each case on this rank's share of the vocabulary."""
    dist.init_process_group("gloo")
    rank, share = dist.get_rank(), VOCABULARY // dist.get_world_size()
    results = []
    for size in SIZES:
        for temperature in TEMPERATURES:
            logits, targets, upstream = case(size)
            mine = logits[:, rank * share : (rank + 1) * share].contiguous()
            found = found_by(mine, targets, upstream, temperature, dist.group.WORLD)
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
        found["gradient"] = torch.cat([torch.tensor(part["gradient"]) for part in parts], -1)
        check(found, oracle(logits, targets, upstream, temperature), size)
        whole = found_by(logits, targets, upstream, temperature, group)
        for name in found:
            torch.testing.assert_close(found[name], whole[name], rtol=2e-6, atol=1e-6 * max(1.0, size))
