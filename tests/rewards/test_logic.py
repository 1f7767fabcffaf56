"""What the logic verifier calls right and wrong, for every task of reasoning-gym, and that it executes nothing.

logic_entries.jsonl holds three stored entries per task; logic_cases.jsonl responses to them, with the score and why.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.data.logic_tasks import stored_answer
from megatron_rl.rewards import logic, published
from megatron_rl.rewards.puzzles import values
from megatron_rl.rewards.puzzles.tasks import TASKS

FOLDER = Path(__file__).parent
CASES = [json.loads(line) for line in (FOLDER / "logic_cases.jsonl").read_text(encoding="utf-8").splitlines()]
ENTRIES: dict[str, list[dict[str, Any]]] = defaultdict(list)
for row in map(json.loads, (FOLDER / "logic_entries.jsonl").read_text(encoding="utf-8").splitlines()):
    ENTRIES[row["task"]].append(row)
EXECUTES = re.compile(r"(?<!re\.)\b(eval|exec|compile|parse_expr|sympify)\(")

HOSTILE = {
    "code": "__import__('os').system('touch stolen')",
    "code in a list": "[().__class__.__base__.__subclasses__()]",
    "a tower of powers": "9**9**9**9",
    "a LaTeX tower": "9^{9^{9^9}}",
    "open brackets": "(" * 4000,
    "nested brackets": "(" * 2000 + "1" + ")" * 2000,
    "nested lists": "[" * 2000 + "]" * 2000,
    "nested objects": '{"a":' * 660 + "1" + "}" * 660,
    "signs": "+-" * 1999 + "1",
    "negations": "¬" * 3999 + "P",
    "digits": "9" * 4000,
    "an exponent": "1e999999999",
    "not a number": "nan",
    "infinity": "-inf",
    "a division by zero": "(1)/(0)",
    "commas": "1," * 1999 + "1",
    "quotes": '"' * 3999 + "'",
    "white space": " \n\t" * 1300 + "x",
    "boxes": "\\boxed{" * 570,
    "a null byte": "\0",
    "half a character": "\ud800",
    "moves": "R U " * 999,
    "text": "no idea, sorry",
    "100 kB": "x" * 100_000,
}


def tagged(answer: str) -> str:
    return f"<answer>{answer}</answer>"


def references() -> Iterator[tuple[Mapping[str, Any], str]]:
    for task in sorted(ENTRIES):
        for item in ENTRIES[task]:
            answer = stored_answer(item)
            if answer is not None:
                yield item, answer


@pytest.mark.parametrize("case", CASES, ids=[f"{case['item']}: {case['why']}" for case in CASES])
def test_logic_verdicts(case: Mapping[str, Any]) -> None:
    task, number = case["item"].split("/")
    verdict = logic.verify(case["response"], ENTRIES[task][int(number)])
    assert verdict.score == pytest.approx(case["score"])
    assert verdict.outcome == "judged"


def test_every_task_of_reasoning_gym_is_either_accepted_or_refused_with_a_reason() -> None:
    from reasoning_gym.factory import DATASETS

    assert set(DATASETS) == logic.ACCEPTED | set(logic.REFUSED)
    assert not logic.ACCEPTED & set(logic.REFUSED)
    assert all(task.why for task in TASKS.values())


def test_a_task_that_executes_anything_shares_no_sandbox() -> None:
    from reasoning_gym.factory import DATASETS

    executing = {
        name
        for name, (dataset, _) in DATASETS.items()
        if EXECUTES.search(inspect.getsource(sys.modules[dataset.__module__]))
    }
    assert "countdown" in executing and executing <= published.ALONE
    assert {name for name in DATASETS if published.sharing({"task": name}) == 1} == published.ALONE


def test_every_accepted_task_has_three_entries_that_are_read() -> None:
    assert {task: len(items) for task, items in ENTRIES.items()} == dict.fromkeys(logic.ACCEPTED, 3)
    for items in ENTRIES.values():
        for item in items:
            logic.check_item(item)


def test_a_reference_answer_is_right() -> None:
    wrong = [item["task"] for item, answer in references() if logic.verify(tagged(answer), item).score != 1.0]
    assert wrong == []


@pytest.mark.parametrize("wrapping", ["```\n{}\n```", "\n\n  {} \n", "**{}**", "`{}`", "{}.", "\\boxed{{{}}}"])
def test_a_reference_answer_is_right_in_its_wrapping(wrapping: str) -> None:
    wrong = [
        item["task"]
        for item, answer in references()
        if logic.verify(tagged(wrapping.format(answer)), item).score != 1.0
    ]
    assert wrong == []


@pytest.mark.parametrize("padding", ["The answer is {}", "{} or not", "maybe {}, maybe nothing", "{0}\n\n{0}\n\n{0}"])
def test_a_right_answer_among_other_text_is_wrong(padding: str) -> None:
    paid = [item["task"] for item, answer in references() if logic.verify(tagged(padding.format(answer)), item).score]
    assert paid == []


def test_a_question_repeated_is_wrong() -> None:
    paid = [
        task for task, items in ENTRIES.items() if logic.verify(tagged(items[0]["entry"]["question"]), items[0]).score
    ]
    assert paid == []


def test_an_answer_of_another_entry_is_wrong_unless_it_solves_this_one_too() -> None:
    solutions_in_common = {"graph_color", "propositional_logic", "tower_of_hanoi"}
    paid = {
        task
        for task, (first, second, _) in ENTRIES.items()
        if (answer := stored_answer(second)) is not None and answer != stored_answer(first)
        if logic.verify(tagged(answer), first).score
    }
    assert paid <= solutions_in_common


@pytest.mark.parametrize("task", sorted(logic.ACCEPTED))
def test_hostile_answers_earn_nothing_and_cost_little(task: str) -> None:
    item = ENTRIES[task][0]
    for name, answer in HOSTILE.items():
        started = time.process_time()
        assert logic.verify(tagged(answer), item).score == 0.0, name
        assert time.process_time() - started < 0.5, name


def test_no_answer_is_executed_and_nothing_is_opened_or_imported() -> None:
    forbidden = {"exec", "compile", "import", "open", "os.system", "subprocess.Popen", "socket.connect"}
    seen: list[str] = []
    is_watching = True

    def watch(event: str, _: Any) -> None:
        if is_watching and event in forbidden:
            seen.append(event)

    logic.load()
    items = [items[0] for items in ENTRIES.values()]
    for item in items:
        logic.verify(tagged("1"), item)  # a regular expression is compiled at its first use
    sys.addaudithook(watch)
    for item in items:
        for answer in (HOSTILE["code"], HOSTILE["code in a list"], "eval('1')", stored_answer(item) or "1"):
            logic.verify(tagged(answer), item)
    is_watching = False
    assert seen == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "composite"}, "refused"),
        ({"task": "spell_backwards"}, "not one of reasoning-gym's"),
        ({"task": 3}, "is a name"),
        ({"entry": {}}, "has the keys"),
        ({"entry": ENTRIES["spell_backward"][0]["entry"] | {"answer": None}}, "is a text"),
        ({"entry": ENTRIES["ab"][0]["entry"] | {"answer": " "}}, "is a text"),
        ({"entry": ENTRIES["spell_backward"][0]["entry"] | {"metadata": None}}, "is an object"),
        ({"more": 1}, "has the keys"),
    ],
)
def test_items_that_can_not_be_meant_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        logic.check_item(ENTRIES["spell_backward"][0] | change)


def test_a_task_without_a_scorer_is_not_judged() -> None:
    with pytest.raises(ValueError, match="not accepted"):
        logic.judge("1", ENTRIES["gcd"][0] | {"task": "composite"})


@pytest.mark.parametrize(("reference", "right"), [("Infinity", "Infinity"), ("[1.5, -Infinity]", "[1.5,-Infinity]")])
def test_no_number_is_near_infinity(reference: str, right: str) -> None:
    entry = {"answer": reference}
    assert values.same_json(right, entry) == 1.0
    for wrong in ("5", "[1.5, 5.0]", "1e308", "NaN", "[1.5, Infinity]"):
        assert values.same_json(wrong, entry) == 0.0
