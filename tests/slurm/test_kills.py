"""A run may be ended anywhere and ends with the same bits: killed in every phase, and by all that Slurm does to a job."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from megatron_rl.report.journal import FILE_NAME, is_validation, read_rows
from tests.slurm.cluster import Cluster
from tests.slurm.kills import (
    BY_SLURM,
    NUM_STEPS,
    PHASES,
    Seen,
    differences,
    drawn,
    endure,
    moment,
    shared_memory,
)  # fmt: skip

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]

SEED = 6  # of the moments; benchmarks/kills.py takes others
MATRIX = ("one_rank", "all_ranks", "by_slurm", "at_random")
SPAN_OF = {"rollout": "generate", "scoring": "score", "update": "update", "save": "save", "commit": "save"}
# Two rollout ranks to an engine, which share memory, and eight waves a step.
SHARING = {
    "scale.rollout_tensor_parallel": 2,
    "scale.sequences_per_wave": 16,
    "sampling.prompts_per_step": 8,
    "run.bank_waves_longer_than_seconds": 0,
    "num_steps": 3,
}
LATE_WAVE = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def ordeals(cluster: Cluster, folder: Path) -> dict[str, list[Seen]]:
    """What every kill of the matrix came to, by run; `whole` is the run that nobody ends."""
    draw = random.Random(SEED)
    plans = {
        cluster.nodes[0]: {
            folder / "whole": [],
            folder / "one_rank": [moment("one", phase, 2 + i, draw) for i, phase in enumerate(PHASES)],
            folder / "all_ranks": [moment("all", phase, 2 + i, draw) for i, phase in enumerate(PHASES)],
        },
        cluster.nodes[1]: {
            folder / "by_slurm": [
                moment(how, phase, 2 + i, draw) for i, (how, phase) in enumerate(zip(BY_SLURM, PHASES, strict=True))
            ],
            folder / "at_random": drawn(3, SEED)[0],
        },
    }
    return {run.name: seen for run, seen in endure(cluster, plans).items()}


def test_the_matrix_has_every_way_to_end_and_meets_every_phase(ordeals: dict[str, list[Seen]]) -> None:
    for name in ("one_rank", "all_ranks"):
        assert [one.where for one in ordeals[name]] == [SPAN_OF[phase] for phase in PHASES]
        in_save, in_commit = ordeals[name][3:]
        assert in_save.partial, "killed before the first file was begun"
        assert sorted(in_commit.partial) == ["manifest.json", "rank_00000.pt", "rank_00001.pt"]
    assert [one.kill.how for one in ordeals["by_slurm"]] == list(BY_SLURM)
    assert [one.where for one in ordeals["by_slurm"]] == [SPAN_OF[phase] for phase in PHASES]
    assert len(ordeals["at_random"]) == 3


@pytest.mark.parametrize("name", MATRIX)
def test_a_run_that_was_ended_again_and_again_ends_with_the_same_bits(
    ordeals: dict[str, list[Seen]], folder: Path, name: str
) -> None:
    assert differences(folder / name, folder / "whole") == []


@pytest.mark.parametrize("name", MATRIX)
def test_no_step_is_lost_but_the_one_under_way(ordeals: dict[str, list[Seen]], name: str) -> None:
    assert [one.lost_steps for one in ordeals[name]] == [0] * len(ordeals[name])


@pytest.mark.parametrize("name", ("whole", *MATRIX))
def test_the_journal_has_every_step_once(ordeals: dict[str, list[Seen]], folder: Path, name: str) -> None:
    rows = [(row["step"], is_validation(row)) for row in read_rows(folder / name / FILE_NAME)]
    steps = [(step, False) for step in range(1, NUM_STEPS + 1)]
    assert rows == [(0, True), *steps, (NUM_STEPS, True)]


@pytest.mark.parametrize("name", MATRIX)
def test_no_process_and_no_shared_memory_is_left(ordeals: dict[str, list[Seen]], folder: Path, name: str) -> None:
    assert [one.orphans for one in ordeals[name]] == [()] * len(ordeals[name])
    assert shared_memory(folder / name) == []
    assert [path.name for path in (folder / name / "checkpoints").glob("*.partial")] == []
