"""The files of a data folder: JSON lines, plain or packed by zstd, one or several of each part."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from megatron_rl.config.checks import UserError

Part = Literal["train", "validation"]
PARTS: tuple[Part, ...] = ("train", "validation")
MANIFEST = "manifest.json"
PACKED = ".zst"


def files_of(folder: Path, part: Part) -> tuple[Path, ...]:
    """`part`.jsonl and all `part`-NAME.jsonl of a folder, packed ones too, by name. Raises UserError for none."""
    found = sorted(
        path
        for pattern in (f"{part}.jsonl", f"{part}-*.jsonl")
        for path in (*folder.glob(pattern), *folder.glob(pattern + PACKED))
    )
    if not found:
        raise UserError(
            f"{folder / part}.jsonl: no such file; a data folder holds train.jsonl and validation.jsonl, or several of "
            f"each as {part}-NAME.jsonl, all perhaps packed by zstd"
        )
    plain = [path.name.removesuffix(PACKED) for path in found]
    if twice := [name for name in plain if plain.count(name) > 1]:
        raise UserError(f"{folder / twice[0]}: is there plain and packed; remove one of the two")
    return tuple(found)


@contextmanager
def open_lines(path: Path) -> Iterator[BinaryIO]:
    """A file of lines, unpacked where its name ends with .zst."""
    with path.open("rb") as raw:
        yield open_plain(raw) if path.name.endswith(PACKED) else raw


def open_plain(raw: BinaryIO) -> BinaryIO:
    """What a file packed by zstd holds, one frame or several."""
    import zstandard

    reader: Any = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True, closefd=False)
    return cast("BinaryIO", io.BufferedReader(reader, buffer_size=1 << 20))


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
