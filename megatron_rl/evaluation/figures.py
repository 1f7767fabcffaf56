"""All figures of a results folder, as lines of a table, as table.csv, and for the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_rl.config.suites import Benchmark
from megatron_rl.config.tokenizer import read_template
from megatron_rl.evaluation import novelty, store
from megatron_rl.evaluation.analyses import Boundary, Paired, boundaries, paired_t_test
from megatron_rl.evaluation.benchmarks import problems
from megatron_rl.evaluation.plan import Evaluation
from megatron_rl.evaluation.store import SAMPLES
from megatron_rl.evaluation.table import Estimate, Mean, Result, means_of, result_of
from megatron_rl.runtime.files import replace_file

SHOWN_KS = (16, 128, 256)  # of those there are; the page has all
CSV_NAME = "table.csv"
Published = Mapping[str, Mapping[str, float]]  # model -> column of the papers' tables -> figure in %


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is known of the benchmarks that were asked, of every policy in the folder."""

    directory: Path
    titles: Mapping[str, str]  # policy -> title, in the order in which they are compared
    results: tuple[Result, ...]
    means: tuple[Mean, ...]
    compared: tuple[str, ...]  # policies: the first, those between and the last
    num_wanted: Mapping[str, int]  # benchmark -> samples of each problem
    boundaries: tuple[Boundary, ...]
    paired: Mapping[str, Paired]  # benchmark, or `all` -> the last policy against the first
    novelty: Mapping[tuple[str, str], float]  # (policy, benchmark) -> mean Creativity Index
    left_out: Mapping[str, Mapping[str, int]]  # benchmark -> reason -> rows
    has_template: bool  # the tokenizer has a chat template
    published: Published

    @property
    def shown_ks(self) -> list[int]:
        """Those of `SHOWN_KS` that some benchmark has, or else its largest."""
        every = sorted({k for one in self.results for k in one.pass_at_k})
        return [k for k in SHOWN_KS if k in every] or every[-1:]

    @property
    def notes(self) -> list[str]:
        """What a reader of the table has to know, a line each."""
        found = [] if self.has_template else ["the tokenizer has no chat template: prompts were asked as they stand"]
        found += [f"{one.title} {note}" for one, note in self._notes_of_benchmarks()]
        for one in self.results:
            if one.num_unjudged:
                where = f"{one.benchmark.title}, {self.titles[one.policy]}, {one.scorer}"
                found.append(f"{where}: {one.num_unjudged} of {one.num_samples} samples could not be judged")
        found += [f"{one.benchmark.title}, {self.titles[one.policy]}: {note}" for one, note in self._missing()]
        return list(dict.fromkeys(found))

    def lines(self, ks: Sequence[int]) -> Iterator[list[str]]:
        """One line of texts for each benchmark, policy and scorer, and for each mean."""
        for one in self.results:
            at_k = [shown(one.pass_at_k[k]) if k in one.pass_at_k else "" for k in ks]
            lengths = [f"{one.lengths.mean:.1f}", f"{one.lengths.cut_share:.1%}"]
            place = [one.benchmark.title, self.titles[one.policy], one.scorer]
            yield [*place, shown(one.pass_at_1), *at_k, *lengths]
        for mean in self.means:
            yield [mean.title, self.titles[mean.policy], mean.scorer, shown(mean.pass_at_1), *[""] * (len(ks) + 2)]

    def figures_beside(self, column: str) -> dict[str, float]:
        """Model -> what the papers report in that column, in %."""
        return {model: row[column] for model, row in self.published.items() if column and column in row}

    def _missing(self) -> Iterator[tuple[Result, str]]:
        """Results that lack problems which another policy answered, or samples: the evaluation goes on, or was left."""
        problems: dict[str, set[str]] = {}
        for one in self.results:
            problems.setdefault(one.benchmark.name, set()).update(one.scores)
        for one in self.results:
            name = one.benchmark.name
            num_expected = len(problems[name]) * self.num_wanted[name]
            if one.num_verdicts < num_expected:
                yield one, f"has {one.num_verdicts} of {num_expected} samples; evaluate it to the end to compare it"

    def _notes_of_benchmarks(self) -> Iterator[tuple[Benchmark, str]]:
        for benchmark in {one.benchmark.name: one.benchmark for one in self.results}.values():
            for reason, count in sorted(self.left_out.get(benchmark.name, {}).items()):
                yield benchmark, f"leaves out {count} rows: {reason}"


