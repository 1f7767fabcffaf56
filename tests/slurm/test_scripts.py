"""The batch scripts ask for what the published scales are, and hold no number of a recipe."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from megatron_rl.commands.choose import build_run
from megatron_rl.config.checks import UserError
from megatron_rl.config.run import Run
from megatron_rl.estimate.step import checkpoint_bytes
from megatron_rl.rollout.engine import AHEAD
from megatron_rl.runtime.contents import CAMPAIGN, EVALUATION, RUN, Kind, check_contents
from megatron_rl.runtime.ranks import GRACE_SECONDS
from megatron_rl.runtime.rundir import in_use
from recipes.scales import SCALES
from tests.runtime.test_contents import REFUSED, TAKEN, filled

ROOT = Path(__file__).parents[2]
SCRIPTS = {"prorl_v1": "h100x32", "prorl_v2": "h100x32", "brorl": "h100x64"}


def script(name: str) -> str:
    return (ROOT / "slurm" / f"{name}.sh").read_text()


def requests(name: str) -> dict[str, str]:
    """The #SBATCH lines of a script."""
    return {key: value for key, _, value in re.findall(r"^#SBATCH --([\w-]+)(=(\S+))?$", script(name), re.MULTILINE)}


@pytest.mark.parametrize(("name", "scale_name"), SCRIPTS.items())
def test_a_script_asks_for_the_hardware_of_its_published_scale(name: str, scale_name: str) -> None:
    scale, asked = SCALES[scale_name], requests(name)
    assert f'"${{SCALE:={scale_name}}}"' in script(name)
    assert asked["nodes"] == str(scale.num_nodes)
    assert asked["ntasks-per-node"] == asked["gpus-per-node"] == str(scale.devices_per_node)
    assert scale.time_limit_hours is not None and asked["time"] == f"{scale.time_limit_hours:02.0f}:00:00"
    assert asked["job-name"] == name
    assert {"exclusive", "requeue"} <= asked.keys() and asked["open-mode"] == "append"


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_notice_leaves_the_time_a_rank_may_take_to_stop(name: str) -> None:
    lead = re.fullmatch(r"B:USR1@(\d+)", requests(name)["signal"])
    assert lead is not None and int(lead[1]) == GRACE_SECONDS[signal.SIGUSR1]
    assert Run.preemption_lead_seconds == int(lead[1]), "the clock leaves as long as the notice does"
    grace = re.search(r"GRACE_SECONDS:-(\d+)", (ROOT / "slurm" / "job.sh").read_text())
    begun = max(one.max_requests_in_flight + AHEAD + one.sequences_per_wave for one in SCALES.values())
    seconds = begun / (72.4 / 64)  # BroRL's Table 2, 64 engines
    run = build_run(name, SCRIPTS[name], [], None, needs_files=False)
    save = checkpoint_bytes(run) / 200e6  # to a shared disk that takes 200 MB/s of all nodes together
    assert grace is not None and seconds + save < int(grace[1]) < int(lead[1])


@pytest.mark.parametrize(("left", "expected"), [(880, 820), (3600, 840), (5, 1)])
def test_what_heeds_no_notice_is_ended_a_minute_before_the_limit(left: int, expected: int) -> None:
    program = f"SLURM_JOB_END_TIME=$(($(date +%s) + {left})); source {ROOT}/slurm/job.sh; grace_left"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert 0 <= expected - int(done.stdout) <= 2, "the date goes on meanwhile"


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_trains_by_its_recipe_and_sets_nothing(name: str) -> None:
    command = f'run_job "$RUN_DIR" python -m megatron_rl train recipes/{name}.py --scale "$SCALE" '
    assert script(name).splitlines()[-1] == command + '--directory "$RUN_DIR" "$@"'
    assert "--set" not in "".join(line for line in script(name).splitlines() if not line.startswith("#"))


def test_the_scripts_differ_in_name_and_size_only() -> None:
    def same(name: str) -> list[str]:
        text = script(name).replace(name, "NAME").replace(SCRIPTS[name], "SCALE")
        return [line for line in text.splitlines() if not line.startswith(("# ", "#SBATCH --nodes"))]

    assert same("prorl_v1") == same("prorl_v2") == same("brorl")


@pytest.mark.parametrize("path", sorted((ROOT / "slurm").glob("*.sh")) + sorted((ROOT / "containers").glob("*.sh")))
def test_a_script_is_clean_shell(path: Path) -> None:
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed; apt-get install shellcheck")
    found = subprocess.run(
        ["shellcheck", "--shell=bash", "--exclude=SC1091", path], capture_output=True, text=True, cwd=ROOT
    )
    assert found.stdout == ""


