"""The benchmark of rollouts runs, and its figures agree with one another."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.e2e
def test_the_benchmark_of_rollouts_ends_with_a_line_of_figures() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/rollout.py", "--quick"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for model in ("tiny", "20m"):
        for size in (16, 512):
            case = f"n{size}_{model}"
            for name in ("samples", "tokens", "uncached_samples", "vllm_samples"):
                assert found[f"{name}_per_second_{case}"] > 0
            ratio = found[f"samples_per_second_{case}"] / found[f"vllm_samples_per_second_{case}"]
            assert found[f"collect_ratio_{case}"] == pytest.approx(ratio, rel=0.01)
            assert 0.3 < found[f"prefix_hits_{case}"] < 1  # whole blocks of 32 tokens of about 70, but for the first
        wide, narrow = (found[f"samples_per_second_n{size}_{model}"] for size in (512, 16))
        assert found[f"n512_over_n16_{model}"] == pytest.approx(wide / narrow, rel=0.01)
