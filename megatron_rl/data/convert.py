"""One process of `data prepare`: turns chunks of rows into parts, which hold the items and what became of the others.

A part is a file packed by zstd: a line of JSON that tells of it, then the items. It appears whole or not at all, so
that a preparation which was killed goes on with those that are there.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_rl.config.mixture import Rules, Source
from megatron_rl.data.drafts import Draft, LeftOut
from megatron_rl.data.files import open_lines
from megatron_rl.data.origins import Chunk
from megatron_rl.data.similar import Overlaps, words_of
from megatron_rl.data.sources import read_draft
from megatron_rl.rewards.score import VERIFIERS, Case, Scorer
from megatron_rl.runtime.files import replace_file
from megatron_rl.runtime.orphans import die_with_parent

MAX_LISTED_REASON = 300
ITEM_SECONDS = 5.0  # that a verifier has for a reference answer


@dataclass(frozen=True, kw_only=True)
class Job:
    """What each process is told once."""

    sources: Mapping[str, Source]
    rules: Rules
    trained_on: frozenset[str]  # names of the sources that evaluation sets must not overlap with
    work: Path
    tokenizer: Path | None
    parent: int  # process
    allows_unsafe_sandbox: bool


@dataclass(frozen=True, kw_only=True)
class Made:
    """Rows that reasoning-gym is asked for, in place of a chunk of a file."""

    source: str
    number: int
    task: str
    split: str
    first: int  # seed, counted from the start of the split's span
    num_rows: int
    num_bytes: int = 0


@dataclass
class Part:
    """What became of a chunk."""

    num_rows: int = 0
    num_items: int = 0
    tests_left_out: int = 0
    counts: Counter[str] = field(default_factory=Counter)  # by rule
    dropped: list[tuple[str, int, str, str]] = field(default_factory=list)  # file, row, rule, reason
    rows: list[tuple[str, str, int, str]] = field(default_factory=list)  # of each item: id, file, row, words
    lines: list[bytes] = field(default_factory=list)  # of each item

    def drop(self, file: str, row: int, rule: str, reason: str) -> None:
        self.counts[rule] += 1
        if rule != "other_part":  # half a million rows of Eurus-2 are of another domain
            self.dropped.append((file, row, rule, reason[:MAX_LISTED_REASON]))


_state: tuple[Job, Scorer, Any] | None = None
_overlaps: Overlaps | None = None


def start(job: Job) -> None:
    """Makes this process ready: the verifiers' own confined process, and the tokenizer."""
    global _state
    die_with_parent(job.parent)
    tokenizer = None
    if job.tokenizer is not None:
        from megatron_rl.data.prompts import load_tokenizer

        tokenizer = load_tokenizer(job.tokenizer)
    _state = job, Scorer(1, ITEM_SECONDS, allows_unsafe_sandbox=job.allows_unsafe_sandbox), tokenizer


def convert(chunk: Chunk | Made) -> int:
    """Writes the part of a chunk and returns how many items it has. Raises RuntimeError where nothing can be judged."""
    assert _state is not None, "the process was started by start()"
    job, scorer, tokenizer = _state
    source = job.sources[chunk.source]
    part = Part()
    if isinstance(chunk, Made):
        found = _made(chunk, source, part)
    else:
        found = _drafted(chunk, source, job.rules, part)
    found = _verified(found, source, scorer, part)
    if tokenizer is not None and found:
        found = _short_enough(found, source, tokenizer, job.rules.max_prompt_tokens, part)
    for file, row, draft, line, identifier in found:
        words = words_of(draft.problem)
        is_compared = source.name in job.trained_on and source.drops_similar
        if is_compared and (name := _load_overlaps(job.work).find(words, job.rules)) is not None:
            part.drop(file, row, "overlap", f"is {name}")
            continue
        part.rows.append((identifier, file, row, " ".join(words)))
        part.lines.append(line)
        part.tests_left_out += draft.tests_left_out
    part.num_items = len(part.lines)
    write_part(part_path(job.work, chunk.source, chunk.number), part)
    return part.num_items


Found = list[tuple[str, int, Draft, bytes, str]]  # file, row, draft, line of the data file, id


def _load_overlaps(work: Path) -> Overlaps:
    global _overlaps
    if _overlaps is None:
        _overlaps = Overlaps.load(work / "overlaps.npz")
    return _overlaps


def _drafted(chunk: Chunk, source: Source, rules: Rules, part: Part) -> Found:
    found: Found = []
    for number, row in enumerate(_rows(chunk), start=chunk.first):
        part.num_rows += 1
        try:
            draft = read_draft(_parsed(row), source, rules)
            found.append((chunk.file, number, draft, *_line(draft, source)))
        except LeftOut as left_out:
            part.drop(chunk.file, number, left_out.rule, left_out.reason)
    return found


def _rows(chunk: Chunk) -> Iterator[Any]:
    """Bytes, or objects where the file had them."""
    if chunk.lines is not None:
        yield from chunk.lines
    else:
        yield from chunk.table.to_pylist()


