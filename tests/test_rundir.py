"""A run directory is one run's, and its shared memory goes with it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_rl import rundir

ROOT = Path(__file__).parents[1]
HOLD = """
import pathlib, sys
from megatron_rl import rundir
with rundir.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


def test_a_directory_in_use_is_refused_until_its_holder_is_gone(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(RuntimeError, match="another run is using it"), rundir.locked(directory):
            pass
    finally:
        holder.kill()  # as a crash would: the lock goes with the process
        holder.communicate()
    with rundir.locked(directory):
        pass
    with rundir.locked(directory):
        pass


def test_only_the_shared_memory_of_this_directory_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = tmp_path / "shm"
    memory.mkdir()
    monkeypatch.setattr(rundir, "SHARED_MEMORY", memory)
    mine, other = (rundir.shared_memory_name(tmp_path / name) for name in ("run", "run2"))
    for name in (f"sem.{mine}_0", f"vllm_1-2_{mine}", f"vllm_1-2_{other}", "somebody-else"):
        (memory / name).touch()
    assert sorted(rundir.remove_shared_memory(tmp_path / "run")) == [f"sem.{mine}_0", f"vllm_1-2_{mine}"]
    assert sorted(path.name for path in memory.iterdir()) == ["somebody-else", f"vllm_1-2_{other}"]
    assert rundir.remove_shared_memory(tmp_path / "run") == []


LEAVE = """
import os, pathlib, signal, sys
from multiprocessing.shared_memory import SharedMemory
from megatron_rl import rundir
rundir.name_shared_memory(pathlib.Path(sys.argv[1]))
memory = SharedMemory(create=True, size=16)
os.killpg(0, signal.SIGKILL)  # with Python's own process that would clear up
"""


def test_shared_memory_that_a_kill_left_behind_is_found_again(tmp_path: Path) -> None:
    left = subprocess.run([sys.executable, "-c", LEAVE, str(tmp_path)], cwd=ROOT, start_new_session=True)
    assert left.returncode == -signal.SIGKILL
    assert len(rundir.remove_shared_memory(tmp_path)) == 1
    assert rundir.remove_shared_memory(tmp_path) == []


def test_a_directory_has_one_name_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert rundir.shared_memory_name(Path("run")) == rundir.shared_memory_name(tmp_path / "run")
