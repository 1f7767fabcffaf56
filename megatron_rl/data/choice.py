"""Which converted rows are kept: each problem once, none twice in other words, and no more than the mixture takes.

The first of two equal problems stays, in the order of the mixture's sources.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from megatron_rl.config.mixture import Mixture, Source
from megatron_rl.data.convert import part_path, read_part
from megatron_rl.data.similar import NearDuplicates, key_of


@dataclass
class Chosen:
    """What is kept of a source, and what became of its rows."""

    num_rows: int = 0
    tests_left_out: int = 0
    counts: Counter[str] = field(default_factory=Counter)  # by rule
    kept: list[tuple[int, int]] = field(default_factory=list)  # part, place in it; in order
    dropped: list[tuple[str, int, str, str]] = field(default_factory=list)  # file, row, rule, reason; of this stage


def choose(
    mixture: Mixture, numbers: Mapping[str, int], work: Path, advance: Callable[[int], None]
) -> dict[str, Chosen]:
    """What is kept of each source; `numbers` has how many parts it has in `work`. `advance` is called for each part."""
    held_out: dict[bytes, str] = {}
    found: dict[str, Chosen] = {}
    for source in mixture.validation:
        found[source.name] = _of(source, mixture, numbers[source.name], work, {}, held_out, None, advance)
    seen: dict[bytes, str] = {}
    near = NearDuplicates(mixture.rules)
    for source in mixture.train:
        found[source.name] = _of(source, mixture, numbers[source.name], work, held_out, seen, near, advance)
    return found


def _of(
    source: Source,
    mixture: Mixture,
    num_parts: int,
    work: Path,
    held_out: Mapping[bytes, str],
    seen: dict[bytes, str],
    near: NearDuplicates | None,
    advance: Callable[[int], None],
) -> Chosen:
    chosen = Chosen()
    identifiers: list[tuple[str, str, int]] = []  # of the kept: id, file, row
    for number in range(num_parts):
        part = read_part(part_path(work, source.name, number))
        chosen.num_rows += part.num_rows
        chosen.tests_left_out += part.tests_left_out
        chosen.counts.update(part.counts)
        for place, (identifier, file, row, text) in enumerate(part.rows):
            words = text.split(" ")
            key, rule, other = key_of(words), "", None
            if key in held_out:
                rule, other = "overlap", held_out[key]
            elif key in seen:
                rule, other = "exact_duplicate", seen[key]
            elif near is not None and source.drops_similar:
                other = near.find_or_add(identifier, words, numbers_matter=source.domain != "code")
                rule = "near_duplicate" if other is not None else ""
            if rule:
                chosen.counts[rule] += 1
                chosen.dropped.append((file, row, rule, f"is {other}"))
                continue
            seen[key] = identifier
            chosen.kept.append((number, place))
            identifiers.append((identifier, file, row))
        advance(1)
    _draw(source, mixture.rules.seed, chosen, identifiers)
    return chosen


def _draw(source: Source, seed: int, chosen: Chosen, identifiers: list[tuple[str, str, int]]) -> None:
    """Leaves out what is more than the mixture takes of a source, by a hash of seed and id."""
    if source.max_prompts is None or len(chosen.kept) <= source.max_prompts:
        return
    keys = [hashlib.blake2b(f"{seed}:{entry[0]}".encode(), digest_size=16).digest() for entry in identifiers]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    taken = set(order[: source.max_prompts])
    for place in order[source.max_prompts :]:
        _, file, row = identifiers[place]
        chosen.dropped.append((file, row, "not_drawn", f"{source.max_prompts} are taken"))
    chosen.counts["not_drawn"] += len(keys) - len(taken)
    chosen.kept = [entry for place, entry in enumerate(chosen.kept) if place in taken]
