"""What the pages tell one to type on a cluster, as written, on a private Slurm of eight nodes.

The smoke job runs up to the model, which no test downloads, and the evaluation of eight ranks up to their GPUs, which
the nodes only pretend to have. What asks for more is submitted to a partition that takes jobs and starts none;
tests/slurm/test_training.py trains on Slurm. Not covered: enroot and docker.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.checkout import environment, make_checkout
from tests.docs.pages import lines_in
from tests.folders import write_run
from tests.slurm.cluster import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

COPY, SOURCE = (line for line in lines_in("slurm") if "slurm/site.env" in line)
SUBMITTED = [line for line in lines_in("slurm") if "sbatch" in line and "slurm/" in line and "--test-only" not in line]
(SMOKE,) = [line for line in SUBMITTED if "RUN_DIR=runs/smoke" in line]
(DOCTOR,) = [line for line in lines_in("slurm") if line.startswith("srun --account")]
(EVALUATION,) = [line for line in lines_in("slurm") if "megatron-rl evaluate" in line]
(ASKED,) = [line for line in lines_in("slurm") if "--test-only" in line]


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


@pytest.fixture(scope="module")
def trained(site: Path) -> Path:
    """The checkout with a finished run at the place that the page names."""
    (site / "runs").mkdir(exist_ok=True)
    write_run(site / "runs" / "prorl_v2", "h100x32")
    return site


def instead(line: str, **words: str) -> str:
    """The line with other values of some of its options."""
    for name, value in words.items():
        line, count = re.subn(rf"(?<=--{name.replace('_', '-')}[= ])\S+", value, line)
        assert count == 1, (line, name)
    return line


def exit_codes(said: str) -> dict[int, int]:
    """By task, as srun tells them."""
    found = {}
    for tasks, code in re.findall(
        r"^srun: error: node\d: tasks? (\S+): Exited with exit code (\d+)$", said, re.MULTILINE
    ):
        for part in tasks.split(","):
            first, _, last = part.partition("-")
            found |= dict.fromkeys(range(int(first), int(last or first) + 1), int(code))
    return found


def errors(said: str) -> list[str]:
    return re.findall(r"^error: .*$", said, re.MULTILINE)


def test_an_evaluation_starts_all_its_ranks_up_to_the_gpus_that_are_not_there(large: Cluster, trained: Path) -> None:
    said = typed(large, trained, EVALUATION)
    assert exit_codes(said) == dict.fromkeys(range(8), 1), "a plan that could not be is 2"
    (line,) = errors(said)
    assert re.fullmatch(
        r"error: scale 'h100x8': no CUDA device is visible to torch \S+ on node\d, "
        r"CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7, and each rank needs one; run on a GPU machine .* device='cpu'",
        line,
    ), said
    assert not list(trained.glob("runs/prorl_v2/evaluation/policies/*")), "nothing was asked"


def test_a_rank_with_a_gpu_of_its_own_says_itself_that_it_is_not_there(large: Cluster, trained: Path) -> None:
    said = typed(large, trained, EVALUATION.replace("--gpus-per-node=8", "--gpus-per-task=1"))
    found = re.findall(r"on rank (\d) on node\d, CUDA_VISIBLE_DEVICES=(\d), ", "\n".join(errors(said)))
    assert sorted(found) == [(str(rank), str(rank)) for rank in range(8)], said


@pytest.mark.parametrize(
    ("words", "num_tasks", "message"),
    [
        ({"ntasks_per_node": "4"}, 4, "scale 'h100x8': needs 8 ranks, and 4 were started; start 1 x 8, or choose a"),
        ({"suite": "prorll"}, 8, "suite 'prorll': there is none; did you mean 'prorl'"),
        ({"suite": "prorl --max-response-tokens 99999"}, 8, "the suites ask for 108191 tokens of prompt and response"),
    ],
)
def test_what_all_ranks_of_an_evaluation_see_one_of_them_says(
    words: dict[str, str], num_tasks: int, message: str, large: Cluster, trained: Path
) -> None:
    said = typed(large, trained, instead(EVALUATION, **words))
    assert exit_codes(said) == dict.fromkeys(range(num_tasks), 2), said
    (line,) = errors(said)
    assert line.startswith(f"error: {message}"), said


def test_an_evaluation_of_several_tasks_ends_as_one_that_starts_its_ranks_itself(large: Cluster, site: Path) -> None:
    by_srun = instead(EVALUATION, ntasks_per_node="2", gpus_per_node="2", suite="mini --samples 8", scale="cpu")
    of_model = by_srun.replace("runs/prorl_v2", "demo/model")
    said = typed(large, site, f"{of_model} --to runs/by_srun")
    assert "pass@1" in said and "Medians" in said and not errors(said) and not exit_codes(said), said
    alone = of_model[of_model.index("megatron-rl") :]
    assert "Medians" in typed(large, site, f"{alone} --to runs/alone")
    assert len((site / "runs" / "by_srun" / "table.csv").read_text().splitlines()) > 10
    assert kept(site / "runs" / "by_srun") == kept(site / "runs" / "alone")


def kept(folder: Path) -> dict[str, bytes]:
    """Samples, verdicts and table."""
    files = [*folder.rglob("wave_*.jsonl"), folder / "table.csv"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
