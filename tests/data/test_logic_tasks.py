"""The rows of the logic tasks: the papers' tasks, splits whose seeds never meet, and entries that can be solved."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_rl.data import logic_tasks
from megatron_rl.data.items import read_items
from megatron_rl.rewards import logic

PAPERS_COUNTS = {
    "algebra": 6,
    "algorithmic": 33,
    "arc": 3,
    "arithmetic": 18,
    "code": 2,
    "cognition": 6,
    "games": 13,
    "geometry": 2,
    "graphs": 5,
    "induction": 1,
    "logic": 7,
}


@pytest.fixture
def fixed_hash_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")  # of the tasks made here, none depends on it


def test_the_tasks_are_as_many_per_category_as_the_papers_have_and_all_are_accepted() -> None:
    tasks = [task for names in logic_tasks.TASKS.values() for task in names]
    assert {category: len(names) for category, names in logic_tasks.TASKS.items()} == PAPERS_COUNTS
    assert len(set(tasks)) == len(tasks) == 96
    assert set(tasks) | set(logic_tasks.OUT_OF_DISTRIBUTION) <= logic.ACCEPTED
    assert not set(tasks) & set(logic_tasks.OUT_OF_DISTRIBUTION)


def test_the_categories_are_reasoning_gyms_own() -> None:
    from reasoning_gym.factory import DATASETS

    for category, names in logic_tasks.TASKS.items():
        assert {DATASETS[name][0].__module__.split(".")[1] for name in names} == {category}


def test_no_seed_is_in_two_splits() -> None:
    train, held_out = logic_tasks.SEEDS["train"], logic_tasks.SEEDS["held_out"]
    assert train.stop <= held_out.start


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize(("first", "number"), [(-1, 2), (10**9 - 1, 2), (10**9, 1), (0, 10**9 + 1), (0, 0)])
@pytest.mark.usefixtures("fixed_hash_seed")
def test_seeds_outside_the_span_of_a_split_are_refused(split: str, first: int, number: int) -> None:
    with pytest.raises(ValueError, match="must lie in 0 to 999999999"):
        logic_tasks.make_rows("gcd", split, first, number)


@pytest.mark.parametrize(
    ("task", "split", "message"),
    [
        ("composite", "train", "not accepted"),
        ("gcd", "test", "is none of"),
        ("puzzle24", "train", "kept for evaluation"),
    ],
)
@pytest.mark.usefixtures("fixed_hash_seed")
def test_tasks_and_splits_that_can_not_be_meant_are_refused(task: str, split: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        logic_tasks.make_rows(task, split, 0, 1)


def test_rows_are_not_made_under_an_unknown_hash_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with pytest.raises(RuntimeError, match="PYTHONHASHSEED=0"):
        logic_tasks.make_rows("gcd", "train", 0, 1)


@pytest.mark.usefixtures("fixed_hash_seed")
def test_rows_are_problems_that_their_own_answer_solves(tmp_path: Path) -> None:
    tasks = ("gcd", "graph_color", "gsm_symbolic", "rush_hour", "rubiks_cube")
    rows = [row for task in tasks for row in logic_tasks.make_rows(task, "held_out", 3, 4)]
    (tmp_path / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = read_items(tmp_path / "validation.jsonl")
    assert [item.id for item in items[:4]] == [f"gcd-{10**9 + 3 + index}" for index in range(4)]
    assert len(items) == 4 * len(tasks)
    assert all(item.prompt.endswith(logic_tasks.INSTRUCTION) for item in items)
    answers = [(logic_tasks.stored_answer(item.item), item.item) for item in items]
    assert {logic.verify(f"<answer>{answer}</answer>", item).score for answer, item in answers if answer} == {1.0}


@pytest.mark.usefixtures("fixed_hash_seed")
def test_a_row_does_not_depend_on_how_many_are_made() -> None:
    three, two = (logic_tasks.make_rows("dice", "train", *seeds) for seeds in ((5, 3), (6, 2)))
    assert [(row["id"], row["prompt"]) for row in three[1:]] == [(row["id"], row["prompt"]) for row in two]


@pytest.mark.usefixtures("fixed_hash_seed")
@pytest.mark.parametrize("task", ["dice", "ab", "gsm_symbolic", "rush_hour"])
def test_a_part_of_the_rows_is_as_it_is_among_all(task: str) -> None:
    whole = logic_tasks.make_rows(task, "train", 14, 8)
    second, first = (logic_tasks.make_rows(task, "train", 14, 8, part) for part in (range(3, 8), range(3)))
    assert [*first, *second] == whole


@pytest.mark.e2e
def test_any_number_of_processes_writes_the_same_file(tmp_path: Path) -> None:
    written = []
    for processes in ("1", "3"):
        words = ["--split", "train", "--per-task", "45", "--tasks", "ab", "dice", "gcd", "--processes", processes]
        done = subprocess.run(
            [sys.executable, "-m", "megatron_rl.data.logic_tasks", *words, "--out", str(tmp_path / processes)],
            env=os.environ | {"PYTHONHASHSEED": "0"}, check=True, capture_output=True,
            text=True,
        )  # fmt: skip
        assert re.search(r"INFO task 3 of 3, gcd: 45 rows$", done.stderr, re.MULTILINE) and done.stdout == ""
        written.append((tmp_path / processes).read_bytes())
    assert written[0] == written[1]
    tasks = [json.loads(line)["item"]["task"] for line in written[0].splitlines()]
    assert list(dict.fromkeys(tasks)) == ["ab", "dice", "gcd"] and len(tasks) > 2 * 45


@pytest.mark.usefixtures("fixed_hash_seed")
def test_what_reasoning_gym_prints_is_not_among_the_rows(capfd: pytest.CaptureFixture[str]) -> None:
    assert logic_tasks.make_rows("bf", "held_out", 0, 2)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("words", ["--per-task 0", "--per-task 1 --processes 0"])
def test_a_number_of_nothing_is_refused(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["logic_tasks", "--split", "train", "--out", "none", *words.split()])
    with pytest.raises(SystemExit):
        logic_tasks.main()
    assert f"{' '.join(words.split()[-2:])}: must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--per-task 1_0", "argument --per-task: 1_0: must be a whole number"),
        ("--per-task 1 --first -3", "--first -3: must be at least 0"),
        ("--per-task 1 --tasks spel", "--tasks spel: is none of the train split; they are"),
        ("--per-task 1 --out /dev/null/x", "--out /dev/null/x: /dev/null: is a file, not a folder; name another"),
        ("--per-task 1 --out .", "--out .: is a folder, not a file; name another"),
    ],
)
def test_a_wrong_word_is_told_before_rows_are_made(
    words: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["logic_tasks", "--split", "train", "--out", "none", *words.split()])
    with pytest.raises(SystemExit):
        logic_tasks.main()
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("fixed_hash_seed")
def test_entries_without_a_usable_answer_are_left_out() -> None:
    # Seed 18 of ab ends in nothing; seed 5's integral is one that reasoning-gym's own answer restates.
    for task, first, kept in (("ab", 17, [17, 19]), ("intermediate_integration", 5, [6])):
        rows = logic_tasks.make_rows(task, "train", first, kept[-1] - first + 1)
        assert [row["id"] for row in rows] == [f"{task}-{seed}" for seed in kept]


def test_prompts_shared_with_another_split_are_left_out() -> None:
    rows = [{"id": str(index), "prompt": prompt} for index, prompt in enumerate("abacd")]
    kept = logic_tasks.without_shared(rows, [{"id": "x", "prompt": "c"}])
    assert [row["id"] for row in kept] == ["0", "1", "4"]
