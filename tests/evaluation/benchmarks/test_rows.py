"""Rows in the benchmarks' exact layouts become problems, and rows that are wrong are refused with their place."""

from __future__ import annotations

import base64
import dataclasses
import json
import pickle
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.commands.suites import all_benchmarks
from megatron_rl.config.checks import UserError
from megatron_rl.config.suites import Benchmark, Made, Rows
from megatron_rl.evaluation.benchmarks import livecodebench
from megatron_rl.evaluation.benchmarks.problems import READERS, rows_as_items, stored

ROWS = Path(__file__).parent / "rows"
KNOWN = all_benchmarks()
# Benchmark -> the fixture in its layout, and how many rows of it count.
FIXTURES = {
    "aime24": ("aime24.jsonl", 2),
    "aime25": ("aime25.jsonl", 2),
    "amc": ("amc.jsonl", 1),
    "math": ("math.jsonl", 2),
    "math_full": ("math_full.jsonl", 3),
    "minerva": ("minerva.jsonl", 3),
    "olympiad": ("olympiad.jsonl", 4),
    "apps": ("eurus.jsonl", 2),
    "codeforces": ("eurus.jsonl", 1),
    "taco": ("eurus.jsonl", 1),
    "humaneval_plus": ("humaneval_plus.jsonl", 3),
    "livecodebench": ("livecodebench.jsonl", 4),
    "gpqa_diamond": ("gpqa_r1.jsonl", 1),
    "gpqa_diamond_choice": ("gpqa.csv", 1),
    "ifeval": ("ifeval.jsonl", 2),
}


def rows_of(benchmark: str) -> Rows:
    source = KNOWN[benchmark].source
    assert isinstance(source, Rows)
    return source


def over(benchmark: str, file: str, num_rows: int) -> Benchmark:
    """The benchmark as if its data set held that file of this folder alone."""
    source = dataclasses.replace(rows_of(benchmark), files=(file,), num_rows=num_rows)
    return dataclasses.replace(KNOWN[benchmark], source=source)


