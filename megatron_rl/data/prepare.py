"""From published rows to the data folder of a run: converted by all cores, chosen in order, written with a manifest.

What the folder holds follows from the mixture, the files and the tokenizer alone: not from the number of processes, nor
from how often the preparation was killed and started again. Memory is bounded by the chunks under way and by the words
of the problems that were kept.
"""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from megatron_rl.config.checks import require
from megatron_rl.config.mixture import Mixture, Source
from megatron_rl.data import choice, manifest
from megatron_rl.data.convert import Job, Made, convert, part_path, read_part, start
from megatron_rl.data.drafts import RULES
from megatron_rl.data.files import MANIFEST, Part, read_manifest
from megatron_rl.data.logic_tasks import OUT_OF_DISTRIBUTION, TASKS
from megatron_rl.data.origins import Chunk, chunks, commit_of, digest_of, locate
from megatron_rl.data.prompts import load_tokenizer
from megatron_rl.data.similar import Overlaps, evaluation_files, evaluation_problems
from megatron_rl.data.sources import COLUMNS
from megatron_rl.runtime.files import commit, replace_file
from megatron_rl.runtime.rundir import locked

WORK = "work"  # folder of what is not finished, in the data folder
PLAN = "plan.json"
WRITTEN = ("train*.jsonl*", "validation*.jsonl*")
MADE_AT_ONCE = 50  # rows of a logic task
MADE_BYTES = 2_000  # that a made row stands for on the progress bar
PACKAGES = ("reasoning-gym", "math-verify", "rensa")  # whose version can change what is kept


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for."""

    mixture: Mixture
    folder: Path
    mirror: Path | None  # of downloads; None: the hub
    given: Mapping[str, Sequence[Path]]  # source -> files in place of its own
    without: tuple[str, ...]  # sources that are left out
    evaluation: tuple[Path, ...]  # files or folders of problems that must not be trained on
    tokenizer: Path | None
    processes: int
    packs: bool  # the files by zstd
    allows_unsafe_sandbox: bool


class Progress(Protocol):
    """Who is told how far the work is."""

    def begin(self, what: str, total: int) -> None: ...

    def advance(self, amount: int) -> None: ...


def prepare(order: Order, progress: Progress) -> dict[str, Any]:
    """Writes the data folder and returns its manifest; a finished one is left as it is.

    Raises UserError where a source, an evaluation set or the folder is not as it has to be; RuntimeError where the hub
    cannot be reached, or the verifiers cannot be started.
    """
    mixture = order.mixture.without(order.without)
    for name in order.given:
        known = [source.name for source in mixture.sources]
        require(name in known, f"--from {name}: mixture {mixture.name} has {', '.join(known)}; name one of them")
    if order.tokenizer is not None:  # before the processes, of which each would fail by itself
        load_tokenizer(order.tokenizer)
    with locked(order.folder, "--to"):
        files, commits = {}, {}
        for source in mixture.sources:
            files[source.name], commits[source.name] = _files(source, order)
        progress.begin("checksums", sum(path.stat().st_size for found in files.values() for _, path in found))
        plan = _plan(order, mixture, files, commits, progress)
        if (done := read_manifest(order.folder)) is not None:
            require(
                done.get("plan") == plan,
                f"data folder {order.folder}: holds data made of something else; give another with --to",
            )
            return done
        work = order.folder / WORK
        _begin(work, plan)
        job = Job(
            sources={source.name: source for source in mixture.sources},
            rules=mixture.rules,
            trained_on=frozenset(source.name for source in mixture.train),
            work=work,
            tokenizer=order.tokenizer,
            parent=os.getpid(),
            allows_unsafe_sandbox=order.allows_unsafe_sandbox,
        )
        numbers = _convert_all(order, mixture, files, job, progress)
        made = _write(order, mixture, numbers, work, plan, progress)
        shutil.rmtree(work)
        return made


def _files(source: Source, order: Order) -> tuple[list[tuple[str, Path]], str | None]:
    """The files of a source, and the commit that they are of, where that is known."""
    if source.reader == "reasoning_gym":
        found = importlib.metadata.version(source.repository)
        require(
            found == source.revision,
            f"source '{source.name}': is of {source.repository} {source.revision}, and {found} is installed; its rows "
            "would be others",
        )
        return [], None
    given = order.given.get(source.name, ())
    commit = commit_of(source, order.mirror, given)
    return locate(source if commit is None else replace(source, revision=commit), order.mirror, given), commit


def _plan(
    order: Order,
    mixture: Mixture,
    files: Mapping[str, Sequence[tuple[str, Path]]],
    commits: Mapping[str, str | None],
    progress: Progress,
) -> dict[str, Any]:
    """All that the bytes of the folder follow from."""
    checksums: dict[str, dict[str, str]] = {}
    for name, found in files.items():
        checksums[name] = {}
        for file, path in found:
            checksums[name][file] = digest_of(path)
            progress.advance(path.stat().st_size)
    tokenizer = order.tokenizer and {
        path.name: digest_of(path)
        for path in sorted(order.tokenizer.iterdir())
        if path.name.startswith(("tokenizer", "chat_template", "vocab", "merges", "special_tokens"))
    }
    return {
        "mixture": mixture.release,
        "fingerprint": mixture.fingerprint,
        "without": sorted(order.without),
        "files": checksums,
        "commits": {name: commit for name, commit in commits.items() if commit is not None},
        "evaluation": digests(evaluation_files(order.evaluation)),
        "tokenizer": tokenizer,
        "packs": order.packs,
        "packages": {name: importlib.metadata.version(name) for name in ("megatron-rl", *PACKAGES)},
    }


def digests(paths: Sequence[Path]) -> dict[str, str]:
    """Name -> digest; of several files of one name all but the first have their number behind it."""
    found: dict[str, str] = {}
    for path in paths:
        number = sum(path.name == other.name for other in paths[: len(found)])
        found[f"{path.name} {number + 1}" if number else path.name] = digest_of(path)
    return found


def _begin(work: Path, plan: Mapping[str, Any]) -> None:
    """Goes on with the parts in `work`, if they were made by the same plan. Raises UserError.

    Nothing is written over that somebody else has put there, nor read with what is made.
    """
    path, text = work / PLAN, json.dumps(plan, indent=1)
    if path.is_file():
        require(
            path.read_text(encoding="utf-8") == text,
            f"{work}: is of a preparation of something else; remove it, or give another folder with --to",
        )
        return
    found = [one for pattern in (*WRITTEN, f"{WORK}/*") for one in sorted(work.parent.glob(pattern))]
    others = [str(one.relative_to(work.parent)) for one in found if one.name != f".{PLAN}.partial"]
    held = ", ".join(others[:3]) + " and more" * (len(others) > 3)
    require(
        not others,
        f"data folder {work.parent}: holds {held}, and no {MANIFEST} that says what they were made of; move them away, "
        "or give another folder with --to",
    )
    work.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.encode())


def _convert_all(
    order: Order, mixture: Mixture, files: Mapping[str, Sequence[tuple[str, Path]]], job: Job, progress: Progress
) -> dict[str, int]:
    """Number of parts of each source, all of them written; those to validate with come first."""
    total = sum(_size(source, files[source.name]) for source in mixture.sources)
    progress.begin("rows", total)
    numbers: dict[str, int] = {}
    with _pool(order.processes, job) as pool:
        numbers |= _converted(mixture.validation, files, job, pool, order.processes, progress)
        index = job.work / "overlaps.npz"
        if not index.is_file():
            aside = index.with_suffix(".new")
            Overlaps.of(_must_not_be_trained_on(order, mixture, numbers, job.work), mixture.rules).save(aside)
            commit(aside, index)
        numbers |= _converted(mixture.train, files, job, pool, order.processes, progress)
    return numbers


@contextmanager
def _pool(processes: int, job: Job) -> Iterator[ProcessPoolExecutor]:
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = "0"  # of the processes to start: reasoning-gym's questions depend on it
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, mp_context=context, initializer=start, initargs=(job,)) as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        del os.environ["PYTHONHASHSEED"]
        if before is not None:
            os.environ["PYTHONHASHSEED"] = before


@contextmanager
def _sheltered() -> Iterator[None]:
    """Processes that are started within do not hear Ctrl-C, which a terminal sends to all; they end with this one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _converted(
    sources: Sequence[Source],
    files: Mapping[str, Sequence[tuple[str, Path]]],
    job: Job,
    pool: ProcessPoolExecutor,
    processes: int,
    progress: Progress,
) -> dict[str, int]:
    """At most two chunks a process are read ahead, which bounds the memory."""
    numbers = {source.name: 0 for source in sources}
    under_way: dict[Future[int], int] = {}
    for source in sources:
        for chunk in _chunks(source, files[source.name], is_held_out=source.name not in job.trained_on):
            numbers[source.name] += 1
            if part_path(job.work, source.name, chunk.number).is_file():
                progress.advance(chunk.num_bytes)
                continue
            with _sheltered():
                under_way[pool.submit(convert, chunk)] = chunk.num_bytes
            if len(under_way) >= 2 * processes:
                _collect(under_way, progress)
    while under_way:
        _collect(under_way, progress)
    return numbers


