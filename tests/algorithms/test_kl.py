"""k2 against its formula, and its gradient against that of the divergence it stands for."""

import pytest
import torch

from megatron_rl.algorithms.kl import k2


def test_k2_equals_the_formula() -> None:
    pairs = [(-1.0, -1.5), (-0.1, -9.0), (-30.0, -1.0), (-1.0, -30.0), (-2.0, -2.0)]
    found = k2(torch.tensor([new for new, _ in pairs]), torch.tensor([reference for _, reference in pairs]), 10.0)
    for value, (new, reference) in zip(found.tolist(), pairs, strict=True):
        assert value == pytest.approx(0.5 * max(-10.0, min(10.0, reference - new)) ** 2)


def test_gradient_pulls_towards_the_reference_and_stops_at_the_clamp() -> None:
    logprobs = torch.tensor([-1.0, -3.0, -20.0], dtype=torch.float64, requires_grad=True)
    k2(logprobs, torch.tensor([-2.0, -2.0, -1.0], dtype=torch.float64), 10.0).sum().backward()
    assert logprobs.grad is not None
    # log(pi / pi_ref) is 1 (too likely: descent lowers it), -1 (descent raises it) and -19, beyond the clamp.
    assert logprobs.grad.tolist() == [1.0, -1.0, 0.0]


def test_gradcheck() -> None:
    logprobs = -3 * torch.rand(40, dtype=torch.float64)
    reference = logprobs + torch.randn(40, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda new: k2(new, reference, 10.0), logprobs.requires_grad_())


def test_expected_gradient_is_that_of_the_divergence_from_the_reference() -> None:
    # Over a whole vocabulary the expectation is a sum: E_pi[grad k2] = grad KL(pi || pi_ref).
    torch.manual_seed(0)
    logits = torch.randn(11, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(11, dtype=torch.float64).log_softmax(0)
    logprobs = logits.log_softmax(0)
    divergence = (logprobs.exp() * (logprobs - reference)).sum()
    (expected,) = torch.autograd.grad(divergence, logits, retain_graph=True)
    (found,) = torch.autograd.grad((logprobs.exp().detach() * k2(logprobs, reference, 10.0)).sum(), logits)
    torch.testing.assert_close(found, expected)
