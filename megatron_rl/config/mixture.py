"""Mixture: which published rows a run is trained on and validated on, and by which rules rows are left out."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from typing import Literal

from megatron_rl.config.checks import above_zero, require
from megatron_rl.config.records import canonical_json

Reader = Literal[
    "aime",
    "apps",
    "codecontests",
    "codeforces",
    "dapo",
    "deepscaler",
    "eurus",
    "goose",
    "gpqa",
    "ifeval",
    "items",
    "math",
    "nemotron",
    "olympiad",
    "reasoning_gym",
    "scp",
]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One published set of rows, or one that reasoning-gym makes, and the words that are put round its problems."""

    name: str  # begins the ids of its rows
    domain: Literal["math", "code", "stem", "logic", "instruct"]
    reader: Reader  # the function of data/sources.py that knows its layouts
    repository: str  # data set on the Hugging Face hub; for reasoning_gym the package
    revision: str  # commit of the repository, or version of the package
    files: tuple[str, ...]  # of the repository, as patterns; none for reasoning_gym
    licence: str  # as its page states it
    subset: tuple[str, ...]  # the `data_source`s, or tasks, that are taken; () is all
    rows_per_task: int | None  # that reasoning_gym makes; None for files
    prefix: str  # before the problem
    suffix: str  # after the problem
    published_prompts: int | None  # as many as the papers trained on
    max_prompts: int | None  # more are left out by a draw
    drops_similar: bool  # near duplicates and overlaps; False where problems share a template


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is left out, beside rows that cannot be meant."""

    seed: int  # of the draw where there are more rows than `max_prompts`
    max_prompt_tokens: int  # with the chat template; needs a tokenizer
    max_tests: int  # of a code problem; the longest are left out
    max_test_bytes: int  # of one test; a longer one is left out
    max_tests_bytes: int  # of all tests of a problem; the longest are left out
    shingle_words: int  # texts are compared by their runs of so many words
    min_similarity: float  # Jaccard of two texts from which on the later one is a near duplicate
    num_permutations: int  # of MinHash
    num_bands: int  # of the permutations; a pair that agrees in one band is compared
    overlap_words: int  # runs of so many words are looked for in the evaluation sets
    min_overlap: float  # share of an evaluation problem's runs from which on a row overlaps with it


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Sources to train on and to validate with, and the rules for both."""

    name: str
    version: str
    train: tuple[Source, ...]
    validation: tuple[Source, ...]
    rules: Rules

    def __post_init__(self) -> None:
        check_mixture(self)

    @property
    def release(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when any value does."""
        return hashlib.sha256(canonical_json(self).encode()).hexdigest()[:16]

    @property
    def sources(self) -> tuple[Source, ...]:
        """Those to train on, then those to validate with."""
        return self.train + self.validation

    def without(self, names: tuple[str, ...]) -> Mixture:
        """The mixture without the sources of these names. Raises UserError where there is none of a name."""
        known = [source.name for source in self.sources]
        for name in names:
            require(name in known, f"source '{name}': mixture {self.name} has {', '.join(known)}; name one of them")
        train, validation = (
            tuple(source for source in part if source.name not in names) for part in (self.train, self.validation)
        )
        return dataclasses.replace(self, train=train, validation=validation)


def check_mixture(mixture: Mixture) -> None:
    """Raises UserError where a mixture's values cannot be meant."""
    where, rules = f"mixture '{mixture.name}'", mixture.rules
    for part in ("train", "validation"):
        require(bool(getattr(mixture, part)), f"{where}: has no {part} source; name at least one")
    names = [source.name for source in mixture.sources]
    for name in names:
        require(names.count(name) == 1, f"{where}: source '{name}' is there twice; give each a name of its own")
        fits = bool(name) and all(letter.isalnum() or letter in "-_" for letter in name)
        require(fits, f"{where}: source '{name}' names a folder; use letters, digits, - and _")
    for source in mixture.sources:
        is_made = source.reader == "reasoning_gym"
        require(
            is_made == (source.rows_per_task is not None) and is_made != bool(source.files),
            f"{where}: source '{source.name}' has files, or for reasoning_gym rows_per_task; give one of them",
        )
        for field in ("rows_per_task", "max_prompts"):
            value = getattr(source, field)
            require(value is None or value >= 1, f"{where}: source '{source.name}': {field}={value}: must be above 0")
    counts = {field.name: getattr(rules, field.name) for field in dataclasses.fields(rules) if field.name != "seed"}
    above_zero({f"rules.{name}": value for name, value in counts.items()})
    for name in ("min_similarity", "min_overlap"):
        value = getattr(rules, name)
        require(math.isfinite(value) and value <= 1, f"{where}: rules.{name}={value}: is a share; must be at most 1")
    require(
        rules.num_permutations % rules.num_bands == 0,
        f"{where}: rules.num_permutations={rules.num_permutations} does not divide into num_bands={rules.num_bands}; "
        "use a multiple of it",
    )