def _collect(under_way: dict[Future[int], int], progress: Progress) -> None:
    done, _ = wait(under_way, return_when=FIRST_COMPLETED)
    for future in done:
        try:
            future.result()
        except BrokenProcessPool:
            raise RuntimeError(
                "a process that converts rows was killed, perhaps for want of memory; start the same command again to "
                "go on, with fewer --processes"
            ) from None
        progress.advance(under_way.pop(future))


def _chunks(source: Source, files: Sequence[tuple[str, Path]], *, is_held_out: bool) -> Iterable[Chunk | Made]:
    if source.reader == "reasoning_gym":
        return _made(source, is_held_out)
    return chunks(source.name, files, COLUMNS.get(source.reader, ()))


def _made(source: Source, is_held_out: bool) -> Iterator[Made]:
    tasks = _tasks(source, is_held_out)
    assert source.rows_per_task is not None, "the mixture was checked"
    number = 0
    for task in tasks:
        for first in range(0, source.rows_per_task, MADE_AT_ONCE):
            num_rows = min(MADE_AT_ONCE, source.rows_per_task - first)
            split = "held_out" if is_held_out else "train"
            yield Made(
                source=source.name,
                number=number,
                task=task,
                split=split,
                first=first,
                num_rows=num_rows,
                num_bytes=num_rows * MADE_BYTES,
            )
            number += 1


