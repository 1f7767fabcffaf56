"""Suite and Benchmark: what is evaluated, on which rows, and how it counts, as frozen records."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from megatron_rl.config.checks import require

Layout = Literal[
    "aime",
    "amc",
    "math_500",
    "math",
    "minerva",
    "olympiad",
    "eurus_code",
    "humaneval_plus",
    "livecodebench",
    "gpqa",
    "gpqa_r1",
    "ifeval",
    "items",
]
Scorer = Literal["ours", "as_published"]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows as others published them: files of a data set at one revision."""

    repository: str  # data set on the Hugging Face hub; or a folder of this repository, for rows of its own
    revision: str  # commit; empty for rows of this repository
    files: tuple[str, ...]  # patterns
    layout: Layout  # which reader understands a row
    num_rows: int  # published; another number is another data set
    subset: str = ""  # of a file that holds several benchmarks: the value that tells its rows
    since: str = ""  # first date of the rows that count, as in 2024-08-01
    until: str = ""  # first date of those that do not

    @property
    def name(self) -> str:
        return self.repository


@dataclass(frozen=True, kw_only=True)
class Made:
    """Rows that reasoning-gym makes from seeds which no training row has."""

    tasks: str  # a category of data/logic_tasks.py, or names of tasks
    num_per_task: int


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Problems with one figure."""

    name: str  # of its folder, and on the command line
    title: str  # of its line in a table
    column: str  # of the papers' tables; empty where they have none
    group: Literal["math", "code", "stem", "instruct", "logic", "other"]  # what its figure is averaged with
    source: Rows | Made
    counts: Literal["right", "share"]  # a score of exactly 1 and nothing else, or the mean score
    scorers: tuple[Scorer, ...] = ("ours",)
    notes: tuple[str, ...] = ()  # what a reader of its figure has to know

    def __post_init__(self) -> None:
        require(self.name.replace("_", "").isalnum(), f"benchmark '{self.name}': write a name of letters and digits")
        require(bool(self.scorers), f"benchmark '{self.name}': has no scorer; name 'ours'")


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How the problems are answered."""

    samples_per_problem: int
    temperature: float
    top_p: float
    max_prompt_tokens: int  # a longer prompt is left out, and counted
    max_response_tokens: int  # a longer response is cut off

    def __post_init__(self) -> None:
        for name in ("samples_per_problem", "max_prompt_tokens", "max_response_tokens"):
            require(getattr(self, name) >= 1, f"answering.{name}={getattr(self, name)}: must be at least 1")
        require(
            0 < self.temperature < math.inf,
            f"answering.temperature={self.temperature}: must be above 0; greedy samples are all the same",
        )
        require(0 < self.top_p <= 1, f"answering.top_p={self.top_p}: must lie in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Benchmarks that are answered alike."""

    name: str
    title: str
    benchmarks: tuple[Benchmark, ...]
    answering: Answering

    def __post_init__(self) -> None:
        names = [benchmark.name for benchmark in self.benchmarks]
        twice = sorted({name for name in names if names.count(name) > 1})
        require(not twice, f"suite '{self.name}': has {', '.join(twice)} twice; name each once")
        require(bool(names), f"suite '{self.name}': has no benchmark; name one")
