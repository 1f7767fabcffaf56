"""Products of matrices on the CPU: right to rounding, the same bits again, and the library that makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from megatron_rl.device.megatron_on_cpu import adapt_megatron
from megatron_rl.device.products_on_cpu import FEWEST_WEIGHTS, linear, product

ONEDNN = "mkldnn::_linear_pointwise"
SMALL, LARGE = (24, 40), (384, 1152)  # outputs, inputs of a layer on either side of the limit


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as each rank has at scale cpu
    yield
    torch.set_num_threads(before)


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def operations(function: Callable[[], object]) -> set[str]:
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        function()
    return {event.key for event in seen.key_averages()}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (drawn(70, 48), drawn(48, 33)),
        (drawn(70, 48), drawn(33, 48).t()),  # a layer's output
        (drawn(70, 48).t(), drawn(70, 33)),  # its weights' gradient
        (drawn(7, 1, 48), drawn(48, 33)),  # Megatron's [T, 1, hidden]
        (drawn(9, 5, 48)[:, 2:3], drawn(48, 33)),
        (drawn(1, 48), drawn(48, 1)),
        (drawn(70, 48)[3:50:2], drawn(90, 33)[7:55]),
    ],
)
def test_a_product_is_right_and_has_the_same_bits_again(left: Tensor, right: Tensor) -> None:
    found = product(left, right)
    torch.testing.assert_close(found.double(), left.double() @ right.double(), rtol=1e-5, atol=1e-5)
    assert torch.equal(found, product(left, right))
    assert ONEDNN in operations(lambda: product(left, right))


@pytest.mark.parametrize("right", [drawn(48, 70)[:, 4:37], drawn(33, 70)[:, 4:52].t(), drawn(48, 66)[:, ::2]])
def test_a_part_of_a_wider_matrix_is_copied_first(right: Tensor) -> None:
    """As it stands it would be multiplied by oneDNN's reference, number by number."""
    left, whole = drawn(70, 48), right.contiguous()
    torch.testing.assert_close(product(left, right).double(), left.double() @ right.double(), rtol=1e-5, atol=1e-5)
    assert "aten::clone" in operations(lambda: product(left, right))
    assert "aten::clone" not in operations(lambda: product(left, whole))


def test_other_precisions_and_nothing_at_all_are_torch_s_own() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        left, right = drawn(6, 8, dtype=dtype), drawn(8, 5, dtype=dtype)
        assert torch.equal(product(left, right), left @ right)
    assert product(drawn(0, 8), drawn(8, 5)).shape == (0, 5)


@pytest.mark.skipif(torch.version.cuda is not None, reason="vLLM runs on its GPU; oneDNN 3.10 splits few rows")
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("shape", [SMALL, LARGE])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_row_has_the_same_bits_whatever_is_beside_it(shape: tuple[int, int], has_bias: bool) -> None:
    weight, x = drawn(*shape), drawn(130, shape[1])
    bias = drawn(shape[0]) if has_bias else None
    whole = linear(x, weight, bias)
    torch.testing.assert_close(whole, F.linear(x, weight, bias), rtol=1e-4, atol=1e-4)
    for count in (1, 2, 3, 4, 5, 7, 16, 31, 64, 129):
        assert torch.equal(linear(x[:count], weight, bias), whole[:count])
        assert torch.equal(linear(x[-count:], weight, bias), whole[-count:])
    assert linear(x[:0], weight, bias).shape == (0, shape[0])


def test_small_layers_of_vllm_stay_with_the_library_that_is_faster_there() -> None:
    for shape in (SMALL, LARGE):
        weight, x = drawn(*shape), drawn(64, shape[1])
        assert (ONEDNN in operations(lambda: linear(x, weight))) == (weight.numel() >= FEWEST_WEIGHTS)  # noqa: B023


def test_megatron_s_layers_go_through_it_forwards_and_backwards() -> None:
    adapt_megatron()
    from megatron.core.tensor_parallel.layers import LinearWithFrozenWeight

    x, weight, upstream = drawn(12, 1, 48).requires_grad_(), drawn(33, 48), drawn(12, 1, 33)

    def there_and_back() -> None:
        LinearWithFrozenWeight.apply(x, weight, None, False, None).backward(upstream)

    made = operations(there_and_back)
    assert ONEDNN in made and not made & {"aten::mm", "aten::addmm", "aten::bmm"}
    assert x.grad is not None
    torch.testing.assert_close(x.grad, upstream @ weight)
