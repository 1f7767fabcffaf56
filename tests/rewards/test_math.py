"""What the math verifier calls right, wrong, and not its business."""

from __future__ import annotations

from fractions import Fraction

import pytest

from megatron_rl.rewards import math

TABLE = [  # response, reference answer, score, why
    (r"\boxed{5}", "5", 1.0, "the plain case"),
    (r"<think>\boxed{4}</think>so \boxed{5}", "5", 1.0, "what is thought does not count"),
    (r"<think>\boxed{5}</think>so 5", "5", 0.0, "the answer stands only in the thinking"),
    (r"<think>\boxed{5}", "5", 0.0, "the thinking never ended"),
    (r"a</think>b</think>\boxed{5}", "5", 1.0, "the last end of thinking counts"),
    (r"\boxed{1} no, \boxed{5}", "5", 1.0, "the last box counts"),
    (r"\boxed{5} no, \boxed{1}", "5", 0.0, "the last box counts, also when an earlier one was right"),
    ("5", "5", 0.0, "no box"),
    ("", "5", 0.0, "an empty response"),
    (r"\boxed{}", "5", 0.0, "an empty box"),
    (r"\boxed{ 5 }", "5", 1.0, "spaces"),
    (r"\boxed{5", "5", 0.0, "a box cut off"),
    (r"\boxed {5}", "5", 1.0, "LaTeX allows a space before the brace"),
    (r"\boxed{5.0}", "5", 1.0, "the same value as a decimal"),
    (r"\boxed{\frac{1}{2}}", "0.5", 1.0, "the same value as a fraction"),
    (r"\boxed{2/4}", r"\frac12", 1.0, "a fraction not reduced"),
    (r"\boxed{-\dfrac{1}{2}}", "-0.50", 1.0, "a negative fraction"),
    (r"\boxed{0.333}", r"\frac{1}{3}", 0.0, "near is not equal"),
    (r"\boxed{7.0005}", "7", 0.0, "near is not equal"),
    (r"\boxed{10000000000000000000001}", "10000000000000000000000", 0.0, "a difference that floats lose"),
    (r"\boxed{1/0}", "5", 0.0, "a division by zero"),
    (r"\boxed{1+x}", "x+1", 1.0, "expressions by value"),
    (r"\boxed{\sqrt{8}}", r"2\sqrt{2}", 1.0, "expressions by value"),
    (r"\boxed{\{2,1\}}", r"\{1,2\}", 1.0, "a set has no order, and escaped braces do not close the box"),
    (r"\boxed{(2,1)}", "(1,2)", 0.0, "a tuple has one"),
    (r"\boxed{" + "1" * 301 + "}", "1" * 301, 0.0, "too long to be judged"),
    (r"\boxed{" + "(" * 9 + "5" + ")" * 9 + "}", "5", 0.0, "too deep to be judged"),
    (r"\boxed{__import__('os').system('false')}", "0", 0.0, "text that would be code elsewhere"),
]


@pytest.mark.parametrize(("response", "answer", "score", "why"), TABLE, ids=[row[3] for row in TABLE])
def test_math_verdicts(response: str, answer: str, score: float, why: str) -> None:
    verdict = math.verify(response, {"answer": answer})
    assert (verdict.score, verdict.outcome) == (score, "judged"), f"{why}: {verdict.detail}"


@pytest.mark.parametrize("answer", ["5", "-3", "0.25", r"\frac{3}{4}", "1/3"])
def test_plain_numbers_need_no_worker(answer: str) -> None:
    for boxed in (answer, "7"):
        assert not isinstance(math.prepare(f"\\boxed{{{boxed}}}", {"answer": answer}), str)


@pytest.mark.parametrize("response", [r"\boxed{x}", r"\boxed{9^{9^{9^9}}}", r"\boxed{eval('1')}"])
def test_everything_else_is_left_to_a_worker(response: str) -> None:
    assert isinstance(math.prepare(response, {"answer": "5"}), str)


def test_numbers_are_exact() -> None:
    assert math.exact_number("0.1") == Fraction(1, 10)
    assert math.exact_number("٣") is None, "only the digits 0-9"
    assert math.exact_number("1,234") is None, "it could be a tuple"


@pytest.mark.parametrize("item", [{}, {"answer": " "}, {"answer": 5}, {"answer": "5", "hint": "x"}])
def test_items_that_can_not_be_meant_are_refused(item: dict) -> None:
    with pytest.raises(ValueError, match="math item"):
        math.check_item(item)


def test_an_unreadable_reference_is_an_error_and_no_wrong_answer() -> None:
    with pytest.raises(ValueError, match="can not be read"):
        math.judge("5", {"answer": "}"})