def shown(estimate: Estimate, digits: int = 1) -> str:
    """An estimate in %, with its interval."""
    value, low, high = (f"{100 * one:.{digits}f}" for one in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def read(evaluation: Evaluation, published: Published) -> Figures:
    """The figures of the benchmarks that an evaluation asks, from what is stored of every policy in its folder.

    Raises RuntimeError where more than `max_unjudged_share` of a benchmark's samples could not be judged.
    """
    directory = evaluation.directory
    policies = store.policies_in(directory)
    titles = {name: str(facts["title"]) for name, facts in policies}
    compared = compared_of(policies)
    results: list[Result] = []
    left_out: dict[str, Mapping[str, int]] = {}
    for ask in evaluation.asks:
        known = problems.stored(ask.benchmark, store.problems_folder(directory), evaluation.mirror)
        tasks = {item.id: str(item.item.get("task", ask.name)) for item in known.items}
        counts: list[int] = []
        for policy in titles:
            for scorer in ask.benchmark.scorers:
                found = result_of(ask.benchmark, directory, policy, scorer, tasks)
                if found is not None:
                    _check_verifiers(found, evaluation)
                    results.append(found)
                    counts.append(found.num_problems)
        num_long = len(known.items) - max(counts, default=len(known.items))
        long = {f"their prompts have more than {ask.answering.max_prompt_tokens} tokens": num_long} if num_long else {}
        left_out[ask.name] = {**known.left_out, **long}
    means = [
        mean for scorer in ("ours", "as_published") for policy in titles for mean in means_of(results, policy, scorer)
    ]
    return Figures(
        directory=directory,
        titles=titles,
        results=tuple(results),
        means=tuple(means),
        num_wanted={ask.name: ask.answering.samples_per_problem for ask in evaluation.asks},
        compared=tuple(compared),
        boundaries=tuple(boundaries(results, compared)),
        paired=paired_of(results, compared),
        novelty=novelty_of(evaluation, list(titles)),
        left_out=left_out,
        has_template=read_template(evaluation.model_folder) is not None,
        published=published,
    )


def compared_of(policies: Sequence[tuple[str, Mapping[str, object]]]) -> list[str]:
    """Which policies are compared as first, between and last: a run's by their steps, else all in order.

    A model that is no run's has its figures beside the others', and is not taken for what the run came to.

    >>> compared_of([("step_0", {"step": 0}), ("step_9", {"step": 9}), ("other", {"step": None})])
    ['step_0', 'step_9']
    >>> compared_of([("step_9", {"step": 9}), ("other", {"step": None})])
    ['step_9', 'other']
    """
    of_run = [name for name, facts in policies if facts["step"] is not None]
    return of_run if len(of_run) > 1 else [name for name, _ in policies]


def write(evaluation: Evaluation, published: Published) -> Figures:
    """The figures, written as table.csv and as the page."""
    from megatron_rl.evaluation.page import PAGE_NAME, page_of

    figures = read(evaluation, published)
    for name, text in ((CSV_NAME, csv_of(figures)), (PAGE_NAME, page_of(figures))):  # nobody holds the folder by now
        replace_file(evaluation.directory / name, text.encode(errors="backslashreplace"), is_shared=True)
    return figures


def csv_of(figures: Figures) -> str:
    """Every figure on a line of its own, with the papers' beside it."""
    models = list(figures.published)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["benchmark", "policy", "scorer", "figure", "value", "low", "high", *models])
    for one in figures.results:
        place = [one.benchmark.name, one.policy, one.scorer]
        papers = figures.figures_beside(one.benchmark.column)
        row = [papers.get(model, "") for model in models]
        writer.writerow([*place, "pass@1", *_numbers(one.pass_at_1), *row])
        for k, estimate in one.pass_at_k.items():
            writer.writerow([*place, f"pass@{k} (unbiased)", *_numbers(estimate)])
        lengths = one.lengths
        for name, value in (
            ("tokens, mean", lengths.mean),
            ("tokens, median", lengths.median),
            ("tokens, 90th percentile", lengths.p90),
            ("tokens of right responses", lengths.right),
            ("tokens of wrong responses", lengths.wrong),
            ("tokens per right answer", lengths.per_right_answer),
            ("share cut off", lengths.cut_share),
            ("samples not judged", one.num_unjudged),
            ("samples", one.num_samples),
            ("problems", one.num_problems),
        ):
            writer.writerow([*place, name, "" if value is None else repr(value)])
    for mean in figures.means:
        papers = figures.figures_beside(mean.column)
        row = [papers.get(model, "") for model in models]
        writer.writerow([mean.title, mean.policy, mean.scorer, "pass@1", *_numbers(mean.pass_at_1), *row])
    for (policy, benchmark), value in figures.novelty.items():
        writer.writerow([benchmark, policy, "", "Creativity Index", repr(value)])
    return out.getvalue()


def paired_of(results: Sequence[Result], policies: Sequence[str]) -> dict[str, Paired]:
    """The last policy against the first, for every benchmark and over the problems of all."""
    if len(policies) < 2:
        return {}
    means = {(one.policy, one.benchmark.name): one.means for one in results if one.scorer == "ours"}
    names = dict.fromkeys(one.benchmark.name for one in results)
    pairs = {name: tuple(means.get((policy, name), {}) for policy in (policies[0], policies[-1])) for name in names}
    every = tuple(
        {f"{name}/{problem}": value for name in names for problem, value in pairs[name][side].items()}
        for side in (0, 1)
    )
    found = {name: paired_t_test(*pair) for name, pair in ({"all": every} | pairs).items()}
    return {name: test for name, test in found.items() if test is not None}


def novelty_of(evaluation: Evaluation, policies: Sequence[str]) -> dict[tuple[str, str], float]:
    """The mean Creativity Index of the responses; nothing without a corpus."""
    if not evaluation.corpus:
        return {}
    known = novelty.opened(novelty.index_of(evaluation.corpus, evaluation.directory))
    found = {}
    for policy in policies:
        for ask in evaluation.asks:
            folder = store.folder_of(evaluation.directory, policy, ask.name)
            values = [novelty.creativity_index(line["response"], known) for line in store.all_lines(folder, SAMPLES)]
            if measured := [value for value in values if value is not None]:
                found[policy, ask.name] = sum(measured) / len(measured)
    return found


def _check_verifiers(result: Result, evaluation: Evaluation) -> None:
    share = result.num_unjudged / result.num_samples
    if share > evaluation.max_unjudged_share:
        folder = store.folder_of(evaluation.directory, result.policy, result.benchmark.name) / result.scorer
        raise RuntimeError(
            f"benchmark {result.benchmark.name}: {share:.0%} of {result.num_samples} samples could not be judged by "
            f"{result.scorer}, more than {evaluation.max_unjudged_share:.0%}; mend the verifier, remove {folder} and "
            "start again"
        )


def _numbers(estimate: Estimate) -> list[str]:
    return [repr(estimate.value), repr(estimate.low), repr(estimate.high)]
