"""What the math verifier calls right, wrong, and not its business; most of it is in the table beside this file."""

from __future__ import annotations

import json
import time
from fractions import Fraction
from pathlib import Path

import pytest

from megatron_rl.rewards import math
from megatron_rl.rewards.mathematics.numbers import exact_number

TABLE = [json.loads(line) for line in Path(__file__).with_name("math_cases.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("case", TABLE, ids=[f"{number}: {case['why']}" for number, case in enumerate(TABLE, 1)])
def test_math_verdicts(case: dict) -> None:
    math.check_item(case["item"])
    verdict = math.verify(case["response"], case["item"])
    assert (verdict.score, verdict.outcome) == (case["score"], "judged"), verdict.detail


def test_the_table_has_no_case_twice_and_many_of_either_kind() -> None:
    assert len({(case["response"], json.dumps(case["item"])) for case in TABLE}) == len(TABLE) >= 500
    assert 0.4 <= sum(case["score"] == 0 for case in TABLE) / len(TABLE) <= 0.6


@pytest.mark.parametrize("case", [case for case in TABLE if case["score"] == 1][::5], ids=lambda case: case["why"])
def test_a_reference_is_right_for_itself(case: dict) -> None:
    answer = case["item"]["answer"]
    verdict = math.prepare(f"\\boxed{{{answer}}}", case["item"])
    assert not isinstance(verdict, str), "the same text needs no evaluation"
    assert verdict.score == 1.0


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("5", "7"), ("-3", "-3.0"), ("\\frac{3}{4}", "0.75"), ("(1,2)", "(1,3)"), ("\\text{yes}", "no"), ("12 cm", "12")],
)
def test_what_is_plain_needs_no_worker(answer: str, reference: str) -> None:
    assert not isinstance(math.prepare(f"\\boxed{{{answer}}}", {"answer": reference}), str)


@pytest.mark.parametrize("answer", ["x", "9^{9^{9^9}}", "\\sqrt{25}", "eval('1')"])
def test_expressions_are_left_to_a_worker(answer: str) -> None:
    assert isinstance(math.prepare(f"\\boxed{{{answer}}}", {"answer": "5"}), str)


def test_numbers_are_exact() -> None:
    assert exact_number("0.1") == Fraction(1, 10)
    assert exact_number("٣") is None, "only the digits 0-9"
    assert exact_number("1,234") == 1234
    assert exact_number("12,34") is None, "it could be a tuple"
    assert exact_number("1e5000") == 10**5000
    assert exact_number("1e999999999") is None, "it would fill the memory"
    assert exact_number("9" * 10_000) == 10**10_000 - 1


def test_a_tolerance_is_relative_and_only_where_the_item_has_one() -> None:
    item = {"answer": "2.45e6", "relative_tolerance": 0.01}
    assert math.verify("\\boxed{2.46 \\times 10^6}", item).score == 1.0
    assert math.verify("\\boxed{2.48 \\times 10^6}", item).score == 0.0
    assert math.verify("\\boxed{2.46 \\times 10^6}", {"answer": "2.45e6"}).score == 0.0
    assert math.verify("\\boxed{1.4142}", {"answer": "\\sqrt{2}", "relative_tolerance": 0.001}).score == 1.0
    assert math.verify("\\boxed{1.42}", {"answer": "\\sqrt{2}", "relative_tolerance": 0.001}).score == 0.0


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"answer": " "},
        {"answer": "$ $"},
        {"answer": 5},
        {"answer": "}"},
        {"answer": "\\frac{1}{2"},
        {"answer": "5", "hint": "x"},
        {"answer": "5", "relative_tolerance": 1},
        {"answer": "5", "relative_tolerance": -0.1},
    ],
)
def test_items_that_can_not_be_meant_are_refused(item: dict) -> None:
    with pytest.raises(ValueError, match="math item"):
        math.check_item(item)


UNUSUAL = [
    "\\ldots",
    "1+2+\\cdots+n",
    "a_1 \\ldots a_n",
    "\\begin{cases} x & x>0 \\\\ 0 & x<0 \\end{cases}",
    "5:61\\text{ p.m.}",
    "1/0",
    "\\frac{0}{0}",
    "\\log 0",
    "\\infty-\\infty",
    "\\sum_{k=1}^{n} \\frac{1}{k}",
    "\\prod_{p}\\frac{1}{1-p^{-s}}",
    "\\int e^{x^2}",
    "\\lim_{x\\to 0} f(x)",
    "\\Gamma(\\tfrac13)",
    "\\overline{AB}\\parallel\\overline{CD}",
    "\\triangle ABC",
    "A\\cup B^c",
    "p \\Rightarrow q",
    "x \\mapsto x^2",
    "\\{x \\mid x^2<y\\}",
    "[1",
    "|x",
    "a = b = c",
    "\\left(\\begin{array}{c} 1",
    "2^{10^9}",
    "?",
    "∎",
    "\\text{March } 5",
    "9" * 5_000 + "_7",
    "5^" + "1" * 5_000 + "\\text{ m}",
    "x" * 3_000,
]
ANSWERS = [
    "5",
    "x",
    "\\text{no}",
    "1,2",
    "\\{1\\}",
    "(0,1)\\cup(2,3)",
    "\\begin{pmatrix}1\\\\2\\end{pmatrix}",
    "1=2",
    "1:00",
]


