"""What the code verifier calls right and wrong, and how programs that want more than their share fare."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.rewards import code
from megatron_rl.rewards.sandbox.run import Execution, Sandbox, SandboxError
from megatron_rl.types import Verdict

CASES = [json.loads(line) for line in Path(__file__).with_name("code_cases.jsonl").read_text().splitlines()]
DOUBLE = {"tests": [{"input": "3\n", "output": "6\n"}]}
TWICE = {"function": "twice", "tests": [{"arguments": [3], "returns": 6}]}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


def judged(response: str, item: dict[str, Any], sandbox: Sandbox, seconds: float = code.SECONDS) -> Verdict:
    code.check_item(item)
    found = code.prepare(response, item)
    return found if isinstance(found, Verdict) else code.judge(found, item, sandbox, seconds)


@pytest.mark.parametrize("case", CASES, ids=[case["why"] for case in CASES])
def test_code_verdicts(case: dict[str, Any], sandbox: Sandbox) -> None:
    verdict = judged(case["response"], case["item"], sandbox, seconds=20.0)
    assert (verdict.score, verdict.outcome) == (case["score"], "judged"), f"{case['why']}: {verdict.detail}"


def test_a_program_of_many_tests_is_run_on_all_of_them(sandbox: Sandbox) -> None:
    tests = [{"input": str(n), "output": str(2 * n)} for n in range(60)]
    verdict = judged("```python\nn = int(input())\nprint(2 * n if n % 3 else 0)\n```", {"tests": tests}, sandbox, 30.0)
    assert verdict.score == pytest.approx(41 / 60)
    assert verdict.detail == "41 of 60 tests passed; test 4: another output"


def test_the_time_limit_is_for_all_tests_together(sandbox: Sandbox) -> None:
    program = "```python\nimport time\ntime.sleep(0.2)\nprint(2 * int(input()))\n```"
    tests = DOUBLE["tests"] * 5
    assert judged(program, {"tests": tests[:2]}, sandbox, seconds=0.9).score == 1.0
    verdict = judged(program, {"tests": tests}, sandbox, seconds=0.9)
    assert verdict.score == 0.0
    assert "more than 0.9 s in all" in verdict.detail


def test_an_item_can_shorten_the_time_limit_and_not_raise_it(sandbox: Sandbox) -> None:
    program = "```python\nimport time\ntime.sleep(0.5)\nprint(2 * int(input()))\n```"
    assert judged(program, DOUBLE | {"seconds": 60}, sandbox, seconds=0.2).score == 0.0
    assert judged(program, DOUBLE | {"seconds": 0.2}, sandbox, seconds=60.0).score == 0.0
    assert judged(program, DOUBLE | {"seconds": 30}, sandbox, seconds=60.0).score == 1.0


def test_a_test_can_not_influence_the_next(sandbox: Sandbox) -> None:
    program = """```python
import builtins, math, sys
n = int(input())
print(2 * n if not hasattr(builtins, "left") and math.pi > 3 else -1)
builtins.left = math.pi = 0
sys.modules["math"] = None
```"""
    tests = [{"input": str(n), "output": str(2 * n)} for n in range(1, 4)]
    assert judged(program, {"tests": tests}, sandbox).score == 1.0


@pytest.mark.parametrize(
    ("expected", "right", "wrong"),
    [
        ("2000000.0", ["2000000.0000004", "2000000"], ["2000001.0", "1999999", "2.000001e6"]),  # wrong by one
        ("1234567.25", ["1234567.250000", "1234567.26"], ["1234567", "1234567.5"]),  # rounded down
        ("1234567.333333333", ["1234567.3333", "1234567.9"], ["1234567", "1234568.0"]),
        ("1234567.89", ["1234567.890001", "1234567.88"], ["1234567.79", "1234568.89"]),  # an amount of money
        ("314159.265358979", ["314159.2653", "314159.4"], ["314160", "314159"]),
        ("2.5e+06", ["2500000", "2500000.0000001"], ["2500001", "2500010.5"]),
        ("3.0000000001", ["3", "3.0"], ["4", "2.0"]),
        ("0.001", ["0.0010009"], ["0.002", "0"]),
        ("1e+20", ["100000000000000000000", "100000000000000000000.0"], ["100000010000000000000"]),
        ("12345678901234567890123.0", ["12345678901234567890124"], ["12345679901234567890123"]),
    ],
)
def test_a_number_is_near_as_far_as_its_kind_allows(expected: str, right: list[str], wrong: list[str]) -> None:
    for found in right + wrong:
        assert code.is_same_output(f"x {found}", f"x {expected}") == (found in right), found
        assert code.is_same_value(json.loads(found), float(expected)) == (found in right), found


@pytest.mark.parametrize(
    "label", ["python:main.py", "python,linenos", 'python title="a.py"', "pypy3", "{.python}", "PY"]
)
def test_a_label_may_say_more_than_python(label: str) -> None:
    assert code.last_program(f"```{label}\nprint(1)\n```\nIt prints:\n```\n1\n```") == "print(1)"


def test_another_language_is_no_python() -> None:
    assert code.last_program("```pytest\nprint(1)\n```\n```pyret\n1\n```") is None


def test_empty_lines_around_an_output_do_not_count_and_others_do() -> None:
    assert code.is_same_output("5\n", "\n \n5\n\n")
    assert code.is_same_output("\n5", "5")
    assert not code.is_same_output("5\n6", "5\n\n6")
    assert not code.is_same_output("*\n***", " *\n***"), "a picture's first line keeps its place"


def test_a_sandbox_that_fails_is_no_verdict(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> None:
    def fail(*_: Any, **__: Any) -> Execution:
        raise SandboxError("planted")

    monkeypatch.setattr(sandbox, "run", fail)
    with pytest.raises(SandboxError, match="planted"):
        judged("```python\n1\n```", DOUBLE, sandbox)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({}, "has 'tests'"),
        ({"tests": []}, "one test or more"),
        ({"tests": "3"}, "one test or more"),
        (DOUBLE | {"hint": 1}, "has 'tests'"),
        (DOUBLE | {"seconds": 0}, "positive number"),
        (DOUBLE | {"seconds": True}, "positive number"),
        (DOUBLE | {"seconds": float("nan")}, "positive number"),
        (DOUBLE | {"function": "twice"}, "with a function has 'arguments' and 'returns'"),
        (TWICE | {"function": "a.b"}, "is a Python name"),
        (TWICE | {"function": None}, "is a Python name"),
        ({"tests": TWICE["tests"]}, "without a function has 'input' and 'output'"),
        ({"tests": [{"input": "3"}]}, "has 'input' and 'output'"),
        ({"tests": [{"input": "3", "output": 6}]}, "the output of test 1 is a text"),
        ({"tests": [{"input": ["3"], "output": "6"}]}, "the input of test 1 is a text"),
        ({"tests": [{"input": "", "output": "x" * (5 << 20)}]}, "longer than"),
        ({"tests": [{"input": "", "output": " \n"}]}, "does nothing"),
        (TWICE | {"tests": [{"arguments": 3, "returns": 6}]}, "are a list"),
        (TWICE | {"tests": [{"arguments": [3], "returns": float("inf")}]}, "not finite"),
        (TWICE | {"tests": [{"arguments": [3], "returns": None}]}, "does nothing"),
    ],
)
def test_items_that_can_not_be_meant_are_refused(item: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        code.check_item(item)


def test_a_program_that_is_too_long_is_not_run() -> None:
    verdict = code.prepare("```python\n" + "#" * 100_001 + "\n```", DOUBLE)
    assert isinstance(verdict, Verdict)
    assert verdict.score == 0.0


@pytest.mark.parametrize(
    "text", ["```" * 200_000, "```python\n" * 50_000, " " * 500_000, "```" + " " * 500_000 + "`", "\n```" * 9_999]
)
def test_any_text_is_prepared_quickly(text: str) -> None:
    began = time.process_time()
    code.prepare(text, DOUBLE)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    "found", ["1" * 4_000_000, "1" * 4_000_000 + "x", "." * 4_000_000, "1 " * 2_000_000, "\n" * 4_000_000]
)
@pytest.mark.parametrize("expected", ["1.5", "1", "x"])
def test_any_output_is_compared_quickly(found: str, expected: str) -> None:
    began = time.process_time()
    assert not code.is_same_output(found, expected)
    assert time.process_time() - began < 2.0
