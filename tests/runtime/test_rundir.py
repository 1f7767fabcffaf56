"""A run directory is one run's, a manifest is whole or none, and shared memory goes with its run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.config.checks import UserError
from megatron_rl.runtime import rundir
from tests.models import make_run

ROOT = Path(__file__).parents[2]
HOLD = """
import pathlib, sys
from megatron_rl.runtime import rundir
with rundir.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


def test_a_directory_in_use_is_refused_until_its_holder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rundir, "HANDOVER_SECONDS", 0.0)
    directory = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        who = rf"another run is using it \(process {holder.pid} on {socket.gethostname()}\); wait for its end"
        with pytest.raises(UserError, match=who), rundir.locked(directory):
            pass
    finally:
        holder.kill()  # as a crash would: the lock goes with the process
        holder.communicate()
    with rundir.locked(directory):
        pass
    with rundir.locked(directory):
        pass


def test_a_holder_that_is_ending_is_waited_for(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    threading.Timer(0.2, holder.kill).start()
    rundir.check_free(directory)
    with rundir.locked(directory):
        holder.communicate()
        assert holder.returncode == -signal.SIGKILL


def test_a_holder_that_puts_nothing_there_leaves_nothing(tmp_path: Path) -> None:
    own, shared = tmp_path / "own", tmp_path / "shared"
    own.mkdir()
    shared.mkdir()
    (shared / "notes").touch()
    for directory in (tmp_path / "new" / "run", own, shared):
        with pytest.raises(RuntimeError), rundir.locked(directory):
            assert (directory / rundir.LOCK).exists()
            raise RuntimeError
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["own", "shared", "shared/notes"], "folders of others stay"


def test_a_directory_with_a_run_keeps_its_lock(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with rundir.locked(directory):
        (directory / "run.json").touch()
    inode = (directory / rundir.LOCK).stat().st_ino
    with rundir.locked(directory):
        assert (directory / rundir.LOCK).stat().st_ino == inode
    assert (directory / rundir.LOCK).exists()


def test_who_waits_for_a_holder_that_leaves_nothing_holds_the_new_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, take = tmp_path / "run", rundir.take_lock
    first = rundir.locked(directory)
    first.__enter__()

    def take_late(file: Any, kind: int, seconds: float) -> None:
        monkeypatch.setattr(rundir, "take_lock", take)
        first.__exit__(None, None, None)  # removes the file that the second has opened by now
        assert not directory.exists()
        take(file, kind, seconds)

    monkeypatch.setattr(rundir, "take_lock", take_late)
    monkeypatch.setattr(rundir, "HANDOVER_SECONDS", 0.0)
    with rundir.locked(directory), pytest.raises(UserError, match="another run is using it"):
        rundir.check_free(directory)
    assert not directory.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a read-only file system needs root")
def test_a_directory_that_can_not_be_written_to_is_refused(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("this kernel lets nobody mount a file system here")
    try:
        with (
            pytest.raises(UserError, match=r"cannot be written to or locked \(Read-only file system\); mend that"),
            rundir.locked(tmp_path / "run"),
        ):
            pass
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_manifest_with_any_byte_changed_is_not_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    whole = rundir.sealed({"format": rundir.CHECKPOINT_FORMAT, "state": {"step": 50, "kl_history": (0.1, 1 / 3)}})
    text = json.dumps(whole, indent=1).encode()
    path.write_bytes(text)
    assert rundir.manifest_of(tmp_path) == json.loads(text)
    for place in range(len(text)):
        path.write_bytes(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
        found = rundir.manifest_of(tmp_path)
        if found is not None:  # spaces between values mean nothing, and another format is refused by its number
            assert found == json.loads(text) or found["format"] != rundir.CHECKPOINT_FORMAT
        path.write_bytes(text[:place])
        assert rundir.manifest_of(tmp_path) is None


def test_the_checkpoint_of_an_older_version_is_refused_by_its_format(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 1, "fingerprint": "0" * 16}))
    manifest = rundir.manifest_of(tmp_path)
    assert manifest is not None
    with pytest.raises(ValueError, match="has checkpoint format 1, this version reads 3; go on with the version"):
        rundir.check_manifest(tmp_path, manifest, make_run(ROOT / "demo" / "model"))


@pytest.mark.parametrize("key", rundir.KEYS)
def test_a_checkpoint_without_what_this_version_reads_is_refused_in_one_line(key: str, tmp_path: Path) -> None:
    older = rundir.sealed({"format": rundir.CHECKPOINT_FORMAT} | {name: {} for name in rundir.KEYS if name != key})
    with pytest.raises(ValueError, match=f"has no {key} in its manifest.json, which this version reads; go on with"):
        rundir.check_manifest(tmp_path, older, make_run(ROOT / "demo" / "model"))


@pytest.mark.parametrize(
    ("steps", "newest", "kept", "every", "expected"),
    [
        ([10], 10, 1, None, []),
        ([10, 20, 30], 30, 2, None, [10]),
        ([10, 20, 30], 30, 5, None, []),
        ([10, 20, 30, 40], 40, 1, 20, [10, 30]),
        ([10, 20, 30, 40], 20, 2, None, [30, 40]),  # the last two were damaged: no good one goes for them
        ([10, 20, 30, 40], 30, 1, 20, [10, 40]),  # not even by its step
    ],
)
def test_the_newest_and_every_so_manyth_checkpoint_stay(
    steps: list[int], newest: int, kept: int, every: int | None, expected: list[int]
) -> None:
    folders = {step: Path(f"step_{step:06d}") for step in steps}
    found = rundir.superseded(list(folders.values()), folders[newest], kept, every)
    assert found == [folders[step] for step in expected]


def test_a_removed_checkpoint_is_gone_whole(tmp_path: Path) -> None:
    for step in (1, 2):
        (tmp_path / "checkpoints" / f"step_{step:06d}").mkdir(parents=True)
        (tmp_path / "checkpoints" / f"step_{step:06d}" / "rank_00000.pt").touch()
    rundir.remove(rundir.checkpoints(tmp_path)[0])
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_000002"]


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


def plant(directory: Path) -> list[Path]:
    """What vLLM's collective of two ranks leaves on a CPU with AVX-512 even after a good end."""
    segments = [
        rundir.SHARED_MEMORY / f"-tp:0-[0-1]-cpushm_{rundir.shared_memory_name(directory)}_{number}"
        for number in (0, 1)
    ]
    for segment in segments:
        segment.touch()
    return segments


@pytest.mark.parametrize("ending", [None, RuntimeError, KeyboardInterrupt, SystemExit])
def test_every_end_of_a_run_removes_its_shared_memory_and_no_other(
    tmp_path: Path, ending: type[BaseException] | None
) -> None:
    mine, other = plant(tmp_path / "run"), plant(tmp_path / "run2")
    try:
        with (
            contextlib.suppress(*([ending] if ending else [])),
            rundir.clearing_shared_memory(tmp_path / "run", is_first_of_machine=False),
            rundir.clearing_shared_memory(tmp_path / "run", is_first_of_machine=True),
        ):
            assert all(segment.exists() for segment in mine)
            if ending is not None:
                raise ending
        assert not any(segment.exists() for segment in mine) and all(segment.exists() for segment in other)
    finally:
        for segment in (*mine, *other):
            segment.unlink(missing_ok=True)


LEAVE = """
import os, pathlib, signal, sys
from multiprocessing.shared_memory import SharedMemory
from megatron_rl.runtime import rundir
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