@pytest.mark.parametrize("reference", UNUSUAL, ids=range(len(UNUSUAL)))
def test_what_is_a_reference_can_be_judged(reference: str) -> None:
    item = {"answer": reference}
    math.check_item(item)
    assert math.verify(f"\\boxed{{{reference}}}", item).score == 1.0
    for answer in ANSWERS:
        assert math.verify(f"\\boxed{{{answer}}}", item).score == 0.0, answer


COSTLY = [
    "\\Gamma(10^{9})",
    "\\Gamma(123456789)",
    "\\zeta(10^{8}+\\frac12 i)",
    "\\binom{10^{9}}{5\\cdot 10^{8}}",
    "\\sum_{k=1}^{10^{9}}\\frac{1}{k}",
    "\\prod_{k=1}^{99999999} k",
    "\\int_0^{10^9} e^{-x^2}\\sin(x^{9})\\,dx",
    "x+((2^{999})^{999})^{999}",
    "\\sqrt{\\sqrt{\\sqrt{\\int x^x}}}",
]


@pytest.mark.parametrize("answer", COSTLY)
@pytest.mark.parametrize("reference", ["\\sum_{k=1}^{n}\\frac{1}{k}", "\\int_0^1 x^x\\,dx", "\\pi"])
def test_an_answer_that_takes_too_long_is_wrong(answer: str, reference: str) -> None:
    start = time.process_time()
    assert math.verify(f"\\boxed{{{answer}}}", {"answer": reference}).score == 0.0
    assert time.process_time() - start < 3.0, "twice what math-verify gets"


HOSTILE = [
    "x" * 1_000_000,
    "\\boxed{" * 100_000,
    "\\boxed{1}" * 100_000,
    "{}" * 500_000 + "\\boxed{5}",
    "\\boxed{" + "{" * 10_000 + "5" + "}" * 10_000 + "}",
    "\\boxed{" + "9" * 1_000_000 + "}",
    "\\boxed{0." + "0" * 19_000 + "1}",
    "\\boxed{" + "1," * 9_000 + "1}",
    "\\boxed{" + "1,111," * 3_000 + "1}",
    "\\boxed{" + "\\text{a}" * 280 + "}",
    "\\boxed{" + "a" * 1_990 + "}",
    "\\boxed{" + "1 " * 990 + "}",
    "\\boxed{" + "\\pm 1" * 390 + "}",
    "\\boxed{" + "(1,2)," * 330 + "}",
    "\\boxed{" + "=1" * 990 + "}",
    "\\boxed{" + "-" * 1_990 + "}",
    "\\boxed{" + "\\{" * 900 + "}",
    "\\boxed{" + "½" * 1_900 + "}",
    "\\boxed{" + "√" * 1_900 + "}",
    "\\boxed{1e" + "9" * 1_000 + "}",
    "or " * 300_000 + "\\boxed{5}",
    "<think>" * 100_000 + "\\boxed{5}",
]


@pytest.mark.parametrize("response", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("reference", ["7", "x+1", "\\{1,2\\}", "\\text{no}"])
def test_hostile_text_costs_milliseconds(response: str, reference: str) -> None:
    start = time.process_time()
    found = math.prepare(response, {"answer": reference})
    if isinstance(found, str):
        found = math.judge(found, {"answer": reference})
    assert found.score == 0.0
    assert time.process_time() - start < 0.5, "CPU seconds, several times what a slow machine needs"


@pytest.mark.parametrize("answer", ["9^{9^{9^9}}", "9**9**9**9", "(10^8)!", "2^{10^{10}}", "1.1^{1.1^{1.1^{99999}}}"])
@pytest.mark.parametrize("reference", ["5", "\\sqrt{2}", "x^2", "f(x) = \\int f", "\\sum_{k=1}^{9} k^k"])
def test_towers_are_wrong_and_not_computed(answer: str, reference: str) -> None:
    start = time.process_time()
    assert math.verify(f"\\boxed{{{answer}}}", {"answer": reference}).score == 0.0
    assert time.process_time() - start < 2.0