def _parsed(row: Any) -> Any:
    if not isinstance(row, bytes):
        return row
    if not row:
        raise LeftOut("malformed", "the line is too long")
    try:
        return json.loads(row)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and too long a number are ValueErrors
        raise LeftOut("malformed", f"is no JSON ({str(error)[:100]})") from None


def _line(draft: Draft, source: Source) -> tuple[bytes, str]:
    """The line of the data file and its id. Raises LeftOut."""
    try:
        VERIFIERS[source.domain].check_item(draft.item)
        body = json.dumps(draft.item, ensure_ascii=False, allow_nan=False, sort_keys=True)
        digest = hashlib.blake2b(f"{draft.problem}\0{body}".encode(), digest_size=8).hexdigest()
        identifier = f"{source.name}-{digest}"
        row = {
            "id": identifier,
            "domain": source.domain,
            "prompt": f"{source.prefix}{draft.problem}{source.suffix}",
            "item": draft.item,
        }
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n", identifier
    except (UnicodeEncodeError, RecursionError):
        raise LeftOut("malformed", "has half a character, or nests too deep") from None
    except ValueError as error:
        raise LeftOut("refused", str(error)) from None


def _made(made: Made, source: Source, part: Part) -> Found:
    """Rows of a logic task; their ids are their seeds, and reasoning-gym's own instructions are in their questions."""
    from megatron_rl.data.logic_tasks import INSTRUCTION, make_rows

    found: Found = []
    rows = {row["id"]: row for row in make_rows(made.task, made.split, made.first, made.num_rows)}
    part.num_rows = made.num_rows
    for row in rows.values():
        problem, number = row["prompt"].removesuffix(INSTRUCTION), int(row["id"].rpartition("-")[2])
        row["prompt"] = f"{source.prefix}{problem}{source.suffix}"
        draft = Draft(problem=problem, item=row["item"], proof=None)
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        found.append((made.task, number, draft, line, row["id"]))
    for _ in range(made.num_rows - len(rows)):
        part.drop(made.task, made.first, "wrong_own_answer", "an entry whose scorer does not call its answer right")
    return found


def _verified(found: Found, source: Source, scorer: Scorer, part: Part) -> Found:
    """Without those whose reference answer their own verifier does not call right, or whose source contradicts it."""
    responses = [(place, text) for place, entry in enumerate(found) for text in _responses(entry[2])]
    verdicts = scorer.score([Case(source.domain, text, found[place][2].item) for place, text in responses])
    by_response = dict(zip(responses, verdicts, strict=True))
    kept: Found = []
    for place, entry in enumerate(found):
        file, row, draft = entry[:3]
        judged = [by_response[place, text] for text in _responses(draft)]
        proof = by_response[place, draft.proof] if draft.proof is not None else None
        witnesses = [by_response[place, text] for text in draft.witnesses]
        if proof is not None and proof.outcome != "judged":
            part.drop(file, row, "no_verdict", f"{proof.outcome}: {proof.detail}")
        elif proof is not None and proof.score < 1:
            part.drop(file, row, "wrong_own_answer", f"{str(draft.item.get('answer', 'the solution'))}: {proof.detail}")
        elif witnesses and not any(verdict.outcome == "judged" and verdict.score == 1 for verdict in judged[1:]):
            part.drop(file, row, "disagreement", f"the solution does not end with {draft.item['answer']!r}")
        else:
            kept.append(entry)
    return kept


def _responses(draft: Draft) -> Sequence[str]:
    return [*([draft.proof] if draft.proof is not None else []), *draft.witnesses]


def _short_enough(found: Found, source: Source, tokenizer: Any, limit: int, part: Part) -> Found:
    from megatron_rl.data.prompts import with_template

    texts = [with_template(json.loads(line)["prompt"], tokenizer) for _, _, _, line, _ in found]
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    kept: Found = []
    for entry, length in zip(found, lengths, strict=True):
        if length <= limit:
            kept.append(entry)
        else:
            part.drop(entry[0], entry[1], "too_long", f"{length} tokens; at most {limit} are taken")
    return kept


def part_path(work: Path, source: str, number: int) -> Path:
    """Where the part of a chunk lies."""
    return work / source / f"{number:06d}.part.zst"


def write_part(path: Path, part: Part) -> None:
    """Writes a part so that it is there whole or not at all."""
    import zstandard

    head = {
        "num_rows": part.num_rows,
        "tests_left_out": part.tests_left_out,
        "counts": dict(sorted(part.counts.items())),
        "dropped": part.dropped,
        "rows": part.rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, zstandard.compress(json.dumps(head).encode() + b"\n" + b"".join(part.lines), 1))


def read_part(path: Path) -> Part:
    """What a part tells, without its items."""
    with open_lines(path) as file:
        head = json.loads(file.readline())
    return Part(
        num_rows=head["num_rows"],
        num_items=len(head["rows"]),
        tests_left_out=head["tests_left_out"],
        counts=Counter(head["counts"]),
        dropped=[tuple(row) for row in head["dropped"]],
        rows=[tuple(row) for row in head["rows"]],
    )


def lines_of(path: Path) -> Iterator[bytes]:
    """The items of a part, in order."""
    with open_lines(path) as file:
        file.readline()
        yield from file
