"""The table: pass@1 and pass@k of every benchmark with intervals, lengths, and the papers' means over benchmarks.

Everything follows from the stored samples and verdicts, so that the same ones give the same table to the bit.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megatron_rl.algorithms.pass_at_k import pass_at_k
from megatron_rl.config.suites import Benchmark
from megatron_rl.config.suites import Scorer as ScorerName
from megatron_rl.evaluation import store
from megatron_rl.evaluation.store import SAMPLES, Line

NUM_RESAMPLES = 2000  # chosen: the interval's ends then move by a fiftieth of its width
INTERVAL = (2.5, 97.5)  # percentiles: 95 %
MAX_K = 256  # ProRL v1 arXiv 2505.24864v1, section 4
NUM_AVERAGED = 6  # benchmarks: ProRL v1 arXiv 2505.24864v1, Tables 1 and 2
NUM_CATEGORIES = 11  # of Reasoning Gym: the same, Table 5

Array = Any


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over problems, in 0..1, with its bootstrap interval."""

    value: float
    low: float
    high: float
    draws: Array  # [resamples]


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Response tokens of one benchmark."""

    mean: float
    median: float
    p90: float
    right: float | None  # mean of the right responses; None where there is none
    wrong: float | None
    cut_share: float  # of the responses: they ran into the limit
    per_right_answer: float | None  # all tokens over right responses: what a right one costs


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one policy reached on one benchmark by one scorer."""

    benchmark: Benchmark
    policy: str
    scorer: ScorerName
    num_problems: int
    num_samples: int  # of all problems
    num_verdicts: int  # of all samples, those that could not be judged included
    num_unjudged: int
    scores: Mapping[str, tuple[float, ...]]  # problem -> scores of its judged samples, as the benchmark counts them
    tasks: Mapping[str, str]  # problem -> its task, or the benchmark
    pass_at_1: Estimate
    pass_at_k: Mapping[int, Estimate]
    lengths: Lengths

    @property
    def means(self) -> dict[str, float]:
        """pass@1 of each problem: the mean over its judged samples."""
        return {name: sum(found) / len(found) for name, found in self.scores.items() if found}


def result_of(
    benchmark: Benchmark, directory: Path, policy: str, scorer: ScorerName, tasks: Mapping[str, str]
) -> Result | None:
    """What is stored of a benchmark, as figures; None where nothing of it was judged."""
    folder = store.folder_of(directory, policy, benchmark.name)
    samples, verdicts = list(store.all_lines(folder, SAMPLES)), list(store.all_lines(folder, scorer))
    judged = [one for one in verdicts if one["outcome"] == "judged"]
    if not judged:
        return None
    scores: dict[str, list[float]] = {one["id"]: [] for one in samples}
    right: dict[str, int] = dict.fromkeys(scores, 0)
    for one in judged:
        is_right = one["score"] >= 1
        right[one["id"]] += is_right
        scores[one["id"]].append(float(is_right) if benchmark.counts == "right" else one["score"])
    weights = task_weights([tasks[name] for name in scores if scores[name]])
    means = [sum(found) / len(found) for found in scores.values() if found]
    counts = [(len(found), right[name]) for name, found in scores.items() if found]
    return Result(
        benchmark=benchmark,
        policy=policy,
        scorer=scorer,
        num_problems=len(scores),
        num_samples=len(samples),
        num_verdicts=len(verdicts),
        num_unjudged=len(verdicts) - len(judged),
        scores={name: tuple(found) for name, found in scores.items()},
        tasks={name: tasks[name] for name in scores},
        pass_at_1=bootstrap(means, weights, benchmark.name),
        pass_at_k={k: bootstrap(values, weights, benchmark.name) for k, values in pass_at_powers(counts).items()},
        lengths=lengths_of(samples, judged),
    )


def pass_at_powers(counts: Sequence[tuple[int, int]]) -> dict[int, list[float]]:
    """k -> pass@k of each problem, from (samples judged, right among them), for k in powers of two up to 256.

    k goes as far as the problem with the most samples; one with fewer, whose verifier failed, counts with all it has.

    >>> pass_at_powers([(4, 1), (4, 0)])
    {1: [0.25, 0.0], 2: [0.5, 0.0], 4: [1.0, 0.0]}
    """
    most = max(num_samples for num_samples, _ in counts)
    powers = [1 << power for power in range(MAX_K.bit_length()) if 1 << power <= min(most, MAX_K)]
    return {k: [pass_at_k(judged, right, min(k, judged)) for judged, right in counts] for k in powers}


