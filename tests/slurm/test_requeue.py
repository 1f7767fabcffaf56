"""What becomes of a job when its training command ends, on a real Slurm, with a stand-in for the command."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
# Takes the next word of the file `plan` at each start of the job.
STAND_IN = """
import os, pathlib, signal, sys, time
plan = pathlib.Path("plan").read_text().split()
word = plan[min(int(os.environ.get("SLURM_RESTART_COUNT", 0)), len(plan) - 1)]
checkpoint = pathlib.Path(sys.argv[sys.argv.index("--directory") + 1], "checkpoints")
if word.startswith("saves_"):
    (checkpoint / f"step_{int(word[6:]):06d}").mkdir(parents=True, exist_ok=True)
    (checkpoint / f"step_{int(word[6:]):06d}" / "manifest.json").touch()
    word = "1"
if word == "heeds":
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(85))
if word == "sleeps":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(85))  # as if asked to stop in good order
if word == "saving":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # until Slurm's KillWait is over
if word == "ignores":
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
if word == "used":
    print("error: directory x: another run is using it (process 1 on y); wait for its end", flush=True)
    word = "2"
elif word == "2":
    print("error: --set run.sed=2: there is no such key; did you mean 'run.seed'?", flush=True)
print("of the site:", os.environ.get("OF_SITE"), flush=True)
print("12:00:00 INFO step 1/2  reward 0.5", flush=True)
print("task", os.environ["SLURM_PROCID"], "says", word, *sys.argv[1:], flush=True)
if not word.isdigit():
    time.sleep(1000)
