"""What docs/cluster.md and the README tell one to type on a cluster, as written, on a private Slurm of eight nodes.

The smoke job runs up to the model, which no test downloads. What asks for more is submitted to a partition that takes
jobs and starts none; tests/slurm/test_training.py trains on Slurm. Not covered: enroot and docker.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.checkout import environment, make_checkout
from tests.docs.pages import lines_in
from tests.slurm.cluster import Cluster, missing

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

COPY, SOURCE = (line for line in lines_in("slurm") if "slurm/site.env" in line)
SUBMITTED = [line for line in lines_in("slurm") if "sbatch" in line and "slurm/" in line and "--test-only" not in line]
(SMOKE,) = [line for line in SUBMITTED if "RUN_DIR=runs/smoke" in line]
(DOCTOR,) = [line for line in lines_in("slurm") if line.startswith("srun --account")]
(ASKED,) = [line for line in lines_in("slurm") if "--test-only" in line]


@pytest.fixture(scope="module")
def large() -> Iterator[Cluster]:
    if lacks := missing():
        pytest.skip(lacks)
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        Path(folder).chmod(0o755)
        with Cluster(Path(folder), num_nodes=8) as running:
            if not running.has_containers:
                pytest.skip("the stand-in for Pyxis needs a C compiler and slurm/spank.h; apt-get install libslurm-dev")
            yield running


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout on a site whose shared folder has the prompts and no model."""
    folder = make_checkout(tmp_path_factory.mktemp("site").resolve() / "checkout")
    (folder.parent / "data").mkdir()
    (folder.parent / "data" / "prorl").symlink_to(Path(__file__).parents[1] / "data" / "five_domains")
    (folder.parent / "huggingface").mkdir()
    return folder


def typed(large: Cluster, place: Path, line: str, partition: str = "main") -> str:
    """What a line says that is typed in a shell which has sourced the site's file, as the page has it."""
    site = {
        "SBATCH_ACCOUNT": "research",
        "SBATCH_PARTITION": partition,
        "CONTAINER_IMAGE": "any.sqsh",
        "CONTAINER_MOUNTS": f"{place.parent}/data:/data:ro,{place.parent}/huggingface:/huggingface",
    }
    shell = f"source .venv/bin/activate; [ -e slurm/site.env ] && {SOURCE}; {line}"
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=place,
        env=environment(place) | large.environment | {"PYTHONPATH": str(place)} | site,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stdout and "sbatch: error" not in done.stdout, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def site(large: Cluster, place: Path) -> Path:
    assert typed(large, place, COPY) == ""
    assert (place / "slurm" / "site.env").is_file()
    return place


def test_the_smoke_job_runs_up_to_the_model_that_is_not_there(large: Cluster, site: Path) -> None:
    (job,) = re.findall(r"^Submitted batch job (\d+)$", typed(large, site, SMOKE), re.MULTILINE)
    shown = large.wait(job, timeout=120)
    assert (shown["JobState"], shown["NumNodes"], shown["NumTasks"]) == ("FAILED", "1", "8")
    refused = (site / "runs" / "smoke" / "FAILED").read_text()
    assert "run `hf download deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B`" in refused and refused.count("\n") == 1


@pytest.mark.parametrize("line", [line for line in SUBMITTED if line != SMOKE])
def test_what_asks_for_many_nodes_is_taken(line: str, large: Cluster, site: Path) -> None:
    (job,) = re.findall(r"^Submitted batch job (\d+)$", typed(large, site, line, "later"), re.MULTILINE)
    shown = large.show(job)
    large.run("scancel", job)
    wanted = 8 if "brorl.sh" in line else 4
    assert (shown["JobState"], shown["NumNodes"]) == ("PENDING", f"{wanted}-{wanted}")


def test_slurm_says_when_it_would_start(large: Cluster, site: Path) -> None:
    assert re.search(r"Job \d+ to start at", typed(large, site, ASKED))
    assert "JOBID" in typed(large, site, "squeue --me") and "JobId=" in typed(large, site, "scontrol show job")


def test_a_node_is_examined_from_within_the_container(large: Cluster, site: Path) -> None:
    said = typed(large, site, DOCTOR)
    assert "CUDA" in said and "sandbox" in said, said
