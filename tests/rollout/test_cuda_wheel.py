"""The cluster's vLLM takes this project's words, and its asynchronous scheduler and FP8 reload do what is asked.

`make compat` runs these in an environment of cuda.lock; elsewhere there is no such vLLM.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
# Lazily bound, so that a library with nothing in it does for what is never called.
PROGRAM = """
import os, runpy, sys
sys.setdlopenflags(os.RTLD_LAZY)
runpy.run_module("tests.rollout.cuda_wheel", run_name="__main__", alter_sys=True)
"""
HAS_CUDA_WHEEL = any(package.name == "vllm" for package in metadata.distributions())

pytestmark = [
    pytest.mark.skipif(not HAS_CUDA_WHEEL, reason="vLLM here is the CPU's; `make compat` has the cluster's"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, for a libcuda where there is no driver"),
]


def ask(what: str, folder: Path) -> dict[str, Any]:
    """What cuda_wheel.py prints, beside a libcuda of nothing."""
    name = "libcuda.so.1"
    compile_it = ["cc", "-shared", "-o", folder / name, "-x", "c", os.devnull, f"-Wl,-soname,{name}"]
    subprocess.run(compile_it, check=True)
    variables = {
        "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(ROOT), "VLLM_CACHE_ROOT": str(folder / "cache"),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_USE_V2_MODEL_RUNNER": "1", "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        "TORCH_COMPILE_DISABLE": "1" if what == "reload" else "0",  # there it is a question of the configuration
    }  # fmt: skip
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(folder), what]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return ask("all", tmp_path_factory.mktemp("wheel"))


def test_vllm_chooses_what_was_thought_of(found: dict[str, Any]) -> None:
    chosen = {
        "runner": 2, "scheduler": "AsyncScheduler", "steps_at_once": 2, "chunked_prefill": True,
        "graphs": "FULL_AND_PIECEWISE", "largest_graph": 512, "head": "torch.float32", "gives_memory_back": True,
        "own_all_reduce": False, "quantization": None,
    }  # fmt: skip
    assert found["h100x8"] == found["tp8"] == chosen


def test_attention_is_as_sharp_as_a_yarn_config_says(found: dict[str, Any]) -> None:
    assert found["sharpness"] == 1.3


@pytest.mark.parametrize(("cache", "is_short"), [("plenty", False), ("little", True)])
def test_a_sample_is_what_its_request_alone_gives(found: dict[str, Any], cache: str, is_short: bool) -> None:
    of = found[cache]
    assert (of["at_once"], of["after_leaving"], of["after_sleep"]) == (0, 0, 0)
    assert (of["num_preempted"] > 0) == is_short and of["found_cached"]


def test_an_engine_that_is_left_has_nothing_under_way(found: dict[str, Any]) -> None:
    assert found["plenty"]["left"] == found["little"]["left"] == [0, 0, 0]


def test_a_refit_in_fp8_fills_all_in_place_and_tells_what_stays_away(tmp_path: Path) -> None:
    of = ask("reload", tmp_path)
    assert max(of["gaps"]) < 0.05 and of["in_place"]
    assert of["lacking"] == [
        "model.layers.1.mlp.gate_up_proj.weight", "model.layers.1.mlp.gate_up_proj.weight_scale_inv"
    ]  # fmt: skip