sys.exit(int(word))
"""


class Job:
    """slurm/prorl_v2.sh, submitted in a folder of its own where the training command follows a plan."""

    def __init__(self, cluster: Cluster, folder: Path, plan: str, *arguments: str, **variables: str) -> None:
        self.cluster, self.folder = cluster, folder
        write_stand_in(folder, plan)
        self.run = folder / "runs" / "my run"
        self.number = cluster.submit(
            "--nodes=1", "--ntasks-per-node=2", "--output=job.out", "slurm/prorl_v2.sh", *arguments,
            cwd=folder, RUN_DIR="runs/my run", SETTLE_SECONDS="2", GRACE_SECONDS="2",
            PATH=f"{folder}:{Path(sys.executable).parent}:{cluster.environment['PATH']}", **variables,
        )  # fmt: skip

    def wait_for_word(self, word: str) -> None:
        """Returns when both tasks of the training command say so."""
        wait_until(
            lambda: sum(f"says {word}" in log.read_text() for log in self.run.glob("logs/attempt_*/task_?.log")) == 2,
            self.output,
        )

    def output(self) -> str:
        return (self.folder / "job.out").read_text() if (self.folder / "job.out").exists() else "no output yet"

    def endings(self) -> list[str | None]:
        """How each attempt ended, None for one that could not tell."""
        folders = sorted(self.run.glob("logs/attempt_*"))
        files = [folder / "ending" for folder in folders]
        return [file.read_text().strip() if file.exists() else None for file in files]


def write_stand_in(folder: Path, plan: str) -> None:
    """A checkout in which the training command follows the plan."""
    if not (folder / "slurm").exists():
        (folder / "megatron_rl").mkdir(parents=True)
        (folder / "megatron_rl" / "__main__.py").write_text(STAND_IN)
        shutil.copytree(ROOT / "slurm", folder / "slurm", ignore=shutil.ignore_patterns("site.env"))
    (folder / "plan").write_text(plan)


def wait_until(holds: Callable[[], bool], explain: Callable[[], str], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.1)


def test_a_run_that_stops_in_good_order_goes_on_until_it_is_done(cluster: Cluster, tmp_path: Path) -> None:
    job = Job(cluster, tmp_path, "heeds 85 0", "--set", "run.seed=2")
    job.wait_for_word("heeds")
    cluster.run("scancel", "--batch", "--signal=USR1", job.number)  # what --signal=B:USR1 sends
    shown = cluster.wait(job.number)
    assert (shown["JobState"], shown["Restarts"]) == ("COMPLETED", "2"), job.output()
    assert job.endings() == ["stuck", "stuck", "0"], "which is no more than a warning, twice"
    assert job.output().count("stopped in good order without getting further, 2 of 3 times in a row") == 1
    assert "not requeued" not in job.output()
    assert (job.run / "DONE").exists() and not (job.run / "FAILED").exists()
    assert [job.output().count(f"attempt {number} from the start") for number in range(3)] == [1, 1, 1]
    assert job.output().count("12:00:00 INFO step 1/2  reward 0.5\n") == 3, "of the first task alone, at each attempt"
    assert (job.run / "logs" / "latest").resolve().name == "attempt_2"
    for number, word in enumerate(("heeds", "85", "0")):
        for task in range(2):
            log = (job.run / "logs" / f"attempt_{number}" / f"task_{task}.log").read_text()
            assert f"task {task} says {word} train recipes/prorl_v2.py --scale h100x32" in log
            assert "--directory runs/my run --set run.seed=2" in log

    again = Job(cluster, tmp_path, "1")
    assert cluster.wait(again.number)["JobState"] == "COMPLETED", "a run that is done is not started again"
    assert len(job.endings()) == 3


def test_a_crash_loop_ends_with_its_reason(cluster: Cluster, tmp_path: Path) -> None:
    job = Job(cluster, tmp_path, "saves_7 1")  # the first attempt gets on before it fails
    shown = cluster.wait(job.number, timeout=120)
    assert (shown["JobState"], shown["Restarts"]) == ("FAILED", "3"), job.output()
    assert job.endings() == ["1", "1", "1", "gave_up"]
    assert (
        "3 attempts in a row from step_000007 failed, the last with exit code 1: it left no line"
        in (job.run / "FAILED").read_text()
    )

    refused = Job(cluster, tmp_path, "0")
    assert cluster.wait(refused.number)["JobState"] == "FAILED"
    assert len(job.endings()) == 4, "nothing is started until FAILED is removed"
    (job.run / "FAILED").unlink()
    later = Job(cluster, tmp_path, "0")
    assert cluster.wait(later.number)["JobState"] == "COMPLETED", later.output()


def test_a_mistake_of_the_user_is_told_and_blocks_nothing(cluster: Cluster, tmp_path: Path) -> None:
    job = Job(cluster, tmp_path, "2")
    shown = cluster.wait(job.number)
    assert (shown["JobState"], shown["Restarts"]) == ("FAILED", "0")
    assert job.endings() == ["refused"]
    reason = "error: --set run.sed=2: there is no such key; did you mean 'run.seed'?"
    assert (job.run / "FAILED").read_text() == f"{reason}\n"
    assert "task 0 says 2" in job.output(), "the end of the log is shown"
    corrected = Job(cluster, tmp_path, "0")
    assert cluster.wait(corrected.number)["JobState"] == "COMPLETED", corrected.output()
    assert (job.run / "DONE").exists() and not (job.run / "FAILED").exists()


def test_a_job_whose_time_is_always_up_is_not_requeued_for_ever(cluster: Cluster, tmp_path: Path) -> None:
    job = Job(cluster, tmp_path, "85")
    shown = cluster.wait(job.number, timeout=120)
    assert (shown["JobState"], shown["Restarts"]) == ("FAILED", "2"), job.output()
    assert job.endings() == ["stuck", "stuck", "gave_up"]
    reason = (job.run / "FAILED").read_text()
    assert "3 attempts in a row from the start failed" in reason and "ask for more time (sbatch --time)" in reason


@pytest.mark.parametrize(
    ("made", "is_further"),
    [
        ([], False),
        (["checkpoints/step_000007/x"], False),  # it began from that one
        (["checkpoints/step_000007/x", "checkpoints/step_000008/x"], True),
        (["checkpoints/step_000007/x", "rollouts/step_000007/old.wave"], False),
        (["checkpoints/step_000007/x", "rollouts/step_000007/old.wave", "rollouts/step_000007/new.wave"], True),
        (["checkpoints/step_000007/x", "rollouts/step_000007/new.12.partial"], False),
        (["policies/step_000007/aime/samples/wave_00000.jsonl"], True),  # of an evaluation
        (["policies/step_000007/aime/math/wave_00000.jsonl", "policies/step_000007/policy.json"], True),
        (["policies/step_000007/policy.json", "problems/aime.jsonl"], False),
    ],
)
def test_a_checkpoint_or_a_finished_wave_is_progress(made: list[str], is_further: bool, tmp_path: Path) -> None:
    run, attempt = tmp_path / "my run", tmp_path / "attempt"
    attempt.mkdir()
    has_checkpoint = any(name.startswith("checkpoints") for name in made)
    (attempt / "checkpoint").write_text("step_000007\n" if has_checkpoint else "the start\n")
    (attempt / "waves").write_text(f"{run}/rollouts/step_000007/old.wave\n")
    for name in made:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).touch()
    program = f"set -e; source slurm/job.sh; run_dir='{run}'; attempt='{attempt}'; finished_waves; got_further"
    done = subprocess.run(["bash", "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0 if is_further else 1, "")


def test_a_cancelled_job_stays_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    job = Job(cluster, tmp_path, "sleeps")
    job.wait_for_word("sleeps")
    second = Job(cluster, tmp_path, "0")
    assert cluster.wait(second.number)["JobState"] == "FAILED", "one job at a time in a directory"
    assert f"job {job.number} is at work" in job.output()
    cluster.run("scancel", job.number)
    wait_until(lambda: job.endings() == ["slurm"], job.output)
    time.sleep(8)  # a requeue would start it again by now
    assert cluster.show(job.number)["JobState"] == "CANCELLED"
    assert not (job.run / "FAILED").exists() and len(job.endings()) == 1


def test_a_training_that_ignores_the_notice_is_ended_and_repeated(cluster: Cluster, tmp_path: Path) -> None:
    job = Job(cluster, tmp_path, "ignores 0")
    job.wait_for_word("ignores")
    cluster.run("scancel", "--batch", "--signal=USR1", job.number)
    shown = cluster.wait(job.number)
    assert (shown["JobState"], shown["Restarts"]) == ("COMPLETED", "1"), job.output()
    assert job.endings()[0] not in ("0", "85", "slurm", None)


def test_a_training_that_no_notice_reaches_is_ended_before_the_limit_and_repeated(
    cluster: Cluster, tmp_path: Path
) -> None:
    write_stand_in(tmp_path, "ignores 0")
    (tmp_path / "slurm" / "site.env").write_text(
        "[[ -n $SLURM_RESTART_COUNT ]] || export SLURM_JOB_END_TIME=$(($(date +%s) + 35))\n"
    )
    job = Job(cluster, tmp_path, "ignores 0", "--signal=USR2@1")
    shown = cluster.wait(job.number)
    assert (shown["JobState"], shown["Restarts"]) == ("COMPLETED", "1"), job.output()
    assert job.endings() == ["134", "0"], "SIGABRT"
    assert "Fatal Python error: Aborted" in (job.run / "logs" / "attempt_0" / "task_0.log").read_text()


def test_a_controller_that_is_away_for_a_while_is_asked_again(cluster: Cluster, tmp_path: Path) -> None:
    real = shutil.which("scontrol", path=cluster.environment["PATH"])
    write_stand_in(tmp_path, "1 0")
    (tmp_path / "scontrol").write_text(
        f'#!/bin/bash\n[[ $1 != requeue || -e asked ]] && exec {real} "$@"\ntouch asked\n'
        'echo "slurm_requeue error: Unable to contact slurm controller (connect failure)" >&2\nexit 1\n'
    )
    (tmp_path / "scontrol").chmod(0o755)
    job = Job(cluster, tmp_path, "1 0")
    shown = cluster.wait(job.number)
    assert (shown["JobState"], shown["Restarts"]) == ("COMPLETED", "1"), job.output()
    assert (tmp_path / "asked").exists()


def test_a_cluster_that_requeues_nothing_is_asked_once(cluster: Cluster, tmp_path: Path) -> None:
    why = "Requested operation is presently disabled for job 7"
    (tmp_path / "scontrol").write_text(f"#!/bin/bash\necho asked >>asked; echo {why} >&2\nexit 1\n")
    (tmp_path / "scontrol").chmod(0o755)
    job = Job(cluster, tmp_path, "1")
    assert cluster.wait(job.number)["JobState"] == "FAILED"
    assert f"not requeued ({why}); submit again to go on" in job.output()
    assert (tmp_path / "asked").read_text() == "asked\n" and job.endings() == ["1"]


def test_a_node_that_loses_its_power_costs_an_attempt_and_no_more(cluster: Cluster, tmp_path: Path) -> None:
    job = Job(cluster, tmp_path, "sleeps 0")
    job.wait_for_word("sleeps")
    node = cluster.show(job.number)["BatchHost"]
    cluster.power_off(node)
    try:
        shown = cluster.wait(job.number, "COMPLETED", "FAILED", timeout=120)  # on the other node
    finally:
        cluster.power_on(node)
    assert (shown["JobState"], shown["Restarts"]) == ("COMPLETED", "1"), job.output()
    assert job.endings() == [None, "0"]


def test_an_apptainer_image_runs_the_same_command_with_the_same_mounts(cluster: Cluster, tmp_path: Path) -> None:
    program = tmp_path / "apptainer"
    program.write_text('#!/bin/bash\necho "apptainer $*"\nwhile [[ $1 != *.sif ]]; do shift; done\nexec "${@:2}"\n')
    program.chmod(0o755)
    write_stand_in(tmp_path, "0")
    (tmp_path / "slurm" / "site.env").write_text("export CONTAINER_IMAGE=a.sif CONTAINER_MOUNTS=/data:/data:ro\n")
    (tmp_path / "scratch").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "scratch")  # which no container has
    job = Job(cluster, tmp_path, "0")
    assert cluster.wait(job.number)["JobState"] == "COMPLETED", job.output()
    log = (job.run / "logs" / "attempt_0" / "task_1.log").read_text()
    run = tmp_path / "scratch" / "my run"
    assert f"--bind {tmp_path}:{tmp_path},{run}:{run},/data:/data:ro --pwd {tmp_path} a.sif python -m" in log
    assert "task 1 says 0 train recipes/prorl_v2.py" in log and f"--directory {run}\n" in log


def test_what_the_site_exports_reaches_the_tasks_whatever_sbatch_was_told_to_export(
    cluster: Cluster, tmp_path: Path
) -> None:
    write_stand_in(tmp_path, "0")
    (tmp_path / "slurm" / "site.env").write_text("export OF_SITE=hub\n")
    job = Job(cluster, tmp_path, "0", "--export=PATH,RUN_DIR,SETTLE_SECONDS")
    assert cluster.wait(job.number)["JobState"] == "COMPLETED", job.output()
    assert "of the site: hub\n" in (job.run / "logs" / "attempt_0" / "task_1.log").read_text()


def test_a_run_that_others_are_at_work_in_is_not_called_failed(cluster: Cluster, tmp_path: Path) -> None:
    job = Job(cluster, tmp_path, "used")
    assert cluster.wait(job.number)["JobState"] == "FAILED"
    assert job.endings() == ["refused"] and not (job.run / "FAILED").exists()
    assert "another run is using it" in job.output()


def test_a_job_waits_for_one_that_was_cancelled_and_is_saving(cluster: Cluster, tmp_path: Path) -> None:
    first = Job(cluster, tmp_path, "saving")
    first.wait_for_word("saving")
    cluster.run("scancel", first.number)
    second = Job(cluster, tmp_path, "0", "--nodelist=node2")
    assert cluster.wait(second.number)["JobState"] == "COMPLETED", second.output()
    told = f"job {first.number} is ending in {first.run}; waiting for that"
    assert second.output().count(told) == 1
    assert second.endings() == ["slurm", "0"]


def test_the_tasks_of_an_array_are_jobs_of_their_own(cluster: Cluster, tmp_path: Path) -> None:
    write_stand_in(tmp_path, "85 0")
    # The last one has the array's number, by which Slurm means all of them.
    (tmp_path / "array.sh").write_text(
        "#!/bin/bash\n[[ $SLURM_ARRAY_TASK_ID == 1 || -n $SLURM_RESTART_COUNT ]] || sleep 1000\n"
        "export RUN_DIR=runs/$SLURM_ARRAY_TASK_ID\nsource slurm/prorl_v2.sh\n"
    )
    first = cluster.submit(
        "--array=0-1", "--nodes=1", "--ntasks-per-node=2", "--output=%a.out", "--requeue", "--open-mode=append",
        "array.sh", cwd=tmp_path, SETTLE_SECONDS="2",
        PATH=f"{Path(sys.executable).parent}:{cluster.environment['PATH']}",
    )  # fmt: skip
    try:
        wait_until((tmp_path / "runs" / "1" / "DONE").exists, (tmp_path / "1.out").read_text)
        other = cluster.run("squeue", "-h", "-o", "%T", "-j", f"{first}_0").stdout.split()
        assert other == ["RUNNING"], "the other one was not requeued"
    finally:
        cluster.run("scancel", first)


def test_the_script_that_nemo_run_renders_follows_the_same_rules(cluster: Cluster, tmp_path: Path) -> None:
    _, _, text = (Path(__file__).parent / "golden" / "prorl_v2.txt").read_text().partition("\n")  # the file's name
    (tmp_path / "job.sh").write_text(text.replace("REPOSITORY", "FOLDER").replace("FOLDER", str(tmp_path)))
    write_stand_in(tmp_path, "")
    code = tmp_path / "home" / "experiments" / "prorl_v2" / "prorl_v2_ID" / "train" / "code"
    write_stand_in(code, "heeds 1 0")
    job = cluster.submit(
        "--requeue", "--partition=main", "--nodes=1", "--ntasks-per-node=2", "job.sh", cwd=tmp_path,
        SETTLE_SECONDS="2", PATH=f"{Path(sys.executable).parent}:{cluster.environment['PATH']}",
    )  # fmt: skip
    output = code.parent / f"sbatch_prorl_v2.train_{job}.out"
    log = code.parent / f"log-prorl_v2.train_{job}_0.out"
    wait_until(lambda: log.exists() and log.read_text().count("says heeds") == 2, lambda: cluster.show(job)["JobState"])
    cluster.run("scancel", "--signal=USR1", job)  # what --signal=USR1 sends, to the steps alone
    shown = cluster.wait(job)
    assert (shown["JobState"], shown["Restarts"]) == ("COMPLETED", "2"), output.read_text()
    run = tmp_path / "runs" / "prorl_v2-h100x32"
    assert [(run / "logs" / f"attempt_{n}" / "ending").read_text().strip() for n in range(3)] == ["stuck", "1", "0"]
    assert (run / "DONE").exists()
