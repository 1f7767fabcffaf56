"""What only a GPU can show; the paths are those that the other tests run on the CPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import PHASES, Phase, attempt
from tests.actor.test_layouts import largest_gap, merged, some_groups, transformers_logprobs
from tests.models import make_folder
from tests.ranks import run_ranks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible to torch"),
]
ON_GPU: dict[str, Any] = {"device": "cuda", "precision": "bf16", "devices_per_node": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("qwen2"), intermediate_size=256)  # whole blocks of FP8


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("scaling", ["off", "blockwise", "tensorwise", "delayed"])
def test_transformer_engine_computes_what_transformers_does(folder: Path, scaling: str, recomputes: bool) -> None:
    scale = ON_GPU | {"fp8_actor": scaling, "recomputes_activations": recomputes}
    (found,) = run_ranks("tests.actor.test_layouts:steps", 1, cases={"one": (str(folder), scale)})
    rows = merged([found["one"]])
    expected = {row: values for row, values in transformers_logprobs(folder, some_groups()).items() if row in rows}
    assert largest_gap(rows, expected) < (0.1 if scaling == "off" else 0.5)
    assert all(norm > 0 for norm in found["one"]["norms"])


def test_a_checkpoint_written_in_the_background_holds_what_was_there_when_it_began(
    folder: Path, tmp_path: Path
) -> None:
    arguments = {"folder": str(folder), "directory": str(tmp_path), **ON_GPU}
    (result,) = run_ranks("tests.test_checkpoint:behind", 1, **arguments)
    assert result["saved"] == result["resumed"] != result["after"]


def test_the_engine_holds_the_export_and_samples_as_the_actor_expects(folder: Path) -> None:
    ((result,),) = run_ranks("tests.refit.test_refit:colocated", 1, folder=str(folder), num_updates=20, scales=[ON_GPU])
    assert result["equal"] == [[], []]
    assert max(result["gaps"]) < 0.05


@pytest.mark.parametrize("phase", PHASES, ids=[phase.name for phase in PHASES])
def test_a_phase_of_the_gpu_check_passes(phase: Phase, tmp_path_factory: pytest.TempPathFactory) -> None:
    work = tmp_path_factory.getbasetemp() / "gpu_check"  # the phases share a model
    work.mkdir(exist_ok=True)
    command = [sys.executable, "-W", "ignore", "benchmarks/gpu_phases.py", phase.name, "--work", str(work)]
    found = attempt(command, phase.limit_seconds)
    assert found["status"] == "passed", found
