"""Where the rows of a source come from: files of the hub at a pinned revision, of a mirror folder, or given ones.

Files are read in bounded memory, a chunk of rows at a time: JSON lines and parquet as they come, also compressed; CSV;
and a JSON array, which has to fit into memory. What a chunk holds depends on the file alone.

Not covered: loading scripts of data sets, which are programs; rows that name files beside them.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib.util
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from megatron_rl.config.checks import UserError
from megatron_rl.data.files import open_plain, unpacking_errors

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
PACKINGS = ("", ".zst", ".gz")
MAX_LINE_BYTES = 64 << 20
MAX_ARRAY_BYTES = 1 << 30
CHUNK_ROWS, CHUNK_BYTES, PARQUET_ROWS = 256, 4 << 20, 64
_COMMIT = re.compile(r"[0-9a-f]{7,40}")


@dataclass(frozen=True)
class Chunk:
    """Some rows of one file, not parsed yet."""

    source: str
    number: int  # of the chunk, among its source's
    file: str
    first: int  # line, or row, of its first row; from 1
    lines: tuple[bytes, ...] | None  # a JSON object each; b"" for one that is too long
    table: Any  # a pyarrow RecordBatch in place of lines
    num_bytes: int  # of the file on disk that it stands for


class Origin(Protocol):
    """What has files on the hub: a source of a mixture, or a benchmark's rows."""

    @property
    def name(self) -> str: ...

    @property
    def repository(self) -> str: ...

    @property
    def revision(self) -> str: ...

    @property
    def files(self) -> tuple[str, ...]: ...  # patterns


def moves(revision: str) -> bool:
    """Whether a revision is a branch or a tag, and no commit.

    >>> moves("main"), moves("9776b13264b5aaa0b16495fcf086a0a8d86fd655"), moves("ee46ddc")
    (True, False, False)
    """
    return _COMMIT.fullmatch(revision) is None


def commit_of(source: Origin, mirror: Path | None, given: Sequence[Path]) -> str | None:
    """The commit that a source's revision stands for today; None where the files do not tell.

    Raises RuntimeError where the hub cannot be reached.
    """
    if not moves(source.revision):
        return None if given else source.revision
    if given:
        return None
    from huggingface_hub import HfApi, constants

    if mirror is None and constants.HF_HUB_OFFLINE:
        mirror = Path(constants.HF_HUB_CACHE)
    if mirror is not None:
        reference = _cache_of(source, mirror) / "refs" / source.revision
        if reference.is_file():
            return reference.read_text(encoding="utf-8").strip()
        notes = (mirror / source.repository / ".cache/huggingface/download").rglob("*.metadata")  # a commit each
        commits = {note.read_text(encoding="utf-8").partition("\n")[0] for note in notes}
        return commits.pop() if len(commits) == 1 else None
    with _reaching(source, f"leave it out with --without {source.name}"):
        found: str | None = HfApi().dataset_info(source.repository, revision=source.revision).sha
        return found


def _cache_of(source: Origin, mirror: Path) -> Path:
    return mirror / f"datasets--{source.repository.replace('/', '--')}"


def locate(
    source: Origin, mirror: Path | None, given: Sequence[Path], otherwise: str | None = None
) -> list[tuple[str, Path]]:
    """(name, path) of the files of a source, by name: those given, else the mirror's, else the hub's.

    `otherwise` is what can be done without them. Raises UserError where there is none, RuntimeError where the hub
    cannot be reached.
    """
    otherwise = otherwise or f"leave it out with --without {source.name}"
    if given:
        return _given(source, given)
    return _of_hub(source, otherwise) if mirror is None else _of_mirror(source, mirror, otherwise)


def _given(source: Origin, given: Sequence[Path]) -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []
    for path in given:
        inner = sorted(path.iterdir()) if path.is_dir() else [path]
        kept = [(file.name, file) for file in inner if file.is_file() and _kind(file.name)]
        if not kept:
            raise UserError(f"source '{source.name}': {path} has no {', '.join(SUFFIXES)} file; give another")
        found += kept
    return found


def _of_mirror(source: Origin, mirror: Path, otherwise: str) -> list[tuple[str, Path]]:
    """A mirror holds OWNER/NAME/FILE, as `hf download --local-dir` writes them, or the hub's own cache."""
    cached = _cache_of(source, mirror) / "snapshots" / source.revision
    folder = cached if cached.is_dir() else mirror / source.repository
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    found = [(name, folder / name) for name in names if _is_wanted(name, source.files)]
    if not found:
        raise UserError(
            f"source '{source.name}': {folder} holds none of {', '.join(source.files)}; download {source.repository} "
            f"at {source.revision} there, or {otherwise}"
        )
    return found


def _of_cache(source: Origin, otherwise: str) -> list[tuple[str, Path]]:
    """What was fetched before, where the environment forbids to ask the hub even which files there are."""
    from huggingface_hub import constants

    cache = _cache_of(source, Path(constants.HF_HUB_CACHE))
    reference = cache / "refs" / source.revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else source.revision
    folder = cache / "snapshots" / commit
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lacking = [pattern for pattern in source.files if not any(_is_wanted(name, [pattern]) for name in names)]
    if lacking:
        words = " ".join(f"--include '{pattern}'" for pattern in source.files)
        raise UserError(
            f"source '{source.name}': the Hugging Face cache {constants.HF_HUB_CACHE} lacks {', '.join(lacking)} of "
            f"{source.repository}, and HF_HUB_OFFLINE forbids to fetch it; where there is internet, set it to 0, or "
            f"run `HF_HUB_OFFLINE=0 hf download --repo-type dataset {source.repository} --revision {source.revision} "
            f"{words}`, or {otherwise}"
        )
    return [(name, folder / name) for name in names if _is_wanted(name, source.files)]


