r"""The problems of a data folder: JSON lines, read and checked once in a process, before a run starts.

A data folder holds train.jsonl and validation.jsonl, or several files of each; see files.py. A line is
`{"id": unique text, "domain": which verifier judges, "prompt": what the model reads, "item": what the verifier reads}`.

| domain | item |
|---|---|
| math | `{"answer": "5"}`: the reference answer, in LaTeX where it is not a plain number |
| code | `{"tests": [{"input": "3\n", "output": "6\n"}]}`, or `function` and tests of `arguments` and `returns` |
| stem | `{"answer": "B"}`, perhaps with `choices`; `{"answer": "9.81", "unit": "m/s^2", "relative_tolerance": 0.01}` |
| logic | `{"task": "spell_backward", "entry": {"question": .., "answer": .., "metadata": ..}}`, of reasoning-gym |
| instruct | `{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}`, of IFEval |

docs/data.md says all of them. Items stay in the file, which all processes of a machine share in memory, until they are
met: the tests of a code problem can be megabytes.

Not covered: a file that is written over, not replaced, while a run reads it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from megatron_rl.config.checks import UserError
from megatron_rl.config.words import lack
from megatron_rl.data.files import PACKED, PARTS, files_of, open_lines, unpacking_errors
from megatron_rl.rewards import own
from megatron_rl.rewards.rows import parse_row

_KEYS = ("id", "domain", "prompt", "item")


class StoredItem(Mapping[str, Any]):
    """The item of a line that was checked; parsed anew whenever it is looked at."""

    def __init__(self, text: bytes | mmap.mmap, start: int, end: int) -> None:
        self._text, self._start, self._end = text, start, end

    def opened(self) -> dict[str, Any]:
        """The item itself."""
        item: dict[str, Any] = json.loads(self._text[self._start : self._end])["item"]
        return item

    def __getitem__(self, key: str) -> Any:
        return self.opened()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.opened())

    def __len__(self) -> int:
        return len(self.opened())


@dataclass(frozen=True, kw_only=True)
class Item:
    """One problem of a data file."""

    id: str
    domain: str
    prompt: str  # before the chat template
    item: Mapping[str, Any]  # the verifier's own

    def opened(self) -> Mapping[str, Any]:
        """The verifier's item as a plain object."""
        return self.item.opened() if isinstance(self.item, StoredItem) else self.item


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a data folder holds."""

    train: tuple[Item, ...]
    validation: tuple[Item, ...]
    digest: str  # SHA-256 of the lines to train on, unpacked, in the order of the files, and of rewards of one's own
    own_rewards: Mapping[str, str]  # domain -> text of its file

    def of(self, domains: Collection[str]) -> Data:
        """The problems of these domains; of the validation all, where it has none of them."""
        train = tuple(item for item in self.train if item.domain in domains)
        validation = tuple(item for item in self.validation if item.domain in domains)
        return dataclasses.replace(self, train=train, validation=validation or self.validation)

    def overlap(self) -> dict[str, tuple[int, int]]:
        """Domain -> (validation prompts that are trained on, all), of the domains that have such.

        Word for word: similar.py, which data is prepared by, takes boards of other signs for the same problem.
        """
        trained_on = {_words(item) for item in self.train}
        everyone = Counter(item.domain for item in self.validation)
        found = Counter(item.domain for item in self.validation if _words(item) in trained_on)
        return {domain: (found[domain], everyone[domain]) for domain in sorted(found)}


def _words(item: Item) -> tuple[str, str]:
    return item.domain, " ".join(item.prompt.split())


def read_data(folder: Path) -> Data:
    """The problems of a folder, each file in its order; one that has not changed is not read again.

    Raises UserError `path:line: what is wrong; remedy` at the first line that cannot be meant.
    """
    files = {part: files_of(folder, part) for part in PARTS}
    stats = [(path, path.stat()) for part in PARTS for path in files[part]]
    stats += [(path, path.stat()) for path in sorted(folder.glob("*.py"))]
    signature = tuple((str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in stats)
    return _read(tuple(files["train"]), tuple(files["validation"]), signature)


@lru_cache(maxsize=1)
def _read(train: tuple[Path, ...], validation: tuple[Path, ...], signature: object) -> Data:
    digest = hashlib.sha256()
    items, held_out = _read_part(train, digest), _read_part(validation, hashlib.sha256())
    try:
        sources = own.read_sources(train[0].parent, {item.domain for item in (*items, *held_out)})
    except ValueError as error:
        raise UserError(str(error)) from None
    for text in sources.values():
        digest.update(text.encode())
    return Data(train=items, validation=held_out, digest=digest.hexdigest(), own_rewards=sources)


def read_items(*paths: Path) -> tuple[Item, ...]:
    """The problems of some files, in order. Raises UserError as `read_data`."""
    return _read_part(paths, hashlib.sha256())


def _read_part(paths: tuple[Path, ...], digest: Any) -> tuple[Item, ...]:
    items: list[Item] = []
    places: dict[str, tuple[Path, int]] = {}
    for path in paths:
        before = len(items)
        for number, line, stored in _lines(path):
            digest.update(line)
            try:
                item = _parse(line, stored)
                if item.id in places:
                    other, first = places[item.id]
                    where = f"line {first}" + f" of {other}" * (other != path)
                    raise UserError(f"id '{item.id}' was used in {where}; rename one of the two")
            except ValueError as error:
                raise UserError(f"{path}:{number}: {error}") from None
            places[item.id] = path, number
            items.append(item)
        if len(items) == before:
            raise UserError(f"{path}:1: the file is empty; write one problem a line")
    return tuple(items)


def _lines(path: Path) -> Iterator[tuple[int, bytes, StoredItem]]:
    """Number, bytes and item of each line: of a plain file mapped into memory, of a packed one held there."""
    if not path.is_file():
        raise UserError(f"{path}: {lack(path, 'file')}; a data folder holds train.jsonl and validation.jsonl")
    if path.name.endswith(PACKED):
        try:
            with open_lines(path) as file:
                for number, line in enumerate(file, start=1):
                    yield number, line, StoredItem(line, 0, len(line))
        except unpacking_errors() as error:
            raise UserError(f"{path}: cannot be unpacked ({error}); make it anew") from None
        return
    with path.open("rb") as file:
        if not path.stat().st_size:
            return
        text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = 0
    for number, line in enumerate(iter(text.readline, b""), start=1):
        yield number, line, StoredItem(text, start, start + len(line))
        start += len(line)


def _parse(line: bytes, stored: StoredItem) -> Item:
    row = parse_row(line, _KEYS)
    if not row["prompt"].strip():
        raise UserError(f"prompt is {row['prompt']!r}; write a text that is not empty")
    return Item(**row | {"item": stored})
