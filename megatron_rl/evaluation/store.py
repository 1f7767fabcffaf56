"""What an evaluation keeps: samples and verdicts by wave, as JSON lines, whole or not at all.

    problems/BENCHMARK.jsonl                              the problems, as a data file
    policies/POLICY/policy.json                           its title, step and weights' digest
    policies/POLICY/BENCHMARK/asked.json                  how it was asked
    policies/POLICY/BENCHMARK/samples/wave_00000.jsonl    {id, sample, seed, finish, tokens, opens_thought, response}
    policies/POLICY/BENCHMARK/SCORER/wave_00000.jsonl     {id, sample, score, outcome, detail}
    policies/POLICY/BENCHMARK/SCORER/verifiers.json       which verifiers gave them
    policies/POLICY/BENCHMARK/SCORER_by_VERSION/          the verdicts of other verifiers, out of the way

A wave holds the samples of fixed requests, decided when a benchmark is first asked. A stored one is never made again;
its verdicts are, by verifiers of another version.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_rl.config.checks import UserError
from megatron_rl.config.identity import reading
from megatron_rl.config.records import differences
from megatron_rl.evaluation.plan import Ask, Evaluation, Policy
from megatron_rl.runtime.files import replace_file

SAMPLES = "samples"
VERIFIERS = "verifiers.json"
UNKNOWN_VERSION = "an_earlier_version"  # of verifiers, before that was noted
LATER = ("reading",)  # what versions before did not note of an ask: it is taken as it is now
Line = dict[str, Any]
Note = tuple[Path, Line]  # a file and what it says, or is to say


@dataclass(frozen=True, kw_only=True)
class Wave:
    """One wave of one benchmark put to one policy."""

    folder: Path  # of the benchmark, within that of the policy
    number: int

    def path(self, what: str) -> Path:
        """Where its samples, or the verdicts of a scorer, lie."""
        return self.folder / what / f"wave_{self.number:05d}.jsonl"

    def has(self, what: str) -> bool:
        return self.path(what).is_file()


def waves_in(folder: Path) -> list[Wave]:
    """The waves of a benchmark whose samples are there, in order."""
    numbers = (path.stem.removeprefix("wave_") for path in (folder / SAMPLES).glob("wave_*.jsonl"))
    return [Wave(folder=folder, number=number) for number in sorted(int(one) for one in numbers if one.isdecimal())]


def problems_folder(directory: Path) -> Path:
    """Where the problems of all benchmarks lie."""
    return directory / "problems"


def folder_of(directory: Path, policy: str, benchmark: str) -> Path:
    """Where a benchmark's samples and verdicts of a policy lie."""
    return directory / "policies" / policy / benchmark


def note_of_policy(evaluation: Evaluation, policy: Policy) -> Note:
    """Whose samples lie in a policy's folder. Raises UserError where they are of other weights."""
    facts = {"title": policy.title, "step": policy.step, "weights": policy.digest()}
    return _same(evaluation.directory / "policies" / policy.name / "policy.json", facts, f"policy {policy.name}")


def note_of_ask(evaluation: Evaluation, policy: Policy, ask: Ask, samples_per_wave: int) -> Note:
    """How a benchmark is asked; the samples of a wave stay those of the first start.

    Raises UserError where it was asked otherwise before.
    """
    folder, vocab_size = folder_of(evaluation.directory, policy.name, ask.name), evaluation.model.vocab_size
    path, problems = folder / "asked.json", problems_folder(evaluation.directory) / f"{ask.name}.jsonl"
    if path.is_file():
        samples_per_wave = _read(path)["samples_per_wave"]
    facts = {
        "answering": dataclasses.asdict(ask.answering),
        "seed": evaluation.seed,
        "precision": evaluation.scale.precision,
        "problems": hashlib.sha256(problems.read_bytes()).hexdigest()[:16],
        "reading": reading(evaluation.model_folder, vocab_size),
        "samples_per_wave": samples_per_wave,
    }
    return _same(path, facts, f"benchmark {ask.name}")


def keep(notes: Sequence[Note]) -> None:
    """Writes the notes that are not there yet."""
    for path, facts in notes:
        if not path.is_file():
            write_text(path, json.dumps(facts, indent=1))


def put_aside_other_verdicts(folder: Path, scorer: str, version: str) -> int:
    """Leaves a benchmark only a scorer's verdicts of that version; returns how many waves another had judged.

    Theirs go beside, and come back where that version does. Raises UserError where something lies there already.
    """
    verdicts = folder / scorer
    note, num_waves = verdicts / VERIFIERS, len(list(verdicts.glob("wave_*.jsonl")))
    before = str(_read(note).get("version")) if note.is_file() else UNKNOWN_VERSION if num_waves else None
    if before == version:
        return 0
    if before is not None:
        aside = folder / f"{scorer}_by_{before}"
        if aside.exists():
            raise UserError(f"{aside}: is there beside {verdicts}, which are of the same verifiers; remove one of them")
        verdicts.rename(aside)
    if (known := folder / f"{scorer}_by_{version}").is_dir():
        known.rename(verdicts)
    else:
        write_text(note, json.dumps({"version": version}))
    return num_waves


def policies_in(directory: Path) -> list[tuple[str, Line]]:
    """(name, facts) of every policy that has samples in a folder, by their steps, then by name."""
    found = [(path.parent.name, _read(path)) for path in (directory / "policies").glob("*/policy.json")]
    return sorted(found, key=lambda one: (one[1]["step"] is None, one[1]["step"] or 0, one[0]))


def write_lines(path: Path, lines: Sequence[Line]) -> None:
    """Writes a file of JSON lines, which appears whole and on the disk."""
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def write_text(path: Path, content: str) -> None:
    """Writes a file, which appears whole and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content.encode(errors="backslashreplace"))


def read_lines(path: Path) -> list[Line]:
    """The lines of a file. Raises RuntimeError where it was changed by something else."""
    try:
        return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
    except ValueError as error:
        raise RuntimeError(f"{path}: is no file of JSON lines ({error}); remove it, and it is made again") from None


def all_lines(folder: Path, what: str) -> Iterator[Line]:
    """The lines of all waves of a benchmark, in order."""
    for path in sorted((folder / what).glob("wave_*.jsonl")):
        yield from read_lines(path)


def _same(path: Path, facts: Line, what: str) -> Note:
    if path.is_file():
        known = _read(path)
        now = {name: value for name, value in facts.items() if name in known or name not in LATER}
        if differing := differences(known, json.loads(json.dumps(now))):
            raise UserError(
                f"{what}: {path} says otherwise ({'; '.join(differing)}); ask as before, or into another --to"
            )
    return path, facts


def _read(path: Path) -> Line:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RuntimeError(f"{path}: is no JSON object; remove the folder {path.parent}, and it is made again")
    return found
