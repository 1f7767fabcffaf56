import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_rl.config.checks import UserError
from megatron_rl.runtime.preempt import deadline
from megatron_rl.runtime.ranks import process_environment, world_from_environment
from recipes.scales import CPU

STEP = {
    "SLURM_JOB_ID": "12345",
    "SLURM_STEP_ID": "2",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_JOB_NODELIST": "node[01-08]",
}


def test_a_step_of_srun_is_a_world() -> None:
    world = world_from_environment(STEP)
    assert world is not None
    assert world.variables == {
        "RANK": "9",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "16",
        "MASTER_ADDR": "node07",
        "MASTER_PORT": str(20000 + (12345 + 202) % 10000),
    }
    given = world_from_environment(STEP | {"MASTER_ADDR": "here", "MASTER_PORT": "1234"})
    assert given is not None and (given.address, given.port) == ("here", 1234)


def test_a_requeued_job_does_not_meet_at_the_port_that_may_have_been_taken() -> None:
    worlds = [world_from_environment(STEP | {"SLURM_RESTART_COUNT": str(count)}) for count in range(4)]
    ports = [world.port for world in worlds if world is not None]
    assert len(set(ports)) == 4 and all(20000 <= port < 30000 for port in ports)


def test_a_batch_script_and_a_shell_on_a_node_are_no_world() -> None:
    batch = {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "16"}
    assert world_from_environment(batch) is None
    assert world_from_environment(STEP | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert world_from_environment({}) is None


def test_torchrun_inside_a_step_wins() -> None:
    torchrun = {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "a", "MASTER_PORT": "5"}
    world = world_from_environment(STEP | torchrun)
    assert world is not None and world.variables == torchrun
    with pytest.raises(ValueError, match="not LOCAL_RANK, MASTER_ADDR, MASTER_PORT"):
        world_from_environment({"RANK": "0", "WORLD_SIZE": "2"})


TORCHRUN = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "23456"}


@pytest.mark.parametrize(
    ("environment", "pattern"),
    [
        (
            TORCHRUN | {"MASTER_PORT": "tcp://10.0.0.1:23456"},
            "MASTER_PORT='tcp://10.0.0.1:23456': must be a whole number",
        ),
        (TORCHRUN | {"MASTER_PORT": "70000"}, "MASTER_PORT='70000': must be a whole number from 1 to 65535"),
        (TORCHRUN | {"RANK": "zero"}, "RANK='zero': must be a whole number from 0 to 1"),
        (TORCHRUN | {"RANK": "2"}, "RANK='2': must be a whole number from 0 to 1"),
        (TORCHRUN | {"RANK": "-1"}, "RANK='-1'"),
        (TORCHRUN | {"WORLD_SIZE": "two"}, "WORLD_SIZE='two': must be a whole number at least 1"),
        (TORCHRUN | {"WORLD_SIZE": "0"}, "WORLD_SIZE='0'"),
        (TORCHRUN | {"LOCAL_RANK": "1.0"}, "LOCAL_RANK='1.0'"),
        (TORCHRUN | {"LOCAL_RANK": ""}, "not LOCAL_RANK"),
        (STEP | {"SLURM_PROCID": "first"}, "SLURM_PROCID='first'"),
        (STEP | {"SLURM_STEP_NUM_TASKS": "4(x2)"}, "SLURM_STEP_NUM_TASKS='4"),
        (STEP | {"SLURM_JOB_ID": "job"}, "SLURM_JOB_ID='job'"),
        (STEP | {"SLURM_LOCALID": "x"}, "SLURM_LOCALID='x'"),
        (STEP | {"SLURM_RESTART_COUNT": "x"}, "SLURM_RESTART_COUNT='x'"),
        (STEP | {"MASTER_PORT": "tcp"}, "MASTER_PORT='tcp'"),
        ({"RANK": "0"}, "has RANK but not WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "has WORLD_SIZE but not RANK"),
    ],
)
def test_a_word_or_a_number_that_cannot_be_is_named(environment: dict[str, str], pattern: str) -> None:
    with pytest.raises(ValueError, match=re.escape(pattern).replace("\\ ", " ")) as caught:
        world_from_environment(environment)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MASTER_ADDR", "localhost"),
        ("MASTER_ADDR", "127.0.1.1"),
        ("NCCL_SOCKET_IFNAME", "lo"),
        ("GLOO_SOCKET_IFNAME", "lo"),
    ],
)
def test_nodes_do_not_meet_at_what_each_has_for_itself(name: str, value: str) -> None:
    assert world_from_environment(STEP | {"SLURM_STEP_NUM_NODES": "1", name: value}) is not None
    with pytest.raises(
        UserError, match=f"^environment variable {name}='{value}': leads to no other machine, and .* 2 nodes; "
    ):
        world_from_environment(STEP | {"SLURM_STEP_NUM_NODES": "2", name: value})


