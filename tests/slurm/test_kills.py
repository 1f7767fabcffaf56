"""A run may be ended anywhere, and ends with the same bits: killed in every phase, or by what Slurm does to a job."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kills import tally
from megatron_rl.report.journal import FILE_NAME, is_validation, read_rows
from tests.slurm.cluster import Cluster
from tests.slurm.kills import (
    BY_SLURM,
    NUM_STEPS,
    PHASES,
    WAVE,
    Kill,
    Ordeal,
    Seen,
    differences,
    drawn,
    endure,
    moment,
    plant_shared_memory,
    shared_memory,
    stored,
)  # fmt: skip

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]

SEED = 6  # of the moments; benchmarks/kills.py takes others
MATRIX = ("one_rank", "all_ranks", "by_slurm", "at_random")
SPAN_OF = {"rollout": "generate", "scoring": "score", "update": "update", "save": "save", "commit": "save"}
# Two rollout ranks to an engine, which share memory, and six waves a step at least.
SHARING = {
    "scale.rollout_tensor_parallel": 2,
    "sampling.prompts_per_step": 6,
    "num_steps": 3,
    "scale.max_requests_in_flight": 16,  # else all waves are decoded side by side
}
LATE_WAVE = 6  # the last of a first round


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
        assert sorted(in_commit.partial) == ["manifest.json", "rank_00000.pt", "rank_00001.pt", "response_tokens.json"]
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


def test_the_tally_of_random_kills_counts_them_all_and_nothing_lost(
    ordeals: dict[str, list[Seen]], folder: Path
) -> None:
    figures = tally({folder / "at_random": ordeals["at_random"]}, folder / "whole")
    assert figures["kills"] == figures["identical"] == 3
    for name in ("different_runs", "lost_steps", "orphans", "shared_memory_left"):
        assert figures[name] == 0
    assert sum(count for name, count in figures.items() if name.startswith("by_")) == 3


def test_a_process_that_outlives_its_job_is_seen(cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.nodes[0]
    job = cluster.submit(f"--nodelist={node}", "--wrap=(setsid sleep 317 &)", cwd=tmp_path)
    cluster.wait(job)
    ((process, command),) = cluster.orphans(node, seconds=1).items()
    assert command == "sleep 317"
    os.kill(process, signal.SIGKILL)
    assert cluster.orphans(node) == {}


@pytest.fixture(scope="module")
def neighbours(cluster: Cluster, folder: Path) -> dict[str, Any]:
    """Two runs of the same on one node: one is killed at its last wave; the other stands still, then trains on."""
    node = cluster.nodes[0]
    late = Kill(how="all", phase=WAVE, step=2, nth=LATE_WAVE)
    pause = Kill(how="waits", phase="update", step=2)
    killed = Ordeal(cluster, folder / "killed", node, [late], **SHARING)
    spared = Ordeal(cluster, folder / "spared", node, [pause], **SHARING)
    spared.meet()
    at_death = killed.meet()
    for run in (killed.run, spared.run):  # on every CPU what some leave
        plant_shared_memory(run)
    left = shared_memory(killed.run)
    (seen,) = killed.endure()
    kept = shared_memory(spared.run)
    spared.release()
    spared.finish()
    found = {"seen": seen, "waves": at_death["waves"], "left": left, "kept": kept}
    return found | {"killed": killed.run, "spared": spared.run}


def test_a_killed_job_does_not_hurt_its_neighbour_and_both_end_right(neighbours: dict[str, Any]) -> None:
    killed, spared = neighbours["killed"], neighbours["spared"]
    assert differences(killed, spared) == []
    assert [path.name for path in (spared / "logs").glob("attempt_*")] == ["attempt_0"]
    assert neighbours["seen"].orphans == () and neighbours["seen"].lost_steps == 0


def test_finished_waves_are_not_generated_again(neighbours: dict[str, Any]) -> None:
    killed, spared = neighbours["killed"], neighbours["spared"]
    assert neighbours["waves"] == LATE_WAVE - 1
    assert stored(killed, 0, step=2) == LATE_WAVE
    num_waves = stored(spared, 0, step=2)
    assert num_waves >= LATE_WAVE
    assert stored(killed, 1, step=2) == num_waves - (LATE_WAVE - 1)


def test_the_shared_memory_of_a_run_goes_at_its_end_and_that_of_a_killed_one_at_the_next_start(
    neighbours: dict[str, Any],
) -> None:
    assert neighbours["left"] and neighbours["kept"], "a neighbour's stays while that runs"
    assert shared_memory(neighbours["killed"]) == [] and shared_memory(neighbours["spared"]) == []
