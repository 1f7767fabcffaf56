"""The papers' analyses on figures worked by hand, and novelty against a search without an index."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from megatron_rl.algorithms.pass_at_k import pass_at_k_bound
from megatron_rl.commands.suites import all_benchmarks
from megatron_rl.config.checks import UserError
from megatron_rl.evaluation import novelty, store
from megatron_rl.evaluation.analyses import boundaries, correlation, paired_t_test, student_tail
from megatron_rl.evaluation.store import SAMPLES
from megatron_rl.evaluation.table import result_of


def test_the_published_t_value_has_the_published_p_value() -> None:
    """BroRL arXiv 2510.01180, Appendix D: t 4.84 over more than 10,000 problems, one-tailed p 6.5e-7."""
    assert student_tail(4.84, 10_000) == pytest.approx(6.5e-7, rel=0.02)
    assert student_tail(-4.84, 10_000) == pytest.approx(1 - 6.5e-7)


def test_a_paired_test_by_hand() -> None:
    """Differences 0.1, 0.2, 0.3: mean 0.2, standard deviation 0.1, t = 0.2 / (0.1 / sqrt 3)."""
    before, after = {"a": 0.1, "b": 0.1, "c": 0.1, "d": 0.9}, {"a": 0.2, "b": 0.3, "c": 0.4}
    found = paired_t_test(before, after)
    assert found is not None and found.num_problems == 3
    assert found.delta == pytest.approx(0.2) and found.t == pytest.approx(3.4641016)
    assert found.p_one_tailed == pytest.approx(0.0370901, abs=1e-6)
    assert paired_t_test({"a": 0.0}, {"a": 1.0}) is None
    assert paired_t_test({"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 1.0}) is None


def test_a_correlation_needs_three_points_and_two_spreads() -> None:
    assert correlation([(0, 0), (1, 1)]) is None
    assert correlation([(0, 1), (1, 1), (2, 1)]) is None
    assert correlation([(0, 1), (1, 3), (2, 2)]) == pytest.approx(0.5)


def without_index(text: str, corpus: list[str]) -> float:
    """The Creativity Index by looking for every run of words in every text of the corpus."""
    words, total = novelty.words_of(text), 0.0
    known = [novelty.words_of(one) for one in corpus]
    for size in novelty.SIZES:
        runs = {tuple(one[i : i + size]) for one in known for i in range(len(one) - size + 1)}
        covered: set[int] = set()
        for i in range(len(words) - size + 1):
            if tuple(words[i : i + size]) in runs:
                covered.update(range(i, i + size))
        total += 1 - len(covered) / len(words)
    return total


@pytest.mark.parametrize("flush", [novelty.FLUSH_HASHES, 50])
def test_the_index_finds_what_a_search_finds(flush: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "FLUSH_HASHES", flush)
    monkeypatch.setattr(novelty, "BUCKET_BITS", 2)  # a file each, of which a disk makes and removes few in a second
    draw = random.Random(1)
    corpus = [" ".join(draw.choice("abcdef") for _ in range(60)) for _ in range(20)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in corpus))
    known = novelty.opened(novelty.index_of([tmp_path / "corpus.jsonl"], tmp_path / "out"))
    texts = [" ".join(draw.choice("abcdef") for _ in range(40)) for _ in range(10)]
    texts += [corpus[3][10:70], corpus[0] + " x y z " + corpus[1]]
    for text in texts:
        assert novelty.creativity_index(text, known) == pytest.approx(without_index(text, corpus))
    assert novelty.creativity_index(corpus[5], known) == 0.0
    assert novelty.creativity_index("one two three four five six", known) == 8.0
    assert novelty.creativity_index("too short", known) is None


def test_an_index_is_built_once_and_anew_for_another_corpus(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("one two three four five six seven\n")
    index = novelty.index_of([tmp_path / "texts"], tmp_path)
    made = (index / "5.npy").stat().st_mtime_ns
    assert novelty.index_of([tmp_path / "texts"], tmp_path) == index
    assert (index / "5.npy").stat().st_mtime_ns == made
    (tmp_path / "texts" / "b.txt").write_text("eight nine\n")
    assert novelty.index_of([tmp_path / "texts"], tmp_path) != index


def test_a_corpus_that_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none: there is no such file"):
        novelty.index_of([tmp_path / "none"], tmp_path)
    (tmp_path / "a.jsonl").write_text('{"words": "x"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:1: is no JSON object with a text under 'text'"):
        novelty.index_of([tmp_path / "a.jsonl"], tmp_path)


def test_differences_that_differ_by_rounding_alone_are_all_the_same() -> None:
    before = {"a": 0.1, "b": 0.2, "c": 0.3}
    after = {name: value + 0.1 for name, value in before.items()}
    assert len({after[name] - before[name] for name in before}) > 1, "the rounding that is planted"
    assert paired_t_test(before, after) is None


def by_integration(t: float, degrees: int) -> float:
    """The tail of Student's t by its density alone, whose normalisation is a sum, too: no special function."""
    places = np.linspace(-400.0, 400.0, 4_000_001)
    density = (1 + places**2 / degrees) ** (-(degrees + 1) / 2)
    return float(density[places > t].sum() / density.sum())