def begin(run: Path, *programs: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The start of an attempt, without Slurm but for what lies in `programs`, and without a training command."""
    program = f'source {ROOT}/slurm/job.sh; begin_attempt "$1"; trap - EXIT; failures_in_a_row $attempt_number'
    path = os.pathsep.join([*map(str, programs), os.environ["PATH"]])
    environment = {"PATH": path, "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node1"} | variables
    return subprocess.run(["bash", "-c", program, "-", run], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("endings", "num_failures"),
    [
        ([], 1),  # the attempt that is beginning has no ending either
        (["1"], 2),
        (["1", "slurm", "137", "slurm"], 3),  # what Slurm ended says nothing
        (["1", "1", "85", "1"], 2),  # one that stopped in good order ends the row
        (["1", "1", "gave_up"], 1),  # so does one the run was given up at, once FAILED is removed
        (["1", "1", "refused"], 1),  # and one that asked for what cannot be
        (["1", "stuck"], 3),  # one that stopped in good order without getting further counts
        (["1", None], 3),  # one that vanished counts
    ],
)
def test_failures_are_counted_in_a_row(endings: list[str | None], num_failures: int, tmp_path: Path) -> None:
    write_attempts(tmp_path, endings)
    assert begin(tmp_path).stdout.splitlines()[-1] == str(num_failures)


def test_three_attempts_that_vanished_end_the_run(tmp_path: Path) -> None:
    write_attempts(tmp_path, [None, None, None])
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text('{"step": 11, "actor/loss": 1}\n{"step": 12, "actor/loss": 1}\n')
    assert begin(tmp_path).returncode == 1
    reason = "3 attempts in a row from the start failed or vanished after step 12"
    assert (tmp_path / "FAILED").read_text() == reason + "\n"
    refused = begin(tmp_path)
    assert refused.returncode == 1 and f"{reason}; remove that file to go on" in refused.stdout
    (tmp_path / "FAILED").unlink()
    assert begin(tmp_path).returncode == 0


def test_a_new_checkpoint_begins_a_new_count(tmp_path: Path) -> None:
    write_attempts(tmp_path, ["1", "1", "1"])
    (tmp_path / "checkpoints" / "step_000050").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step_000050" / "manifest.json").touch()
    done = begin(tmp_path)
    assert "attempt 3 from step_000050" in done.stdout and done.stdout.splitlines()[-1] == "1"


def test_a_script_outside_a_job_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "slurm/prorl_v2.sh"], cwd=ROOT, env={"PATH": os.environ["PATH"], "RUN_DIR": str(tmp_path / "run")},
        capture_output=True, text=True,
    )  # fmt: skip
    line = "error: slurm/prorl_v2.sh: is no job of Slurm's here, for SLURM_JOB_ID is not set; submit with sbatch\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert not (tmp_path / "run").exists()


def test_a_job_refuses_the_folders_that_the_training_would_refuse_and_leaves_them_as_they_are(tmp_path: Path) -> None:
    names = [names for kind, names in [*TAKEN, *REFUSED] if kind is not CAMPAIGN]
    folders = [filled(tmp_path / f"folder_{number}", *inside) for number, inside in enumerate(names)]
    program = f'source {ROOT}/slurm/job.sh; for one; do strangers "$one" | head -n 1 | tr -d "\\n"; echo; done'
    done = subprocess.run(["bash", "-c", program, "-", *folders], capture_output=True, text=True, check=True)
    for folder, stranger in zip(folders, done.stdout.split("\n"), strict=False):
        refusals = [refusal_of(folder, kind) for kind in (RUN, EVALUATION)]  # the script serves both
        assert bool(stranger) == all(refusals) and stranger in refusals[0], (sorted(folder.rglob("*")), stranger)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    refused = begin(folders[-1])
    assert refused.returncode == 2 and "and not a run; a run begins in a new or empty folder" in refused.stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def refusal_of(folder: Path, kind: Kind) -> str:
    """What the training, or an evaluation, says of a folder; empty where it takes it."""
    try:
        check_contents(folder, kind, "RUN_DIR")
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("place", "why"), [("file", "Not a directory"), ("file/run", "Not a directory"), ("full/run", "No such file")]
)
def test_a_folder_that_cannot_be_is_told_in_one_line(place: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").symlink_to("/proc/none")
    done = begin(tmp_path / place)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (1, "", 1)
    assert why in done.stdout and "mend that and submit again, or choose another with RUN_DIR" in done.stdout


@pytest.mark.parametrize(("image", "code"), [("", 0), ("a.sqsh", 2)])
def test_a_folder_that_no_container_can_mount_is_refused(image: str, code: int, tmp_path: Path) -> None:
    done = begin(tmp_path / "seed:2,lr:1", CONTAINER_IMAGE=image)
    assert done.returncode == code and (tmp_path / "seed:2,lr:1").exists() == (code == 0)
    assert ("a container mounts no path with a comma or a colon" in done.stdout) == bool(image)


def test_the_script_knows_a_run_in_use_by_the_words_of_the_training(tmp_path: Path) -> None:
    words = "another run is using it"
    assert words in in_use(tmp_path) and f'*"{words}"*' in (ROOT / "slurm" / "job.sh").read_text()


def test_a_copied_folder_knows_no_job_of_the_one_it_was_copied_from(tmp_path: Path) -> None:
    run, bin_folder = tmp_path / "run", tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "squeue").write_text("#!/bin/bash\necho 6 RUNNING; echo 66 COMPLETING\n")
    (bin_folder / "squeue").chmod(0o755)
    for job in ("6", "7"):  # the second is the job that begins here
        run.mkdir(exist_ok=True)
        (run / "job").write_text(f"{job} {run.stat().st_ino}\n")
        assert (begin(run, bin_folder).returncode == 0) == (job == "7")
    (run / "job").write_text(f"6 {run.stat().st_ino}\n")
    shutil.copytree(run, tmp_path / "copy")
    assert begin(tmp_path / "copy", bin_folder).returncode == 0
    run.rename(tmp_path / "moved")
    refused = begin(tmp_path / "moved", bin_folder)
    assert refused.returncode == 1 and "job 6 is at work in" in refused.stdout


def test_a_container_has_no_folder_of_the_node_that_is_not_mounted() -> None:
    program = f"""
        for mounts in "" /data:/data:ro,/local:/scratch /loc:/loc /local /x:/y,/nvme/job_7:/local/job_7:rw; do
            (TMPDIR=/local/job_7/ CONTAINER_MOUNTS=$mounts; source {ROOT}/slurm/job.sh; echo "$TMPDIR $VLLM_CACHE_ROOT")
        done"""
    for image, kept in (("", 5), ("a.sqsh", 2)):
        done = subprocess.run(
            ["bash", "-c", program], env={"PATH": os.environ["PATH"], "CONTAINER_IMAGE": image},
            capture_output=True, text=True,
        )  # fmt: skip
        own = f"megatron-rl-{os.getuid()}/vllm"
        expected = [f"/tmp /tmp/{own}"] * (5 - kept) + [f"/local/job_7/ /local/job_7//{own}"] * kept
        assert done.stdout.splitlines() == expected, done.stderr


def test_the_reason_of_a_failure_is_the_rank_s_that_failed_not_of_those_that_lost_it(tmp_path: Path) -> None:
    lost = "error: RuntimeError: [../pair.cc:553] Connection closed by peer [10.0.0.1]:2041 (traceback: x)"
    texts = dict.fromkeys(range(12), f"12:00:00 INFO step 1/2\n{lost}\n")
    texts[3] = "error: OutOfMemoryError: CUDA out of memory\n"
    texts[4] = "12:00:00 rank 4 ERROR rank 4 made no progress for 1800 s\n"
    for number, text in texts.items():
        (tmp_path / f"task_{number}.log").write_text(text)
    program = f"source {ROOT}/slurm/job.sh; attempt={tmp_path}; last_error; show_end_of_log"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    reason, *log = done.stdout.splitlines()
    assert reason == "error: OutOfMemoryError: CUDA out of memory"
    assert log == [*texts[0].splitlines(), *(f"task_{number}.log:{texts[number]}".strip() for number in (3, 4))]
    for number in (3, 4):
        (tmp_path / f"task_{number}.log").unlink()
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[0] == lost, "for want of a better one"


def test_a_rank_that_aborts_leaves_no_core() -> None:
    done = subprocess.run(
        ["bash", "-c", f"ulimit -Sc unlimited; source {ROOT}/slurm/job.sh; ulimit -Sc"], capture_output=True, text=True
    )
    assert done.stdout == "0\n"


def write_attempts(run: Path, endings: list[str | None]) -> None:
    """The folders that earlier attempts from the start left."""
    for number, ending in enumerate(endings):
        folder = run / "logs" / f"attempt_{number}"
        folder.mkdir(parents=True)
        (folder / "checkpoint").write_text("the start\n")
        if ending is not None:
            (folder / "ending").write_text(f"{ending}\n")
