"""Matrix products in fp32 by oneDNN. torch takes MKL for them, which is half as fast on a processor of AMD's.

The same inputs give the same bits again; other bits than MKL's, within rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
FEWEST_WEIGHTS = 2**17  # of a layer, below which MKL is the faster one for the few rows of a decoding step


def product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right of [..., K] and [K, N], in the precision of both; not differentiable."""
    if HAS_ONEDNN and left.dtype == right.dtype == torch.float32 and right.dim() == 2 and left.numel() > 0:
        return _by_onednn(left, right.t(), None)
    return torch.matmul(left, right)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias of [T, K] and [N, K], for vLLM's layers.

    In one thread a row has the same bits whatever rows are beside it: neither library gives them to a row that is
    alone, nor MKL to one of two or three, nor oneDNN before 3.12 to one of forty.
    """
    if x.dim() == 2 and 0 < len(x) < 4:
        return linear(F.pad(x, (0, 0, 0, 4 - len(x))), weight, bias)[: len(x)]
    if HAS_ONEDNN and x.dtype == weight.dtype == torch.float32 and weight.numel() >= FEWEST_WEIGHTS:
        return _by_onednn(x, weight, bias)
    return F.linear(x, weight, bias)


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()  # oneDNN has no kernel for rows with gaps: it takes five hundred times as long
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found


class _ByOneDnn(TorchFunctionMode):
    def __torch_function__(self, function: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.matmul, Tensor.matmul) and not kwargs:
            return product(*args)
        return function(*args, **(kwargs or {}))


def by_onednn(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, in which products of matrices are made by `product`. It must not be one that autograd records."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _ByOneDnn():
            return function(*args, **kwargs)

    return call
