"""The manifest of a data folder: what was read, kept and dropped by which rule, and what all of it was made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, cast

from megatron_rl.config.mixture import Mixture, Source
from megatron_rl.data.choice import Chosen
from megatron_rl.data.convert import lines_of, part_path, read_part
from megatron_rl.data.drafts import MEANINGS, RULES
from megatron_rl.data.files import PACKED, Part
from megatron_rl.runtime.files import commit, replace_file, sync

DROPPED = "dropped.jsonl"


def write_items(
    folder: Path,
    part: Part,
    sources: Sequence[Source],
    chosen: Mapping[str, Chosen],
    work: Path,
    advance: Callable[[int], None],
    *,
    packs: bool,
) -> dict[str, Any]:
    """Writes a file of each domain, and returns what it is by its name. `advance` is called for each row."""
    written: dict[str, Any] = {}
    for domain in dict.fromkeys(source.domain for source in sources):
        mine = [source for source in sources if source.domain == domain]
        num_rows = sum(len(chosen[source.name].kept) for source in mine)
        if not num_rows:
            continue
        name = f"{part}-{domain}.jsonl" + PACKED * packs
        aside = folder / f"{name}.new"
        with ExitStack() as stack:
            file: BinaryIO = stack.enter_context(aside.open("wb"))
            if packs:
                import zstandard

                packed = zstandard.ZstdCompressor(level=6).stream_writer(file, closefd=False)
                file = cast("BinaryIO", stack.enter_context(packed))
            for source in mine:
                for line in _kept_lines(chosen[source.name], work, source.name):
                    file.write(line)
                    advance(1)
        sync(aside)
        commit(aside, folder / name)
        with (folder / name).open("rb") as stored:
            digest = hashlib.file_digest(stored, "sha256").hexdigest()
        written[name] = {"sha256": digest, "bytes": (folder / name).stat().st_size, "rows": num_rows}
    return written


def _kept_lines(chosen: Chosen, work: Path, source: str) -> Iterator[bytes]:
    for number, entries in groupby(chosen.kept, key=lambda entry: entry[0]):
        places = {place for _, place in entries}
        for place, line in enumerate(lines_of(part_path(work, source, number))):
            if place in places:
                yield line


def write_dropped(
    folder: Path, mixture: Mixture, numbers: Mapping[str, int], work: Path, chosen: Mapping[str, Chosen]
) -> None:
    """Writes which row became no item and why, a line each, in the order of the sources."""
    aside = folder / f"{DROPPED}.new"
    with aside.open("w", encoding="utf-8") as file:
        for source in mixture.sources:
            for number in range(numbers[source.name]):
                _list(file, source.name, read_part(part_path(work, source.name, number)).dropped)
            _list(file, source.name, chosen[source.name].dropped)
    sync(aside)
    commit(aside, folder / DROPPED)


def _list(file: Any, source: str, dropped: Sequence[tuple[str, int, str, str]]) -> None:
    for name, row, rule, reason in dropped:
        line = {"source": source, "file": name, "row": row, "rule": rule, "reason": reason}
        file.write(json.dumps(line) + "\n")


def manifest_of(
    mixture: Mixture,
    plan: Mapping[str, Any],
    chosen: Mapping[str, Chosen],
    written: Mapping[str, Any],
    *,
    overlap_was_checked: bool,
) -> dict[str, Any]:
    """The manifest: the same for the same plan, so that it has no time and no path."""
    return {
        "mixture": mixture.release,
        "fingerprint": mixture.fingerprint,
        "seed": mixture.rules.seed,
        "files": dict(written),
        "domains": _by_domain(mixture, chosen),
        "sources": {
            source.name: _source_facts(source, chosen[source.name], plan, part)
            for part in ("train", "validation")
            for source in getattr(mixture, part)
        },
        "rules": {rule: MEANINGS[rule] for rule in RULES},
        "not_checked": _not_checked(plan, overlap_was_checked),
        "plan": dict(plan),
    }


def _source_facts(source: Source, chosen: Chosen, plan: Mapping[str, Any], part: str) -> dict[str, Any]:
    facts = {
        "part": part,
        "domain": source.domain,
        "repository": source.repository,
        "revision": source.revision,
        "commit": plan["commits"].get(source.name),  # that the revision was when it was read; None: files were given
        "licence": source.licence,
        "files": plan["files"][source.name],
        "prompt": f"{source.prefix}PROBLEM{source.suffix}",
        "rows": chosen.num_rows,
        "kept": len(chosen.kept),
        "published": source.published_prompts,
        "dropped": {rule: chosen.counts[rule] for rule in RULES if chosen.counts[rule]},
    }
    return facts | ({"tests_left_out": chosen.tests_left_out} if source.domain == "code" else {})


def _by_domain(mixture: Mixture, chosen: Mapping[str, Chosen]) -> dict[str, Any]:
    """Of the rows to train on: kept, published and dropped by rule."""
    found: dict[str, Any] = {}
    for domain in dict.fromkeys(source.domain for source in mixture.train):
        mine = [source for source in mixture.train if source.domain == domain]
        counts = {rule: sum(chosen[source.name].counts[rule] for source in mine) for rule in RULES}
        published = [source.published_prompts for source in mine if source.published_prompts is not None]
        found[domain] = {
            "kept": sum(len(chosen[source.name].kept) for source in mine),
            "published": sum(published) if published else None,
            "dropped": {rule: count for rule, count in counts.items() if count},
        }
    return found


def _not_checked(plan: Mapping[str, Any], overlap_was_checked: bool) -> list[str]:
    """The rules that were not applied, each with what it needs."""
    missing = []
    if not overlap_was_checked:
        missing.append("overlap with evaluation sets other than the validation set: give them with --evaluation")
    if plan["tokenizer"] is None:
        missing.append("too_long: give the model's folder with --tokenizer; `train` leaves longer prompts out anyway")
    return missing


def write(path: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest so that it is there whole or not at all; it says that the folder is finished."""
    replace_file(path, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())