def _of_hub(source: Origin, otherwise: str) -> list[tuple[str, Path]]:
    from huggingface_hub import HfApi, constants, hf_hub_download

    if constants.HF_HUB_OFFLINE:
        return _of_cache(source, otherwise)
    place: Any = {"repo_id": source.repository, "repo_type": "dataset", "revision": source.revision}
    with _reaching(source, otherwise):
        listed = sorted(HfApi().list_repo_files(**place))
        names = [name for name in listed if _is_wanted(name, source.files)]
        if not names:
            raise UserError(
                f"source '{source.name}': {source.repository} at {source.revision} has none of "
                f"{', '.join(source.files)}; it has {', '.join(listed[:8])}"
            )
        return [(name, Path(hf_hub_download(filename=name, **place))) for name in names]


@contextmanager
def _reaching(source: Origin, otherwise: str) -> Iterator[None]:
    """Makes one line of what is said where the hub cannot be reached. Raises RuntimeError."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    unreachable: tuple[type[Exception], ...] = (HfHubHTTPError, LocalEntryNotFoundError, OSError, *_connection_errors())
    try:
        yield
    except unreachable as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RuntimeError(
            f"source '{source.name}': {source.repository} cannot be fetched ({first}); log in with `hf auth login` "
            f"where it is gated, give a folder of downloads with --mirror, or {otherwise}"
        ) from None


def _connection_errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises where nobody answers: of httpx, under the name that its version has."""
    names = [name for name in ("httpx", "httpx2") if importlib.util.find_spec(name) is not None]
    return tuple(importlib.import_module(name).HTTPError for name in names)


def _is_wanted(name: str, patterns: Iterable[str]) -> bool:
    """A pattern may also stand for a compressed file."""
    plain = name.removesuffix(".zst").removesuffix(".gz")
    return any(fnmatch(name, pattern) or fnmatch(plain, pattern) for pattern in patterns) and _kind(name) != ""


def _kind(name: str) -> str:
    """jsonl, json, parquet or csv; empty for any other file."""
    for suffix in SUFFIXES:
        for packing in PACKINGS:
            if name.endswith(suffix + packing) and not (suffix == ".parquet" and packing):
                return suffix[1:]
    return ""


def digest_of(path: Path) -> str:
    """The SHA-256 of a file as it lies on the disk."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def chunks(source: str, files: Sequence[tuple[str, Path]], columns: Sequence[str]) -> Iterator[Chunk]:
    """The rows of the files in order; of parquet only `columns`, where it has them.

    Raises UserError where a file cannot be read at all.
    """
    number = 0
    for name, path in files:
        for first, lines, table, num_bytes in _pieces(name, path, columns):
            yield Chunk(source, number, name, first, lines, table, num_bytes)
            number += 1


Piece = tuple[int, tuple[bytes, ...] | None, Any, int]


def _pieces(name: str, path: Path, columns: Sequence[str]) -> Iterator[Piece]:
    kind = _kind(name) or _kind(path.name)
    if kind == "parquet":
        yield from _of_parquet(path, columns)
        return
    with path.open("rb") as raw:
        plain: BinaryIO = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if path.name.endswith(".gz") else raw
        if path.name.endswith(".zst"):
            plain = open_plain(raw)
        file = io.BufferedReader(cast("Any", plain), buffer_size=1 << 20)
        try:
            if kind == "csv":
                lines = _of_csv(file)
            elif file.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[":
                lines = _of_array(path, file)
            else:
                lines = _of_lines(file)
            yield from _grouped(lines, raw)
        except unpacking_errors() as error:
            raise UserError(f"{path}: cannot be unpacked ({error}); fetch it again") from None


def _grouped(lines: Iterable[bytes], raw: BinaryIO) -> Iterator[Piece]:
    first, held, size, before = 1, [], 0, 0
    for line in lines:
        held.append(line)
        size += len(line)
        if len(held) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            position = raw.tell()
            yield first, tuple(held), None, position - before
            first, held, size, before = first + len(held), [], 0, position
    if held:
        yield first, tuple(held), None, raw.tell() - before


def _of_lines(file: io.BufferedReader) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) <= MAX_LINE_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)
        yield b""


def _of_array(path: Path, file: io.BufferedReader) -> Iterator[bytes]:
    text = file.read(MAX_ARRAY_BYTES + 1)
    if len(text) > MAX_ARRAY_BYTES:
        raise UserError(f"{path}: a JSON array of more than {MAX_ARRAY_BYTES} bytes; write one object a line")
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error}); fetch it again") from None
    for row in rows:
        yield json.dumps(row).encode()


def _of_csv(file: io.BufferedReader) -> Iterator[bytes]:
    csv.field_size_limit(MAX_LINE_BYTES)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
    for row in csv.DictReader(text):
        yield json.dumps({key: value for key, value in row.items() if isinstance(key, str)}).encode()
    text.detach()  # else the file is closed with it, while its position is still asked for


def _of_parquet(path: Path, columns: Sequence[str]) -> Iterator[Piece]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = [name for name in columns if name in file.schema_arrow.names] or None
        share = path.stat().st_size / max(1, file.metadata.num_rows)
        first = 1
        for table in file.iter_batches(batch_size=PARQUET_ROWS, columns=names, use_threads=False):
            yield first, None, table, int(share * table.num_rows)
            first += table.num_rows
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: cannot be read as parquet ({error}); fetch it again") from None
