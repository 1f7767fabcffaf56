"""Weights & Biases: one run of W&B, by default in files that `wandb sync` uploads; WANDB_MODE=online sends at once."""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import wandb
from wandb.proto.wandb_internal_pb2 import Record

from megatron_rl.report.track import Tracked

PROJECT = "megatron-rl"
ORPHAN_SECONDS = 20.0  # that W&B's own process may write on after the one that started it was killed
# A .wandb file: a head, then blocks of the log format of LevelDB.
HEAD_BYTES, BLOCK_BYTES, HEADER = 7, 32768, struct.Struct("<IHB")
FULL, FIRST, LAST = 1, 2, 4


class Place:
    """Owns a run of W&B and the process that writes it."""

    def __init__(self, place: Path, tracked: Tracked) -> None:
        self.place, self.tracked = place, tracked
        until = time.monotonic() + ORPHAN_SECONDS
        while is_written(tracked.id) and time.monotonic() < until:
            time.sleep(0.2)
        self.last = held(place / "wandb", tracked.id)
        self.is_offline = os.environ.get("WANDB_MODE", "offline") != "online"
        self.run: wandb.Run | None = None  # once there is something to send

    def send(self, step: int, at: float, numbers: Mapping[str, float]) -> None:
        """Adds the numbers of a step; W&B shows them with the next step's, or at the end."""
        try:
            if self.run is None:
                self.run = self._begun()
            self.run.log({**numbers, "_timestamp": at}, step=step)
        except wandb.errors.Error as error:
            raise RuntimeError(f"W&B: {error}; log in with `wandb login`, or leave WANDB_MODE=offline") from None

    def close(self, *, is_finished: bool) -> str:
        """Waits until all is in the files, or uploaded."""
        if self.run is not None:
            self.run.finish()
            wandb.teardown()  # which waits for the process that writes
        if self.is_offline:
            return f"upload it with `wandb sync {self.place}/wandb/offline-run-*-{self.tracked.id}`"
        return f"it is in W&B as {self.tracked.id}"

    def _begun(self) -> wandb.Run:
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=self.tracked.id,
            name=self.tracked.name,
            dir=self.place,
            config=dict(self.tracked.parameters),
            mode="offline" if self.is_offline else "online",
            resume=None if self.is_offline else "allow",
            settings=wandb.Settings(console="off", silent=True, x_disable_stats=True, disable_git=True),
        )


def held(folder: Path, identity: str) -> dict[str, int]:
    """Name -> the newest step that the files of W&B in a folder have it of, sent already or not."""
    last: dict[str, int] = {}
    for path in sorted(folder.glob(f"*run-*/run-{identity}.wandb")):
        for step, numbers in history(path):
            last |= {name: max(step, last.get(name, -1)) for name in numbers}
    return last


def is_written(identity: str) -> bool:
    """Whether a process of this machine still has a file of the run open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # it has ended, or is another user's
            if link.readlink().name == f"run-{identity}.wandb":
                return True
    return False


def history(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Step and numbers of each line of history in a .wandb file, the end that a kill cut short left out."""
    for content in records(path.read_bytes()):
        record = Record.FromString(content)
        if record.WhichOneof("record_type") != "history":
            continue
        items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        yield record.history.step.num, {name: value for name, value in items.items() if not name.startswith("_")}


def records(log: bytes) -> Iterator[bytes]:
    """The whole records of a .wandb file, up to the first that is damaged."""
    place, parts = HEAD_BYTES, b""
    while place + HEADER.size <= len(log):
        left = BLOCK_BYTES - place % BLOCK_BYTES
        if left < HEADER.size:  # too little of the block for another header
            place += left
            continue
        checksum, size, kind = HEADER.unpack_from(log, place)
        content = log[place + HEADER.size : place + HEADER.size + size]
        if len(content) < size or zlib.crc32(content, zlib.crc32(bytes([kind]))) != checksum:
            return
        place += HEADER.size + size
        parts = content if kind in (FULL, FIRST) else parts + content
        if kind in (FULL, LAST):
            yield parts
