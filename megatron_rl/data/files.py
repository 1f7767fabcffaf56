"""The files of a data folder: JSON lines, plain or packed by zstd, one or several of each part."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from megatron_rl.config.checks import UserError
from megatron_rl.config.words import lack

Part = Literal["train", "validation"]
PARTS: tuple[Part, ...] = ("train", "validation")
MANIFEST = "manifest.json"
PACKED = ".zst"
MAX_ALIKE = 5  # chosen: names that a message has room for
PACKED_BYTES = 4096  # read at once: what they unpack to is in memory


def files_of(folder: Path, part: Part) -> tuple[Path, ...]:
    """`part`.jsonl and all `part`-NAME.jsonl of a folder, packed ones too, by name. Raises UserError for none."""
    found = _found(folder, part)
    if not found:
        raise UserError(
            f"{folder / part}.jsonl: no such file; a data folder holds train.jsonl and validation.jsonl, or several of "
            f"each as {part}-NAME.jsonl, all perhaps packed by zstd"
        )
    plain = [path.name.removesuffix(PACKED) for path in found]
    if twice := [name for name in plain if plain.count(name) > 1]:
        raise UserError(f"{folder / twice[0]}: is there plain and packed; remove one of the two")
    return tuple(found)


def missing_parts(folder: Path) -> list[Part]:
    """The parts that a folder has no file of; all where there is no folder."""
    return [part for part in PARTS if not any(path.is_file() for path in _found(folder, part))]


def alike_files(folder: Path, parts: Collection[Part]) -> list[str]:
    """What a folder has that may have been meant as these parts, each with what is wrong with it besides its name."""
    alike = [path for path in sorted(folder.iterdir()) if path.name.lower().startswith(tuple(parts))]
    wrong = {path: "" if path.is_file() else f" ({lack(path, 'file')})" for path in alike}
    return [f"{path.name}{why}" for path, why in wrong.items()][:MAX_ALIKE]


def _found(folder: Path, part: Part) -> list[Path]:
    return sorted(
        path
        for pattern in (f"{part}.jsonl", f"{part}-*.jsonl")
        for path in (*folder.glob(pattern), *folder.glob(pattern + PACKED))
    )


@contextmanager
def open_lines(path: Path) -> Iterator[BinaryIO]:
    """A file of lines, unpacked where its name ends with .zst."""
    with path.open("rb") as raw:
        yield open_plain(raw) if path.name.endswith(PACKED) else raw


def open_plain(raw: BinaryIO) -> BinaryIO:
    """What a file packed by zstd holds; reading raises one of `unpacking_errors` where it is damaged or cut short."""
    return cast("BinaryIO", io.BufferedReader(_Unpacked(raw), buffer_size=1 << 20))


class _Unpacked(io.RawIOBase):
    """The content of zstd frames, one after another; zstandard's own reader takes a file cut short for a whole one."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._packed, self._plain = raw, b"", memoryview(b"")
        self._frame: Any = None  # the one under way

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._plain:
            self._packed = self._packed or self._raw.read(PACKED_BYTES)
            if not self._packed and self._frame is not None:
                raise EOFError("it ends within a frame")
            if not self._packed:
                return 0
            self._unpack()
        count = min(len(buffer), len(self._plain))
        buffer[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def _unpack(self) -> None:
        import zstandard

        self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
        self._plain = memoryview(self._frame.decompress(self._packed))
        self._packed = self._frame.unused_data if self._frame.eof else b""
        self._frame = None if self._frame.eof else self._frame


def unpacking_errors() -> tuple[type[Exception], ...]:
    """What reading a packed file raises where it is damaged or cut short."""
    import gzip
    import zlib

    import zstandard

    return (zstandard.ZstdError, EOFError, gzip.BadGzipFile, zlib.error)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a data folder; None where it has none, or one that cannot be read."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def mixture_of(folder: Path) -> str:
    """Name, version and fingerprint of the mixture that a data folder was made of; empty where it tells none."""
    manifest = read_manifest(folder) or {}
    return f"{manifest['mixture']} {manifest['fingerprint']}" if {"mixture", "fingerprint"} <= manifest.keys() else ""
