"""What is renamed into place is whole on the disk before, and its name is on the disk after."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_rl.config.checks import UserError
from megatron_rl.runtime import files
from megatron_rl.runtime.files import LEFT_AFTER_SECONDS, commit, own_aside, replace_file, replace_folder, write_named

ROOT = Path(__file__).resolve().parents[2]


def test_a_replaced_file_is_never_seen_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    replace_file(path, b"old")

    def power_cut(self: Path, target: Path) -> None:
        assert target == path
        raise OSError("power cut")

    monkeypatch.setattr(Path, "replace", power_cut)
    with pytest.raises(OSError, match="power cut"):
        replace_file(path, b"new and longer")
    assert path.read_bytes() == b"old"


def test_content_is_synced_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        done.append(f"rename {self.name} {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    (tmp_path / "run").mkdir()
    replace_file(tmp_path / "run" / "a.json", b"{}")
    assert done == ["sync .a.json.partial", "rename .a.json.partial a.json", "sync run"]
    done.clear()
    (tmp_path / "run" / "step.partial").mkdir()
    commit(tmp_path / "run" / "step.partial", tmp_path / "run" / "step")
    assert done == ["sync step.partial", "rename step.partial step", "sync run"]


def test_who_names_a_file_and_the_run_that_owns_it_may_write_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fsync = tmp_path / "report.html", os.fsync

    def meanwhile(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        replace_file(path, b"of the run")
        assert path.read_bytes() == b"of the run"
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", meanwhile)
    write_named(path, b"of the command", "--to")
    assert path.read_bytes() == b"of the command" and list(tmp_path.iterdir()) == [path]


def killed() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen(["sleep", "60"])
    process.kill()
    process.wait()
    return process.pid


@pytest.mark.parametrize("kind", [".partial", ".old.partial"])
def test_what_a_killed_writer_left_goes_with_the_next_one(kind: str, tmp_path: Path) -> None:
    path, here, gone = tmp_path / "page.html", files.machine(), killed()
    live = f".page.html.{here}.{os.getppid()}{kind}"
    writing, left = f".page.html.elsewhere.9{kind}", f".page.html.elsewhere.8{kind}"
    (tmp_path / live).write_text("half")
    (tmp_path / writing).mkdir()
    (tmp_path / f".page.html.{here}.{gone}{kind}").write_text("half")
    (tmp_path / left).mkdir()
    (tmp_path / left / "weights").write_text("half")
    for one in (tmp_path / left / "weights", tmp_path / left):
        os.utime(one, (0, time.time() - LEFT_AFTER_SECONDS - 1))
    others = {f".other.html.{here}.{gone}{kind}", f"page.html.{here}.{gone}{kind}", ".page.html.partial"}
    for name in others:
        (tmp_path / name).write_text("not its own")
    write_named(path, b"whole", "--to")
    assert {one.name for one in tmp_path.iterdir()} == {"page.html", live, writing, *others}


IN_A_CONTAINER = """
import os, pathlib, socket, sys
from megatron_rl.runtime.files import own_aside
print(socket.gethostname(), os.getpid(), own_aside(pathlib.Path(sys.argv[1])).name)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a namespace of processes needs root")
def test_containers_of_one_host_name_do_not_take_each_other_s_writers_for_dead(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    mine = own_aside(path)
    mine.write_text("half")
    words = [sys.executable, "-c", IN_A_CONTAINER, str(path)]
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", *words], capture_output=True, text=True, cwd=ROOT
    )
    if "unshare failed" in done.stderr:
        pytest.skip("this machine allows no namespaces")
    host, process, theirs = done.stdout.split()
    assert host == socket.gethostname() and process == "1", "no process of the number of this one is there"
    assert mine.read_text() == "half" and theirs.startswith(f".report.html.{host}-")
    assert theirs.removesuffix(".1.partial") != mine.name.removesuffix(f".{os.getpid()}.partial")


def test_of_several_that_replace_a_folder_at_once_one_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, replace = tmp_path / "policy", Path.replace
    folder.mkdir()
    (folder / "weights").write_text("before")
    one = own_aside(folder)
    monkeypatch.setattr(os, "getpid", os.getppid)
    other = own_aside(folder)
    for aside in (one, other):
        aside.mkdir()
        (aside / "weights").write_text(aside.name)

    def meanwhile(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        replace_folder(other, folder)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", meanwhile)
    replace_folder(one, folder)
    assert list(tmp_path.iterdir()) == [folder] and (folder / "weights").read_text() == one.name


def test_a_full_disk_is_told_with_the_file_that_it_has_no_room_for(tmp_path: Path) -> None:
    (tmp_path / ".table.csv.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"\[Errno 28\] No space left on device: '.*/table\.csv'"):
        replace_file(tmp_path / "table.csv", b"content")
    assert not list(tmp_path.iterdir()), "what was written aside of it is gone"


def test_a_place_that_the_system_refuses_to_look_at_is_told_with_the_option(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be written \(.*: File name too long\); name another with --to$"):
        write_named(tmp_path / ("x" * 300) / "page.html", b"", "--to")