def _tasks(source: Source, is_held_out: bool) -> list[str]:
    known = [task for names in TASKS.values() for task in names]
    for task in source.subset:
        allowed = known + list(OUT_OF_DISTRIBUTION) * is_held_out
        require(task in allowed, f"source '{source.name}': task '{task}' is none that it may have")
    return list(source.subset) or known


def _size(source: Source, files: Sequence[tuple[str, Path]]) -> int:
    if source.rows_per_task is not None:
        return len(_tasks(source, is_held_out=True)) * source.rows_per_task * MADE_BYTES
    return sum(path.stat().st_size for _, path in files)


def _must_not_be_trained_on(
    order: Order, mixture: Mixture, numbers: Mapping[str, int], work: Path
) -> Iterator[tuple[str, str]]:
    """(name, text) of the problems that the mixture is validated with, and of the evaluation sets."""
    for source in mixture.validation:
        for number in range(numbers[source.name]):
            for identifier, _, _, words in read_part(part_path(work, source.name, number)).rows:
                yield identifier, words
    yield from evaluation_problems(evaluation_files(order.evaluation))


def _write(
    order: Order,
    mixture: Mixture,
    numbers: Mapping[str, int],
    work: Path,
    plan: Mapping[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """Chooses, writes the files, the list of what was dropped and, last, the manifest."""
    progress.begin("duplicates", sum(numbers.values()))
    chosen = choice.choose(mixture, numbers, work, progress.advance)
    progress.begin("writing", sum(len(one.kept) for one in chosen.values()))
    written: dict[str, Any] = {}
    parts: tuple[tuple[Part, tuple[Source, ...]], ...] = (("train", mixture.train), ("validation", mixture.validation))
    for part, sources in parts:
        written |= manifest.write_items(order.folder, part, sources, chosen, work, progress.advance, packs=order.packs)
    for part, sources in parts:
        counts = sum((chosen[source.name].counts for source in sources), Counter[str]())
        dropped = ", ".join(f"{rule} {count:,}" for rule in RULES if (count := counts[rule])) or "there was none"
        require(
            any(name.startswith(part) for name in written),
            f"data folder {order.folder}: no row is left for {part} ({dropped}); change the mixture or its files, and "
            f"remove {work} to begin anew",
        )
    manifest.write_dropped(order.folder, mixture, numbers, work, chosen)
    made = manifest.manifest_of(mixture, plan, chosen, written, overlap_was_checked=bool(order.evaluation))
    manifest.write(order.folder / MANIFEST, made)
    return made