def task_weights(tasks: Sequence[str]) -> list[float]:
    """A weight for each problem with which every task counts the same.

    >>> task_weights(["a", "a", "b"])
    [0.5, 0.5, 1.0]
    """
    numbers = Counter(tasks)
    return [1 / numbers[task] if len(numbers) > 1 else 1.0 for task in tasks]


def bootstrap(values: Sequence[float], weights: Sequence[float], name: str) -> Estimate:
    """The weighted mean over problems, and the interval of resampling the problems; `name` seeds the draws."""
    found, weight = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    picked = np.random.default_rng(seed).integers(len(found), size=(NUM_RESAMPLES, len(found)))
    draws = (found * weight)[picked].sum(axis=1) / weight[picked].sum(axis=1)
    return estimate(float((found * weight).sum() / weight.sum()), draws)


def estimate(value: float, draws: Array) -> Estimate:
    """An estimate with the interval of its resamples."""
    low, high = np.percentile(draws, INTERVAL)
    return Estimate(value=value, low=float(low), high=float(high), draws=draws)


def weighted_mean(scores: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The mean of several scores, each with its weight: over tasks where the weights are numbers of tasks.

    Source: ProRL v1 arXiv 2505.24864v1, whose Reasoning Gym figure weights categories by their tasks.

    >>> weighted_mean({"algebra": 1.0, "arc": 0.5}, {"algebra": 3, "arc": 1})
    0.875
    """
    return sum(score * weights[name] for name, score in scores.items()) / sum(weights[name] for name in scores)


def lengths_of(samples: Sequence[Line], judged: Sequence[Line]) -> Lengths:
    """Response tokens of all samples, of the right and of the wrong ones."""
    tokens = {(one["id"], one["sample"]): one["tokens"] for one in samples}
    parts: dict[bool, list[int]] = {True: [], False: []}
    for one in judged:
        parts[one["score"] >= 1].append(tokens[one["id"], one["sample"]])
    every = np.asarray(list(tokens.values()), dtype=np.float64)
    right, wrong = (float(np.mean(parts[side])) if parts[side] else None for side in (True, False))
    return Lengths(
        mean=float(every.mean()),
        median=float(np.median(every)),
        p90=float(np.percentile(every, 90)),
        right=right,
        wrong=wrong,
        cut_share=sum(one["finish"] == "length" for one in samples) / len(samples),
        per_right_answer=float(sum(map(sum, parts.values())) / len(parts[True])) if parts[True] else None,
    )


@dataclass(frozen=True, kw_only=True)
class Mean:
    """One of the papers' means over benchmarks."""

    title: str
    column: str  # of the papers' tables
    policy: str
    scorer: ScorerName
    pass_at_1: Estimate


def means_of(results: Sequence[Result], policy: str, scorer: ScorerName) -> Iterator[Mean]:
    """The means of the papers' tables: math, code, and Reasoning Gym in two ways.

    A mean over fewer benchmarks than the papers' says over how many, and has none of their figures beside it.
    """
    mine = [one for one in results if one.policy == policy and one.scorer == scorer]
    for group, title in (("math", "Math"), ("code", "Code")):
        parts = [one for one in mine if one.benchmark.group == group]
        papers = [one for one in parts if one.benchmark.column]
        if len(papers) == NUM_AVERAGED and scorer == "ours":
            yield _mean(f"{title}, mean", f"mean of {group}", policy, scorer, papers, [1.0] * len(papers))
        elif len(parts) > 1 and scorer == "ours":
            yield _mean(f"{title}, mean of {len(parts)}", "", policy, scorer, parts, [1.0] * len(parts))
    parts = [one for one in mine if one.benchmark.column.startswith("Reasoning Gym ")]
    if len(parts) > 1:
        numbers = [float(len(set(one.tasks.values()))) for one in parts]
        is_whole, of = len(parts) == NUM_CATEGORIES, f", {len(parts)} of {NUM_CATEGORIES} categories"
        for what, weights in (("task", numbers), ("category", [1.0] * len(parts))):
            column = "Reasoning Gym" if what == "task" else "Reasoning Gym, categories alike"
            title = f"Reasoning Gym, every {what} alike" + ("" if is_whole else of)
            yield _mean(title, column if is_whole else "", policy, scorer, parts, weights)


def _mean(
    title: str, column: str, policy: str, scorer: ScorerName, parts: Sequence[Result], weights: Sequence[float]
) -> Mean:
    names = [one.benchmark.name for one in parts]
    value = weighted_mean(
        {one.benchmark.name: one.pass_at_1.value for one in parts}, dict(zip(names, weights, strict=True))
    )
    draws = sum(one.pass_at_1.draws * weight for one, weight in zip(parts, weights, strict=True)) / sum(weights)
    return Mean(title=title, column=column, policy=policy, scorer=scorer, pass_at_1=estimate(value, draws))