def test_the_end_that_slurm_announces_is_a_number() -> None:
    with pytest.raises(ValueError, match="SLURM_JOB_END_TIME='soon'"):
        deadline(None, 60, {"SLURM_JOB_END_TIME": "soon"})


def test_threads_are_the_scale_s() -> None:
    assert process_environment(CPU)["OMP_NUM_THREADS"] == "1"


class Launched:
    """launch_ranks of a Python text, in a process of its own, by starting it or by forking one that runs it."""

    def __init__(
        self, folder: Path, num_ranks: int, rank_program: str, grace_seconds: float = 1.0, forks: bool = False
    ) -> None:
        (folder / "rank.py").write_text(
            "import os, pathlib, signal, subprocess, sys, time\n"
            f"folder, rank = pathlib.Path({str(folder)!r}), int(os.environ['RANK'])\n" + textwrap.dedent(rank_program)
        )
        forked = ", 'json', work" if forks else ""
        (folder / "driver.py").write_text(
            "import runpy, sys\nfrom megatron_rl.runtime import ranks\n"
            f"ranks.COMMAND = (sys.executable, {str(folder / 'rank.py')!r})\n"
            f"ranks.GRACE_SECONDS = dict.fromkeys(ranks.GRACE_SECONDS, {grace_seconds})\n"
            "ranks.GRACE_AFTER_FAILURE_SECONDS = 0.5\n"
            f"sys.argv = [{str(folder / 'rank.py')!r}, 'train', 'x']\n"
            "def work(world):\n"
            "    try:\n        runpy.run_path(sys.argv[0])\n"
            "    except SystemExit as ending:\n        return ending.code\n"
            "    return 0\n"
            f"sys.exit(ranks.launch_ranks({num_ranks}, ['train', 'x'], {{'COLOUR': 'red'}}{forked}))\n"
        )
        self.folder = folder
        root = Path(__file__).resolve().parents[2]
        self.process = subprocess.Popen(
            [sys.executable, str(folder / "driver.py")],
            env={**os.environ, "PYTHONPATH": str(root)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, num_files: int) -> list[int]:
        """The process numbers that the ranks wrote into files *.pid, once there are so many."""
        for _ in range(400):
            texts = [path.read_text() for path in sorted(self.folder.glob("*.pid"))]
            if len(texts) == num_files and all(texts):
                return [int(text) for text in texts]
            time.sleep(0.025)
        raise AssertionError(f"{num_files} processes did not start")

    def end(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def all_gone(pids: list[int]) -> bool:
    for _ in range(200):
        if not any(is_alive(pid) for pid in pids):
            return True
        time.sleep(0.025)
    return False


SLEEP = "(folder / f'{rank}.pid').write_text(str(os.getpid()))\ntime.sleep(60)\n"


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[list[Launched]]:
    started: list[Launched] = []
    yield started
    for one in started:
        one.process.kill()
        one.process.communicate()


@pytest.mark.parametrize("forks", [False, True])
def test_ranks_know_their_world_and_end_with_zero(tmp_path: Path, launched: list[Launched], forks: bool) -> None:
    program = "names = 'RANK LOCAL_RANK WORLD_SIZE MASTER_ADDR COLOUR'.split()\n"
    program += "(folder / f'{rank}.txt').write_text(' '.join([*(os.environ[n] for n in names), *sys.argv[1:]]))\n"
    launched.append(Launched(tmp_path, 3, program, forks=forks))
    assert launched[0].end() == (0, "")
    assert (tmp_path / "2.txt").read_text() == "2 2 3 127.0.0.1 red train x"


@pytest.mark.parametrize("forks", [False, True])
def test_the_first_failing_rank_ends_the_others_and_gives_the_code(
    tmp_path: Path, launched: list[Launched], forks: bool
) -> None:
    program = "(folder / f'{rank}.pid').write_text(str(os.getpid()))\n"
    program += "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nif rank == 1: sys.exit(7)\ntime.sleep(60)\n"
    launched.append(Launched(tmp_path, 3, program, forks=forks))
    assert launched[0].end() == (7, "")
    assert all_gone(launched[0].wait_for(3))


def test_a_rank_that_was_killed_is_named(tmp_path: Path, launched: list[Launched]) -> None:
    launched.append(Launched(tmp_path, 2, "if rank == 1: os.kill(os.getpid(), signal.SIGKILL)\n"))
    code, errors = launched[0].end()
    assert code == 137
    assert errors.endswith("rank 1 was ended by SIGKILL (out of memory, perhaps)\n")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("forks", [False, True])
def test_ctrl_c_lets_all_ranks_save_and_says_so(tmp_path: Path, launched: list[Launched], forks: bool) -> None:
    program = """
    from megatron_rl.runtime.preempt import Preemption, listen
    listen()
    child = subprocess.Popen(['sleep', '60'])
    (folder / f'{rank}c.pid').write_text(str(child.pid))
    (folder / f'{rank}.pid').write_text(str(os.getpid()))
    while (reason := Preemption(None, 0.0).reason) is None:
        time.sleep(0.01)
    (folder / f'{rank}.saved').write_text(reason)
    sys.exit(85)
    """
    launched.append(Launched(tmp_path, 2, program, grace_seconds=20.0, forks=forks))
    pids = launched[0].wait_for(4)
    launched[0].process.send_signal(signal.SIGINT)
    code, errors = launched[0].end()
    assert (code, errors.count("\n")) == (130, 1)
    assert errors.endswith("saves and ends; press it again to leave at once\n")
    assert [path.read_text() for path in tmp_path.glob("*.saved")] == ["Ctrl-C"] * 2
    assert all_gone(pids)


@pytest.mark.parametrize("forks", [False, True])
def test_ctrl_c_ends_ranks_that_are_still_starting_without_a_word(
    tmp_path: Path, launched: list[Launched], forks: bool
) -> None:
    launched.append(Launched(tmp_path, 2, SLEEP, grace_seconds=20.0, forks=forks))
    pids = launched[0].wait_for(2)
    launched[0].process.send_signal(signal.SIGINT)
    code, errors = launched[0].end()
    assert (code, errors.count("\n")) == (130, 1)
    assert all_gone(pids)


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path, launched: list[Launched]) -> None:
    ignores = "signal.signal(signal.SIGUSR2, signal.SIG_IGN)\n"
    launched.append(Launched(tmp_path, 2, ignores + SLEEP, grace_seconds=60.0))
    pids = launched[0].wait_for(2)
    launched[0].process.send_signal(signal.SIGINT)
    time.sleep(0.7)
    assert launched[0].process.poll() is None
    launched[0].process.send_signal(signal.SIGINT)
    code, errors = launched[0].end()
    assert (code, errors.count("\n")) == (130, 1)
    assert all_gone(pids)


def test_a_rank_that_ignores_the_signal_is_killed_after_its_grace(tmp_path: Path, launched: list[Launched]) -> None:
    launched.append(Launched(tmp_path, 2, "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP))
    pids = launched[0].wait_for(2)
    launched[0].process.send_signal(signal.SIGTERM)
    assert launched[0].end()[0] == 137
    assert all_gone(pids)


def test_a_rank_may_finish_its_work_after_a_signal(tmp_path: Path, launched: list[Launched]) -> None:
    program = """
    def finish(number, frame):
        (folder / f'{rank}.saved').touch()
        sys.exit(85)
    signal.signal(signal.SIGUSR1, finish)
    """
    launched.append(Launched(tmp_path, 2, textwrap.dedent(program) + SLEEP))
    launched[0].wait_for(2)
    launched[0].process.send_signal(signal.SIGUSR1)
    assert launched[0].end() == (85, "")
    assert len(list(tmp_path.glob("*.saved"))) == 2


@pytest.mark.parametrize("forks", [False, True])
def test_ranks_die_with_their_parent(tmp_path: Path, launched: list[Launched], forks: bool) -> None:
    launched.append(Launched(tmp_path, 2, SLEEP, forks=forks))
    pids = launched[0].wait_for(2)
    launched[0].process.send_signal(signal.SIGKILL)
    launched[0].end()
    assert all_gone(pids)


def test_a_forked_rank_that_fails_shows_its_traceback_and_goes_no_further(
    tmp_path: Path, launched: list[Launched]
) -> None:
    launched.append(Launched(tmp_path, 2, "if rank == 1: raise ValueError('odd')\n", forks=True))
    code, errors = launched[0].end()
    assert (code, errors.count("ValueError: odd\n"), errors.count("Traceback")) == (1, 1, 1)


def test_a_process_with_a_second_thread_is_not_forked() -> None:
    program = "import threading\nfrom megatron_rl.runtime.ranks import import_ahead\nprint(import_ahead('json', {}))\n"
    program += "threading.Thread(target=threading.Event().wait, daemon=True).start()\nprint(import_ahead('json', {}))\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert done.stdout == "True\nFalse\n", done.stderr
