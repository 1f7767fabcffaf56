"""Files that outlive a kill and a power cut: written aside, synced to the disk, renamed into place."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path

from megatron_rl.config.checks import UserError

LEFT_AFTER_SECONDS = 3600.0  # chosen: a writer that lives does not pause for long
_OF_A_WRITER = re.compile(r"(.+)\.([1-9]\d{0,8})(?:\.old)?\.partial")  # its machine and process


def own_aside(path: Path) -> Path:
    """Where this process, one of several that may write `path` at once, writes it before it is renamed into place.

    What writers that were killed have left of theirs is removed: of this machine those whose process is no more, of
    others what none has written to for LEFT_AFTER_SECONDS.
    """
    host, name = machine(), f".{path.name}."
    for other in path.parent.iterdir() if path.parent.is_dir() else ():
        found = _OF_A_WRITER.fullmatch(other.name.removeprefix(name)) if other.name.startswith(name) else None
        with suppress(OSError):  # somebody else may remove it, too
            if found and (not _is_alive(int(found[2])) if found[1] == host else _is_old(other)):
                shutil.rmtree(other) if other.is_dir() else other.unlink()
    return path.with_name(f"{name}{host}.{os.getpid()}.partial")


def machine() -> str:
    """Where a process's number is its own: the host's name, and what tells apart hosts and containers of one name."""
    return f"{socket.gethostname()}-{_numbering()}"


@functools.cache
def _numbering() -> str:
    """Eight digits of the kernel that runs since its start, and of those whose processes it counts together."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return hashlib.sha256(f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}".encode()).hexdigest()[:8]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _is_old(path: Path) -> bool:
    inside = path.iterdir() if path.is_dir() else ()
    return time.time() - max(one.stat().st_mtime for one in (path, *inside)) > LEFT_AFTER_SECONDS


def replace_file(path: Path, content: bytes, *, is_shared: bool = False) -> None:
    """Puts `content` in the place of a file: readers, kills and power cuts meet the old one whole or the new one whole.

    Several processes may write one that `is_shared` at once. Raises OSError, which names the file.
    """
    aside = own_aside(path) if is_shared else path.with_name(f".{path.name}.partial")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        commit(aside, path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # the kernel does not say on a full disk


def write_named(path: Path, content: bytes, option: str) -> None:
    """Puts `content` in the place of a file that a user may name by `option`, and makes its folder.

    Another process, such as the run that is looked at, may write the same file. Raises UserError where no file can be
    there; of a full disk, OSError.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; name a file with {option}")
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content, is_shared=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        why = f"{error.filename}: {error.strerror}"
        raise UserError(f"{path}: cannot be written ({why}); name another with {option}") from None


def commit(aside: Path, path: Path) -> None:
    """Renames what was written aside into its place, where no folder may stand. Its files must be synced already.

    Raises OSError.
    """
    if aside.is_dir():
        sync(aside)
    aside.replace(path)
    sync(path.parent)


def replace_folder(aside: Path, folder: Path) -> None:
    """Puts what lies in `own_aside(folder)`, synced, in the place of a folder; of several at once the last one stays.

    Raises OSError.
    """
    old = aside.with_suffix(".old.partial")
    while True:
        shutil.rmtree(old, ignore_errors=True)
        with suppress(FileNotFoundError):
            folder.rename(old)
        try:
            commit(aside, folder)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            continue  # another was put there meanwhile
        shutil.rmtree(old, ignore_errors=True)
        return


def sync(path: Path) -> None:
    """Waits until the disk has what was written to a file, or the names in a folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