def read(benchmark: str, file: str, num_rows: int, data: Path) -> tuple[list[dict[str, Any]], Counter[str]]:
    left_out: Counter[str] = Counter()
    return list(rows_as_items(over(benchmark, file, num_rows), data, left_out)), left_out


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of data sets, in which each has all fixtures."""
    for name in FIXTURES:
        folder = tmp_path / rows_of(name).repository
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.symlink_to(ROWS)
    return tmp_path


def test_every_layout_has_a_fixture() -> None:
    assert {rows_of(name).layout for name in FIXTURES} == READERS.keys() - {"items"}


@pytest.mark.parametrize("name", FIXTURES)
def test_published_rows_become_problems_that_their_verifier_takes(name: str, data: Path) -> None:
    file, num_rows = FIXTURES[name]
    found, left_out = read(name, file, num_rows, data)
    assert found and len(found) + left_out.total() <= num_rows
    assert all(row["domain"] in ("math", "code", "stem", "instruct") for row in found)


def items(name: str, data: Path) -> list[dict[str, Any]]:
    return [row["item"] for row in read(name, *FIXTURES[name], data)[0]]


def test_what_the_answers_are(data: Path) -> None:
    assert items("aime24", data) == [{"answer": "49"}, {"answer": "900"}]
    assert items("aime25", data) == [{"answer": "15"}, {"answer": "360"}]
    assert items("amc", data) == [{"answer": "16"}]
    assert items("math", data)[1] == {"answer": "(1, \\frac{1}{2})"}
    assert items("math_full", data) == [{"answer": "1"}, {"answer": "\\frac{1}{2}"}, {"answer": "7"}]
    assert items("minerva", data) == [
        {"answer": "4.3e34", "relative_tolerance": 0.01},
        {"answer": "2"},
        {"answer": "e^{x}"},
    ]
    assert read("minerva", "minerva_solutions.jsonl", 1, data)[0][0]["item"]["answer"] == "4.3e34"
    answers = [item["answer"] for item in items("olympiad", data)]
    assert answers == ["\\{3, -3\\}", "(1,2)", "4.2", "(0,1) \\cup (3,4]"]
    assert items("olympiad", data)[2]["relative_tolerance"] == pytest.approx(0.1 / 4.2)
    assert items("gpqa_diamond", data) == [{"answer": "Oxygen"}]
    assert items("ifeval", data)[1]["kwargs"] == [{"relation": "at least", "keyword": "sea", "frequency": 2}]


def test_the_options_of_gpqa_stand_in_one_order_and_the_letter_is_the_right_one(data: Path) -> None:
    (row,), _ = read("gpqa_diamond_choice", "gpqa.csv", 1, data)
    options, letter = row["item"]["choices"], row["item"]["answer"]
    assert options["ABCD".index(letter)] == "Oxygen" and sorted(options) == ["Argon", "Neon", "Oxygen", "Ozone"]
    assert f"{letter}) Oxygen" in row["prompt"] and 'give off by "day"?' in row["prompt"]
    assert read("gpqa_diamond_choice", "gpqa.csv", 1, data)[0] == [row]


def test_the_tests_of_programs(data: Path) -> None:
    assert items("taco", data) == [{"tests": [{"input": "3\n", "output": "6\n"}, {"input": "10\n", "output": "20\n"}]}]
    double, total = items("apps", data)
    assert double == {
        "function": "double",
        "tests": [{"arguments": [3], "returns": 6}, {"arguments": [5], "returns": 10}],
    }
    assert total == {"function": "total", "tests": [{"arguments": [[1, 2], 3], "returns": 6}]}
    assert items("codeforces", data) == [{"tests": [{"input": "1\n2", "output": "1\n2"}]}]
    prompt = read("taco", "eurus.jsonl", 1, data)[0][0]["prompt"]
    assert prompt.startswith("Read n") and "tackling" not in prompt


def test_humaneval_plus_is_parsed_and_what_it_computes_is_left_out(data: Path) -> None:
    found, left_out = read("humaneval_plus", "humaneval_plus.jsonl", 3, data)
    (row,) = found
    assert row["item"]["tests"] == [
        {"arguments": [3], "returns": 6},
        {"arguments": [10], "returns": 20},
        {"arguments": [[1, 2]], "returns": [1, 2, 1, 2]},
    ]
    assert left_out == {
        "its expected values come from a function": 1,
        "its published check fails every program": 1,
    }


def test_livecodebench_has_both_kinds_of_tests_its_window_and_its_errata(data: Path) -> None:
    found, left_out = read("livecodebench", "livecodebench.jsonl", 4, data)
    called, printed = found
    assert called["item"] == {
        "function": "double",
        "tests": [{"arguments": [3], "returns": 6}, {"arguments": [10], "returns": 20}],
    }
    assert "class Solution" in called["prompt"]
    assert printed["item"]["tests"][1] == {"input": "4\n", "output": "8\n"}
    assert left_out == {"errata: interactive": 1}


class Planted:
    """What a hostile pickle would do when it is loaded."""

    def __reduce__(self) -> Any:
        return (Path("/tmp/megatron_rl_was_unpickled").touch, ())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("length", [3, 300, 200_000])
def test_a_pickled_text_is_read_from_its_opcodes(protocol: int, length: int) -> None:
    assert livecodebench.pickled_text(pickle.dumps("ä" * length, protocol=protocol)) == "ä" * length


@pytest.mark.parametrize(
    "pickled",
    [pickle.dumps(Planted()), pickle.dumps(["a"]), pickle.dumps(("a", "b")), pickle.dumps("a")[:-1], b"", b"\xff\x00"],
)
def test_any_other_pickle_is_refused_and_not_loaded(pickled: bytes) -> None:
    with pytest.raises(ValueError, match="column 'private_test_cases' is"):
        livecodebench.pickled_text(pickled)
    assert not Path("/tmp/megatron_rl_was_unpickled").exists()


def test_tests_that_unpack_to_too_much_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livecodebench, "MAX_UNPACKED_BYTES", 1000)
    packed = base64.b64encode(zlib.compress(pickle.dumps("x" * 2000))).decode()
    with pytest.raises(livecodebench.LeftOut, match="private tests of more than"):
        livecodebench.private_tests(packed)


def without(column: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda row: {key: value for key, value in row.items() if key != column}


def with_value(column: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda row: row | {column: value}


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("aime24", without("answer"), "column 'answer' is missing"),
        ("aime24", with_value("answer", "4.5"), "have a whole number there"),
        ("aime24", with_value("answer", "1000"), "lie in 0 to 999"),
        ("aime24", with_value("problem", " "), "have a text there"),
        ("aime24", with_value("problem", 3), "have a text there"),
        ("amc", with_value("answer", 16.5), "have a whole number there"),
        ("amc", with_value("answer", True), "have a whole number there"),
        ("math", with_value("answer", ""), "have a text there"),
        ("math", with_value("answer", "\\frac{1"), "braces that do not close"),
        ("math_full", with_value("solution", "It is 7."), "has no \\boxed{}"),
        ("math_full", with_value("solution", "It is $\\boxed{7$."), "does not close"),
        ("minerva", without("answer"), "column 'answer' is missing"),
        ("olympiad", with_value("final_answer", ["1", "2"]), "a list of one text"),
        ("apps", with_value("prompt", "text"), "have messages"),
        ("apps", with_value("reward_model", {"ground_truth": "{"}), "is no JSON"),
        ("apps", with_value("reward_model", {"ground_truth": '{"inputs": ["1"], "outputs": []}'}), "of one length"),
        ("apps", with_value("reward_model", {"ground_truth": '{"inputs": [1], "outputs": [2]}'}), "or a list of lines"),
        ("humaneval_plus", with_value("test", "def check(:"), "is no Python"),
        ("humaneval_plus", with_value("test", "inputs = [[1]]\nresults = []"), "1 inputs and 0 results"),
        ("livecodebench", with_value("metadata", "{}"), "need its func_name"),
        ("livecodebench", with_value("private_test_cases", "!!"), "neither JSON nor packed"),
        ("livecodebench", with_value("public_test_cases", '[{"input": "3"}]'), "have input, output and testtype"),
        ("livecodebench", with_value("contest_date", None), "have an ISO date there"),
        ("gpqa_diamond", without("correct_answer"), "column 'correct_answer' is missing"),
        ("ifeval", with_value("instruction_id_list", ["punctuation:no_commas"]), "punctuation:no_comma"),
        ("ifeval", with_value("kwargs", {}), "have a list there"),
    ],
)
def test_a_row_that_is_wrong_is_refused_with_its_place(
    name: str, spoil: Callable[[dict[str, Any]], dict[str, Any]], said: str, tmp_path: Path
) -> None:
    file, _ = FIXTURES[name]
    rows = [json.loads(line) for line in (ROWS / file).read_text().splitlines()]
    source = rows_of(name)
    first = next(row for row in rows if not source.subset or row["data_source"] == source.subset)
    folder = tmp_path / source.repository
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text(json.dumps(spoil(first)) + "\n")
    with pytest.raises(UserError) as error:
        read(name, "rows.jsonl", 1, tmp_path)
    assert said in str(error.value) and "rows.jsonl:1: " in str(error.value)


def test_another_number_of_rows_is_another_data_set(data: Path) -> None:
    with pytest.raises(UserError, match="holds 2 rows, the published revision .* has 30; fetch that one"):
        read("aime24", "aime24.jsonl", 30, data)


def test_a_row_that_comes_twice_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / rows_of("amc").repository
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text((ROWS / "amc.jsonl").read_text() * 2)
    with pytest.raises(UserError, match="rows.jsonl:2: id '0' has been there before"):
        read("amc", "rows.jsonl", 2, tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / rows_of("amc").repository).mkdir(parents=True)
    with pytest.raises(UserError, match="AI-MO/aimo-validation-amc holds none of rows.jsonl"):
        read("amc", "rows.jsonl", 1, tmp_path)


def test_what_was_read_is_stored_and_not_read_again(data: Path, tmp_path: Path) -> None:
    benchmark = over("humaneval_plus", "humaneval_plus.jsonl", 3)
    first = stored(benchmark, tmp_path / "problems", data)
    again = stored(benchmark, tmp_path / "problems", tmp_path / "nowhere")
    assert again == first and sum(first.left_out.values()) == 2
    other = over("humaneval_plus", "humaneval_plus.jsonl", 4)
    with pytest.raises(UserError, match=r"is of another source \(num_rows: 3 -> 4\); evaluate into another --to"):
        stored(other, tmp_path / "problems", data)


@pytest.mark.e2e
def test_tasks_that_print_while_they_are_made_give_their_problems(tmp_path: Path) -> None:
    benchmark = KNOWN["gym_code"]
    assert isinstance(benchmark.source, Made)
    few = dataclasses.replace(benchmark, source=dataclasses.replace(benchmark.source, num_per_task=3))
    assert Counter(item.item["task"] for item in stored(few, tmp_path, None).items) == {"bf": 3, "codeio": 3}
