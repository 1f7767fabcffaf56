"""The table's figures against enumeration, against the papers' own arithmetic, and equal to the bit when made again."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_rl.commands.suites import all_benchmarks
from megatron_rl.data.logic_tasks import TASKS
from megatron_rl.evaluation import store
from megatron_rl.evaluation.analyses import bounds
from megatron_rl.evaluation.store import SAMPLES
from megatron_rl.evaluation.table import Result, bootstrap, means_of, pass_at_powers, result_of, weighted_mean

# Source: ProRL v1 arXiv 2505.24864v1 and BroRL arXiv 2510.01180, Table 5: scores by category, and the figure that the
# papers print beside them.
CATEGORIES = tuple(TASKS)
PUBLISHED = {
    59.06: (97.21, 53.90, 2.52, 82.81, 29.84, 40.16, 26.38, 89.84, 66.49, 73.50, 82.94),
    61.45: (97.46, 55.56, 4.79, 85.70, 48.43, 46.33, 25.71, 92.56, 70.40, 80.31, 85.29),
    62.82: (97.70, 59.28, 5.31, 85.95, 49.30, 44.53, 25.88, 92.88, 72.01, 80.38, 85.29),
    63.09: (97.59, 59.65, 6.27, 86.17, 49.45, 45.51, 25.77, 93.00, 72.03, 80.94, 85.56),
}


@pytest.mark.parametrize(("printed", "scores"), PUBLISHED.items())
def test_the_published_reasoning_gym_figure_is_the_mean_over_tasks(printed: float, scores: tuple[float, ...]) -> None:
    counts = {category: len(TASKS[category]) for category in CATEGORIES}
    found = weighted_mean(dict(zip(CATEGORIES, scores, strict=True)), counts)
    assert f"{found:.2f}" == f"{printed:.2f}"
    assert sum(counts.values()) == 96


def enumerated(num_samples: int, right: int, k: int) -> Fraction:
    """The share of the draws of k without replacement that hold a right sample, one draw after the other."""
    all_wrong = Fraction(1)
    for drawn in range(k):
        all_wrong *= Fraction(max(num_samples - right - drawn, 0), num_samples - drawn)
    return 1 - all_wrong


@pytest.mark.parametrize("right", [0, 1, 2, 17, 100, 128, 255, 256])
def test_pass_at_k_is_exact_up_to_256(right: int) -> None:
    found = pass_at_powers([(256, right)])
    assert list(found) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    for k, (value,) in found.items():
        assert value == float(enumerated(256, right, k))


def test_pass_at_k_is_what_every_choice_gives() -> None:
    for num_samples, right in ((8, 3), (16, 1), (16, 5)):
        for k, (value,) in pass_at_powers([(num_samples, right)]).items():
            choices = list(itertools.combinations(range(num_samples), k))
            assert value == pytest.approx(sum(min(choice) < right for choice in choices) / len(choices), abs=1e-15)


def test_a_problem_with_fewer_judged_samples_counts_with_all_it_has() -> None:
    assert pass_at_powers([(4, 1), (3, 1)])[4] == [1.0, 1.0]
    assert pass_at_powers([(4, 0), (3, 0)])[4] == [0.0, 0.0]


def stored_benchmark(directory: Path, name: str, scores: dict[str, list[float | None]]) -> None:
    """Samples with these scores under the policy p; None: the verifier failed."""
    folder = store.folder_of(directory, "p", name)
    samples, verdicts = [], []
    for problem, row in scores.items():
        for number, score in enumerate(row):
            samples.append({"id": problem, "sample": number, "tokens": 10 * (number + 1), "finish": "stop"})
            outcome = "crashed" if score is None else "judged"
            verdicts.append({"id": problem, "sample": number, "score": score or 0.0, "outcome": outcome})
    samples[-1]["finish"] = "length"
    store.write_lines(folder / SAMPLES / "wave_00000.jsonl", samples)
    store.write_lines(folder / "ours" / "wave_00000.jsonl", verdicts)


def result(directory: Path, name: str, tasks: dict[str, str]) -> Result:
    found = result_of(all_benchmarks()[name], directory, "p", "ours", tasks)
    assert found is not None
    return found


def test_code_is_strictly_binary_and_instructions_are_not(tmp_path: Path) -> None:
    scores: dict[str, list[float | None]] = {"a": [1.0, 0.9], "b": [0.5, 0.0]}
    for name in ("apps", "ifeval"):
        stored_benchmark(tmp_path, name, scores)
    tasks = dict.fromkeys(scores, "one")
    assert result(tmp_path, "apps", tasks).pass_at_1.value == 0.25
    assert result(tmp_path, "ifeval", tasks).pass_at_1.value == pytest.approx(0.6)
    assert result(tmp_path, "ifeval", tasks).pass_at_k[2].value == 0.5, "pass@k asks for all"


def test_a_failed_verifier_is_no_wrong_answer(tmp_path: Path) -> None:
    stored_benchmark(tmp_path, "aime24", {"a": [1.0, None], "b": [None, None]})
    found = result(tmp_path, "aime24", {"a": "x", "b": "x"})
    assert found.pass_at_1.value == 1.0 and found.num_unjudged == 3 and found.num_problems == 2


def test_lengths_and_what_a_right_answer_costs(tmp_path: Path) -> None:
    stored_benchmark(tmp_path, "aime24", {"a": [1.0, 0.0], "b": [0.0, 1.0]})
    lengths = result(tmp_path, "aime24", {"a": "x", "b": "x"}).lengths
    assert (lengths.mean, lengths.median, lengths.right, lengths.wrong) == (15.0, 15.0, 15.0, 15.0)
    assert lengths.per_right_answer == 30.0 and lengths.cut_share == 0.25


def test_every_task_counts_the_same_however_many_problems_it_has(tmp_path: Path) -> None:
    stored_benchmark(tmp_path, "gym_algebra", {"a1": [1.0], "a2": [1.0], "a3": [1.0], "b1": [0.0]})
    tasks = {"a1": "a", "a2": "a", "a3": "a", "b1": "b"}
    assert result(tmp_path, "gym_algebra", tasks).pass_at_1.value == 0.5


def test_reasoning_gym_is_weighted_by_task_and_by_category(tmp_path: Path) -> None:
    stored_benchmark(tmp_path, "gym_algebra", {"a": [1.0], "b": [1.0], "c": [1.0]})
    stored_benchmark(tmp_path, "gym_arc", {"d": [0.0]})
    results = [
        result(tmp_path, "gym_algebra", {"a": "a", "b": "b", "c": "c"}),
        result(tmp_path, "gym_arc", {"d": "d"}),
    ]
    assert [mean.pass_at_1.value for mean in means_of(results, "p", "ours")] == [0.75, 0.5]


def test_a_mean_over_fewer_benchmarks_than_the_papers_has_none_of_their_figures_beside_it(tmp_path: Path) -> None:
    names = [name for name, one in all_benchmarks().items() if one.group == "math" and one.column]
    assert len(names) == 6
    found = []
    for place, name in enumerate([*names, "mini_math"]):
        stored_benchmark(tmp_path, name, {"a": [float(place == 0)]})
        found.append(result(tmp_path, name, {"a": "x"}))
    (some,) = means_of(found[:2], "p", "ours")
    assert (some.title, some.column, some.pass_at_1.value) == ("Math, mean of 2", "", 0.5)
    (every,) = means_of(found, "p", "ours")
    assert (every.title, every.column, every.pass_at_1.value) == ("Math, mean", "mean of math", pytest.approx(1 / 6))
    stored_benchmark(tmp_path, "gym_algebra", {"a": [1.0]})
    stored_benchmark(tmp_path, "gym_arc", {"d": [0.0]})
    gym = [result(tmp_path, name, {"a": "a", "d": "d"}) for name in ("gym_algebra", "gym_arc")]
    assert [(mean.title, mean.column) for mean in means_of(gym, "p", "ours")] == [
        ("Reasoning Gym, every task alike, 2 of 11 categories", ""),
        ("Reasoning Gym, every category alike, 2 of 11 categories", ""),
    ]


def test_the_bound_weighs_problems_as_pass_at_k_does(tmp_path: Path) -> None:
    """Task a has three problems of pass@1 1/2, task b one of 0: E = 1/4, E[(1 - rho)^2] = (1/4 + 1) / 2."""
    rows: dict[str, list[float | None]] = {name: [1.0, 0.0] for name in ("a1", "a2", "a3")}
    stored_benchmark(tmp_path, "gym_algebra", rows | {"b1": [0.0, 0.0]})
    found = result(tmp_path, "gym_algebra", {"a1": "a", "a2": "a", "a3": "a", "b1": "b"})
    assert bounds(found) == {2: pytest.approx(1 - 0.625)}


def test_an_interval_holds_the_value_and_is_the_same_to_the_bit_when_made_again() -> None:
    values = [float(value) for value in np.random.default_rng(3).random(40)]
    first, again = (bootstrap(values, [1.0] * 40, "aime24") for _ in range(2))
    assert (first.value, first.low, first.high) == (again.value, again.low, again.high)
    assert first.low < first.value < first.high
    spread = np.std(values) / math.sqrt(40)
    assert first.high - first.low == pytest.approx(2 * 1.96 * spread, rel=0.1)
    assert bootstrap([1.0, 1.0], [1.0, 1.0], "x").low == 1.0


def test_the_bound_of_the_variance_is_never_below_pass_at_k(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows: dict[str, list[Any]] = {str(i): [float(one < i / 30) for one in draw.random(64)] for i in range(30)}
    stored_benchmark(tmp_path, "aime24", rows)
    found = result(tmp_path, "aime24", dict.fromkeys(rows, "x"))
    limits = bounds(found)
    assert 1 not in limits and limits.keys() == found.pass_at_k.keys() - {1}
    for k in limits:
        mean = np.mean([1 - (1 - value) ** k for value in found.means.values()])
        assert mean <= limits[k] + 1e-12


def test_a_file_that_was_changed_is_named(tmp_path: Path) -> None:
    (tmp_path / "wave.jsonl").write_text(json.dumps({"id": 1}) + "\n{half")
    with pytest.raises(RuntimeError, match=r"wave\.jsonl: is no file of JSON lines .* remove it"):
        store.read_lines(tmp_path / "wave.jsonl")
