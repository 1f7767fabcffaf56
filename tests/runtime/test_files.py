"""What is renamed into place is whole on the disk before, and its name is on the disk after."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from megatron_rl.config.checks import UserError
from megatron_rl.runtime.files import commit, replace_file, write_named


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


def test_a_full_disk_is_told_with_the_file_that_it_has_no_room_for(tmp_path: Path) -> None:
    (tmp_path / ".table.csv.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"\[Errno 28\] No space left on device: '.*/table\.csv'"):
        replace_file(tmp_path / "table.csv", b"content")
    assert not list(tmp_path.iterdir()), "what was written aside of it is gone"


def test_a_place_that_the_system_refuses_to_look_at_is_told_with_the_option(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be written \(.*: File name too long\); name another with --to$"):
        write_named(tmp_path / ("x" * 300) / "page.html", b"", "--to")
