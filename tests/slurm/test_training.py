"""The real training, both engines and two ranks, as a job of a real Slurm: by script, in a container, by NeMo-Run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.test_launch_script import checkout, python_with_nemo_run

__all__ = ("checkout",)  # a fixture

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
NUM_STEPS = 2
SHORT = {
    "num_steps": NUM_STEPS,
    "run.validate_every_steps": 2,
    "run.save_every_steps": 2,
    "run.max_validation_prompts": 8,
}
SETTINGS = [word for name, value in SHORT.items() for word in ("--set", f"{name}={value}")]


def path_of_python(cluster: Cluster) -> str:
    """PATH with the engines' Python first, as slurm/site.env would put it there."""
    return f"{Path(sys.executable).parent}:{cluster.environment['PATH']}"


def trained_steps(run: Path) -> list[int]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "actor/loss" in line]


def submit(cluster: Cluster, run: Path, *settings: str, **variables: str) -> dict[str, str]:
    """The job that `sbatch slurm/prorl_v2.sh` makes at scale cpu, once it has ended."""
    job = cluster.submit(
        "--nodes=1", "--ntasks-per-node=2", f"--output={run}.out", "slurm/prorl_v2.sh", *SETTINGS, *settings,
        cwd=ROOT, SCALE="cpu", RUN_DIR=str(run), PATH=path_of_python(cluster), **variables,
    )  # fmt: skip
    shown = cluster.wait(job, timeout=240)
    assert shown["JobState"] == "COMPLETED", Path(f"{run}.out").read_text()
    return shown


def test_a_batch_script_trains_to_the_end(cluster: Cluster, tmp_path: Path) -> None:
    submit(cluster, tmp_path / "run")
    assert trained_steps(tmp_path / "run") == list(range(1, NUM_STEPS + 1))
    assert (tmp_path / "run" / "DONE").exists() and (tmp_path / "run" / "report.html").exists()
    log = (tmp_path / "run" / "logs" / "attempt_0" / "task_0.log").read_text()
    assert f"{NUM_STEPS} of {NUM_STEPS} steps done" in log
    said = re.findall(
        r"INFO step (\d)/2  reward .* kept .* mismatch .* tokens/s .* s/step", (tmp_path / "run.out").read_text()
    )
    assert said == ["1", "2"], "the job's own output has a line for each step"


def test_a_container_sees_the_repository_the_run_and_its_mounts(cluster: Cluster, tmp_path: Path) -> None:
    if not cluster.has_containers:
        pytest.skip("the stand-in for Pyxis needs a C compiler and slurm/spank.h; apt-get install gcc libslurm-dev")
    submit(
        cluster, tmp_path / "run", "--set", "run.data_folder=/data/of/the/container",
        CONTAINER_IMAGE="any.sqsh", CONTAINER_MOUNTS=f"{ROOT / 'demo' / 'data'}:/data/of/the/container:ro",
    )  # fmt: skip
    # What is written outside the mounts would be lost with the task.
    assert trained_steps(tmp_path / "run") == list(range(1, NUM_STEPS + 1))
    assert not Path("/data/of").exists()


FEW_SAMPLES = """
import dataclasses
from recipes.suites.mini import SUITE as MINI
SUITE = dataclasses.replace(MINI, answering=dataclasses.replace(MINI.answering, samples_per_problem=4))
"""


@pytest.mark.timeout(420)
def test_nemo_run_trains_a_chain_to_the_end_and_evaluates(cluster: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (tmp_path / "few.py").write_text(FEW_SAMPLES)
    done = cluster.run(
        python_with_nemo_run(), ROOT / "slurm" / "launch.py", "prorl_v2", "--scale", "cpu", "--jobs", "2",
        "--directory", run, "--allow-dirty", "--evaluate", tmp_path / "few.py", *SETTINGS,
        cwd=tmp_path, timeout=120, variables={
            "SBATCH_ACCOUNT": "research", "SBATCH_PARTITION": "main", "CONTAINER_IMAGE": "",
            "NEMORUN_HOME": str(tmp_path / "home"), "PATH": path_of_python(cluster),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    jobs = re.findall(r"^(\d+) ", cluster.run("squeue", "-h", "-o", "%i %j").stdout, re.MULTILINE)
    assert len(jobs) == 3, done.stdout
    for job in sorted(jobs, key=int):
        assert cluster.wait(job, timeout=240)["JobState"] == "COMPLETED", logs(tmp_path / "home")
    assert trained_steps(run) == list(range(1, NUM_STEPS + 1))
    assert [path.name for path in (run / "logs").glob("attempt_*")] == ["attempt_0"], "the second finds it done"
    assert len((run / "submissions.jsonl").read_text().splitlines()) == 1
    assert "nothing to do" in logs(tmp_path / "home")
    table = (run / "evaluation" / "table.csv").read_text()
    assert all(f"mini_math,{policy},ours,pass@1," in table for policy in ("step_000000", f"step_{NUM_STEPS:06d}"))
    assert [path.name for path in (run / "evaluation" / "logs").glob("attempt_*")] == ["attempt_0"], "a srun of its own"


def test_a_recipe_and_a_reward_of_ones_own_train_by_nemo_run(cluster: Cluster, tmp_path: Path, checkout: Path) -> None:
    data, run = ROOT / "demo" / "own_reward", tmp_path / "run"
    made = cluster.run(
        sys.executable, "-m", "megatron_rl", "recipe", "new", "--from", "grpo_control", "--to", "recipes/mine.py",
        "--model", ROOT / "demo" / "model", "--domains", "my_rewards.py:Sum", cwd=checkout,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout
    done = cluster.run(
        python_with_nemo_run(), checkout / "slurm" / "launch.py", "recipes/mine.py", "--scale", "cpu", "--allow-dirty",
        "--directory", run, "--set", f"run.data_folder={data}", "--set", f"run.model_folder={ROOT / 'demo' / 'model'}",
        *SETTINGS, cwd=checkout, timeout=120, variables={
            "SBATCH_ACCOUNT": "research", "SBATCH_PARTITION": "main", "CONTAINER_IMAGE": "",
            "NEMORUN_HOME": str(tmp_path / "home"), "PATH": path_of_python(cluster),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    (job,) = re.findall(r"^(\d+) ", cluster.run("squeue", "-h", "-o", "%i %j").stdout, re.MULTILINE)
    assert cluster.wait(job, timeout=240)["JobState"] == "COMPLETED", logs(tmp_path / "home")
    assert trained_steps(run) == list(range(1, NUM_STEPS + 1))
    facts = json.loads((run / "run.json").read_text())
    assert facts["release"] == "mine 0.1.0" and not facts["variant_of"]
    assert list(facts["data"]["rewards"]) == ["my_rewards.py:Sum"]


def test_what_slurm_would_refuse_is_one_line(cluster: Cluster, tmp_path: Path) -> None:
    done = cluster.run(
        python_with_nemo_run(), ROOT / "slurm" / "launch.py", "prorl_v2", "--scale", "cpu", "--allow-dirty",
        "--directory", tmp_path / "run", cwd=tmp_path, timeout=120, variables={
            "SBATCH_ACCOUNT": "research", "SBATCH_PARTITION": "none", "CONTAINER_IMAGE": "",
            "NEMORUN_HOME": str(tmp_path / "home"),
        },
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: Slurm would refuse the job: sbatch: error: invalid partition specified: none" in done.stdout
    assert "Traceback" not in done.stdout and not (tmp_path / "run").exists()


def logs(home: Path) -> str:
    """All that NeMo-Run's jobs wrote."""
    return "\n".join(path.read_text() for path in sorted(home.rglob("*.out")))
