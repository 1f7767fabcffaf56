"""The phases of gpu.py that know Transformer Engine alone."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.gpu_setting import Figures, Setting, timed


def fp8_recipes(setting: Setting) -> Figures:
    """Relative error and milliseconds of one linear layer, forward and backward."""
    import torch
    import transformer_engine.pytorch as te
    from transformer_engine.common import recipe

    torch.manual_seed(0)
    layer = te.Linear(2048, 8192, bias=False, params_dtype=torch.bfloat16).cuda()
    x = torch.randn(4096, 2048, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    exact = x.detach().double() @ layer.weight.detach().double().t()
    found: Figures = {}
    ways = {"bf16": None, "tensorwise": recipe.Float8CurrentScaling(), "delayed": recipe.DelayedScaling(),
            "blockwise": recipe.Float8BlockScaling()}  # fmt: skip
    for name, way in ways.items():

        def once(way: Any = way) -> torch.Tensor:
            with te.fp8_autocast(enabled=way is not None, fp8_recipe=way):
                return layer(x)

        y = once()
        y.sum().backward()
        error = float((y.double() - exact).norm() / exact.norm())
        found[name] = {"relative_error": error, "forward_ms": 1e3 * timed(once, 20)}
        assert error < (1e-2 if name == "bf16" else 5e-2), f"{name}: relative error {error}"
        assert x.grad is not None and bool(x.grad.isfinite().all()), f"{name}: the gradient is not finite"
    return found


def attention(setting: Setting) -> Figures:
    """Transformer Engine's attention of ten packs of other lengths, and the time of each first call."""
    import torch
    import torch.nn.functional as F
    from transformer_engine.pytorch import DotProductAttention

    torch.manual_seed(0)
    layer = DotProductAttention(12, 128, num_gqa_groups=2, qkv_format="thd", attn_mask_type="padding_causal").cuda()
    firsts, largest = [], 0.0
    for number in range(10):
        lengths = torch.randint(200, 3000, (6,), generator=torch.Generator().manual_seed(number))
        starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]).int().cuda()
        shape = int(lengths.sum())
        options: Any = {"device": "cuda", "dtype": torch.bfloat16, "requires_grad": True}
        q, k, v = (torch.randn(shape, heads, 128, **options) for heads in (12, 2, 2))
        began = time.perf_counter()
        longest = int(lengths.max())
        out = layer(q, k, v, cu_seqlens_q=starts, cu_seqlens_kv=starts, max_seqlen_q=longest, max_seqlen_kv=longest)
        out.float().square().sum().backward()
        torch.cuda.synchronize()
        firsts.append(round(time.perf_counter() - began, 4))
        for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            parts = (tensor[first:last].transpose(0, 1)[None].float() for tensor in (q, k, v))
            exact = F.scaled_dot_product_attention(*parts, is_causal=True, enable_gqa=True)[0].transpose(0, 1)
            gap = (out[first:last].view(exact.shape).float() - exact).abs().max()
            largest = max(largest, float(gap.detach()))
    assert largest < 0.05, f"attention of a pack is {largest} off"
    return {"largest_gap": largest, "first_call_seconds": firsts}
