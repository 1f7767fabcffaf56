"""A stream to an engine that quantises is exactly the manifest, or it ends with what is wrong."""

from __future__ import annotations

import pytest
import torch

from megatron_rl.refit.stream import complete


def test_a_missing_tensor_is_named() -> None:
    with pytest.raises(RuntimeError, match="1 tensors of the manifest were not sent: b"):
        list(complete([("a", torch.zeros(2))], {"a": (2,), "b": (3,)}))


def test_an_extra_tensor_is_named() -> None:
    with pytest.raises(RuntimeError, match="tensor c is not in the manifest"):
        list(complete([("c", torch.zeros(2))], {"a": (2,)}))


def test_a_tensor_of_another_shape_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"tensor a is \(3,\), the manifest says \(2,\)"):
        list(complete([("a", torch.zeros(3))], {"a": (2,)}))