def test_the_paired_test_is_what_its_formula_gives() -> None:
    draw = np.random.default_rng(4)
    first = {str(i): float(value) for i, value in enumerate(draw.random(12))}
    second = {name: value + 0.1 * float(draw.standard_normal()) for name, value in first.items()}
    found = paired_t_test(first, second | {"only here": 1.0})
    differences = np.array([second[name] - first[name] for name in first])
    t = differences.mean() / (differences.std(ddof=1) / np.sqrt(len(differences)))
    assert found is not None and found.num_problems == 12
    assert (found.delta, found.t) == (pytest.approx(differences.mean()), pytest.approx(t))
    assert found.p_one_tailed == pytest.approx(by_integration(t, 11), abs=1e-5)


def test_boundaries_come_from_the_first_the_middle_and_the_last_policy(tmp_path: Path) -> None:
    """Two problems, 4 samples each: the counts of right ones decide pass@1 and the boundary at k = 4."""
    right = {"a": (0, 0), "b": (2, 0), "c": (1, 1), "d": (4, 3)}
    results = []
    for policy, counts in right.items():
        folder = store.folder_of(tmp_path, policy, "aime24")
        lines = [{"id": f"p{i}", "sample": j} for i in range(2) for j in range(4)]
        samples = [line | {"tokens": 1, "finish": "stop"} for line in lines]
        scored = [line | {"score": float(line["sample"] < counts[int(line["id"][1])])} for line in lines]
        store.write_lines(folder / SAMPLES / "wave_00000.jsonl", samples)
        store.write_lines(folder / "ours" / "wave_00000.jsonl", [one | {"outcome": "judged"} for one in scored])
        found = result_of(all_benchmarks()["aime24"], tmp_path, policy, "ours", {"p0": "x", "p1": "x"})
        assert found is not None
        results.append(found)
    (one,) = boundaries(results, list(right))
    assert (one.k, one.before, one.middle, one.after) == (4, 0.0, 1.0, 1.0) and one.regime == "plateau"
    assert one.pass_at_1_gain == 7 / 8
    (one,) = boundaries(results, ["a", "b", "d"])
    assert (one.middle, one.regime) == (0.5, "sustained")
    (one,) = boundaries(results, ["c", "d"])
    assert (one.before, one.middle, one.after, one.regime) == (1.0, None, 1.0, "diminish")
    assert boundaries(results[:1], ["a"]) == [] and boundaries(results[:1], ["a", "b"]) == []


def test_bounds_are_the_papers_formula() -> None:
    """1 - ((1 - E)^2 + Var)^(k/2) of 1/4 and 3/4: E = 1/2, Var = 1/16."""
    assert float(pass_at_k_bound(torch.tensor([0.25, 0.75]), 4)) == pytest.approx(1 - (0.25 + 0.0625) ** 2)
    weights = torch.tensor([3.0, 1.0])
    alike = torch.tensor([0.25, 0.25, 0.25, 0.75])
    weighted = pass_at_k_bound(torch.tensor([0.25, 0.75]), 8, weights)
    assert float(weighted) == pytest.approx(float(pass_at_k_bound(alike, 8)))
