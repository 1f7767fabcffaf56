"""What counts as the same problem, as nearly the same, and as one of an evaluation set."""

from __future__ import annotations

from pathlib import Path

import pytest
import zstandard

from megatron_rl.config.checks import UserError
from megatron_rl.data.similar import NearDuplicates, Overlaps, evaluation_files, evaluation_problems, key_of, words_of
from recipes.mixtures.prorl import MIXTURE

RULES = MIXTURE.rules
LONG = (
    "A train leaves the northern station at noon and travels towards the coast with a constant speed of 80 kilometres "
    "an hour while a second train leaves the coast an hour later and travels the other way at 100 kilometres an hour"
)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("What is  2+2?", "what is $2 + 2$", True),
        ("Compute 5 \u2212 3.", "Compute 5-3", True),
        ("Compute 5 - 3.", "Compute 5 + 3.", False),
        ("Find x^2.", "Find x^3.", False),
    ],
)
def test_problems_are_the_same_by_their_words_and_signs(one: str, other: str, is_same: bool) -> None:
    assert (key_of(words_of(one)) == key_of(words_of(other))) is is_same


def test_a_changed_word_makes_a_near_duplicate_and_a_changed_number_another_problem() -> None:
    near = NearDuplicates(RULES)
    assert near.find_or_add("a", words_of(LONG), numbers_matter=True) is None
    assert near.find_or_add("b", words_of(LONG.replace("second", "other")), numbers_matter=True) == "a"
    assert near.find_or_add("c", words_of(LONG.replace("80", "90")), numbers_matter=True) is None
    assert near.find_or_add("d", words_of(LONG.replace("80", "70")), numbers_matter=False) == "a"
    assert near.find_or_add("e", words_of(LONG[:90]), numbers_matter=True) is None


def test_an_evaluation_problem_is_found_inside_a_longer_text_and_shared_phrases_are_not_enough() -> None:
    index = Overlaps.of([("set:1", LONG), ("set:2", "What is 2 + 2?")], RULES)
    assert index.find(words_of(f"Consider this. {LONG}. Where do they meet?"), RULES) == "set:1"
    assert index.find(words_of("what is 2+2"), RULES) == "set:2"
    assert index.find(words_of("what is 2+3"), RULES) is None
    shared = " ".join(LONG.split()[:14])
    assert index.find(words_of(f"{shared} and then it stops for good in the middle of the night"), RULES) is None


def test_the_index_is_the_same_after_it_was_stored(tmp_path: Path) -> None:
    index = Overlaps.of([("set:1", LONG)], RULES)
    index.save(tmp_path / "index.npz")
    assert Overlaps.load(tmp_path / "index.npz").find(words_of(LONG), RULES) == "set:1"
    Overlaps.of([], RULES).save(tmp_path / "empty.npz")
    assert Overlaps.load(tmp_path / "empty.npz").find(words_of(LONG), RULES) is None


def test_evaluation_sets_are_json_lines_with_a_problem(tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "a.jsonl").write_text('{"question": "Why?"}\n{"prompt": "Who?", "item": {}}\n')
    files = evaluation_files([tmp_path / "sets"])
    assert list(evaluation_problems(files)) == [("a.jsonl:1", "Why?"), ("a.jsonl:2", "Who?")]
    (tmp_path / "sets" / "a.jsonl").write_text('{"answer": "5"}\n')
    with pytest.raises(UserError, match="a.jsonl:1: has none of problem, question"):
        list(evaluation_problems(files))
    with pytest.raises(UserError, match="none: there is no such file"):
        evaluation_files([tmp_path / "none"])


def test_an_evaluation_set_that_is_damaged_ends_in_one_line(tmp_path: Path) -> None:
    packed = tmp_path / "a.jsonl.zst"
    packed.write_bytes(zstandard.compress(b'{"problem": "Why?"}\n' * 9)[:-4])
    with pytest.raises(UserError, match="a.jsonl.zst: cannot be unpacked"):
        list(evaluation_problems([packed]))
    (tmp_path / "b.jsonl").write_text("[" * 100_000)
    with pytest.raises(UserError, match="b.jsonl:1: is no JSON"):
        list(evaluation_problems([tmp_path / "b.jsonl"]))
