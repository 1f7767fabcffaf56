"""Files that outlive a kill and a power cut: written aside, synced to the disk, renamed into place."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

from megatron_rl.config.checks import UserError


def replace_file(path: Path, content: bytes, writer: str = "") -> None:
    """Puts `content` in the place of a file: readers, kills and power cuts meet the old one whole or the new one whole.

    Each of several processes that may write the file at once is a `writer` of its own. Raises OSError, which names the
    file.
    """
    aside = path.with_name(f".{path.name}{writer}.partial")
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
        replace_file(path, content, writer=f".{socket.gethostname()}.{os.getpid()}")
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


def sync(path: Path) -> None:
    """Waits until the disk has what was written to a file, or the names in a folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
