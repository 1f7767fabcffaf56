"""Rows of the sets that the published mixtures were made of: read, or left out by a rule with a reason."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from megatron_rl.config.mixture import Reader
from megatron_rl.data.drafts import LeftOut
from megatron_rl.data.sources import read_draft
from megatron_rl.rewards.score import VERIFIERS
from recipes.mixtures.prorl import MIXTURE

MATH, CODE = MIXTURE.train[:2]
RULES = MIXTURE.rules
TESTS = {"tests": [{"input": "3\n", "output": "6\n"}]}
PROGRAM = "print(2*int(input()))"
FENCED = f"```python\n{PROGRAM}\n```"
HENDRYCKS = {
    "problem": "Compute $\\frac{3}{4}+\\frac{1}{4}$.",
    "level": "Level 1",
    "type": "Prealgebra",
    "solution": "It is not \\boxed{2}: the sum is $\\boxed 1$.",
}
OLYMPIAD = {
    "id": 9001,
    "context": None,
    "question": "Find all real $x$ with $x^2=9$.",
    "solution": ["..."],
    "final_answer": ["$3$,$-3$"],
    "is_multiple_answer": True,
    "unit": None,
    "answer_type": "Numerical",
    "error": None,
}
APPS = {
    "id": 7777,
    "question": "Read n, print 2n.",
    "solutions": json.dumps([PROGRAM]),
    "input_output": json.dumps({"inputs": ["3\n"], "outputs": ["6\n"]}),
    "difficulty": "introductory",
    "url": "",
    "starter_code": "",
}
CALLED = APPS | {
    "question": "Return the double of n.",
    "input_output": json.dumps({"fn_name": "double", "inputs": [[3]], "outputs": [[6]]}),
    "starter_code": "def double(n):\n",
}
CONTEST = {
    "name": "9999_A. Double",
    "description": "Read n, print 2n.",
    "public_tests": {"input": ["3\n"], "output": ["6\n"]},
    "private_tests": {"input": [], "output": []},
    "generated_tests": {"input": ["3\n"], "output": ["6\n"]},
    "input_file": "",
    "output_file": "",
}
SUBMISSION = {
    "contestId": 99999,
    "index": "A",
    "problem-description": "Read n, print 2n.",
    "input-specification": "One integer.",
    "output-specification": "One integer.",
    "test_cases": [{"input": "3\n", "output": "6\n"}, {"input": "1 2 3...", "output": "6"}],
    "verdict": "OK",
    "programmingLanguage": "Python 3",
    "code": PROGRAM,
}
LIVECODEBENCH = {"question_title": "Double", "question_content": "Return twice n.", "public_test_cases": "[]"}
HUMANEVAL = {"task_id": "HumanEval/9", "prompt": "def f():", "test": "", "entry_point": "f"}


@pytest.mark.parametrize(
    ("reader", "row", "problem", "item", "proof"),
    [
        ("math", HENDRYCKS, HENDRYCKS["problem"], {"answer": "1"}, "\\boxed{1}"),
        ("math", HENDRYCKS | {"answer": "1", "unique_id": "a"}, HENDRYCKS["problem"], {"answer": "1"}, "\\boxed{1}"),
        ("math", {"question": "Mass?", "answer": "4.5e33"}, "Mass?", {"answer": "4.5e33"}, "\\boxed{4.5e33}"),
        (
            "math",
            {"problem": "L?", "solution": "Hence $L=\\fbox{4.3e34}$.", "type": "Astronomy", "idx": 5},
            "L?",
            {"answer": "4.3e34"},
            "\\boxed{4.3e34}",
        ),
        ("olympiad", OLYMPIAD, OLYMPIAD["question"], {"answer": "\\{3, -3\\}"}, "\\boxed{\\{3, -3\\}}"),
        (
            "olympiad",
            OLYMPIAD | {"final_answer": ["$(3,4)$"], "is_multiple_answer": False, "modality": "Text-only"},
            OLYMPIAD["question"],
            {"answer": "(3,4)"},
            "\\boxed{(3,4)}",
        ),
        ("apps", APPS, "Read n, print 2n.", TESTS, FENCED),
        ("apps", APPS | {"solutions": ""}, "Read n, print 2n.", TESTS, None),
        ("apps", APPS | {"source": "codeforces", "raw_tags": "[]", "solutions": "no"}, APPS["question"], TESTS, None),
        (
            "apps",
            CALLED | {"source": "geeksforgeeks"},
            "Return the double of n.\n\nStart from this:\n```python\ndef double(n):\n```",
            {"function": "double", "tests": [{"arguments": [3], "returns": 6}]},
            FENCED,
        ),
        ("codecontests", CONTEST, "Read n, print 2n.", TESTS, None),
        ("codecontests", CONTEST | {"private_tests": None}, "Read n, print 2n.", TESTS, None),
        (
            "codeforces",
            SUBMISSION,
            "Read n, print 2n.\n\nInput\n\nOne integer.\n\nOutput\n\nOne integer.",
            TESTS,
            FENCED,
        ),
        (
            "codeforces",
            SUBMISSION | {"verdict": "WRONG_ANSWER", "input-specification": None, "output-specification": ""},
            "Read n, print 2n.",
            TESTS,
            None,
        ),
    ],
)
def test_a_row_of_every_layout_becomes_an_item(
    reader: Reader, row: dict[str, Any], problem: str, item: dict[str, Any], proof: str | None
) -> None:
    source = replace(MATH if reader in ("math", "olympiad") else CODE, reader=reader)
    draft = read_draft(row, source, RULES)
    assert (draft.problem, draft.item, draft.proof) == (problem, item, proof)
    VERIFIERS[source.domain].check_item(draft.item)
    assert draft.tests_left_out == (reader == "codeforces")


@pytest.mark.parametrize(
    ("reader", "row", "rule"),
    [
        ("math", HENDRYCKS | {"solution": "It is 1."}, "no_short_answer"),
        ("math", HENDRYCKS | {"solution": "It is \\boxed{1."}, "no_short_answer"),
        ("math", {"question": "Mass?", "answer": ""}, "no_answer"),
        ("math", {"question": "Mass?", "answer": ["4.5\n"]}, "malformed"),
        ("olympiad", OLYMPIAD | {"final_answer": None}, "malformed"),
        ("olympiad", OLYMPIAD | {"error": "1e-1"}, "several_outputs"),
        ("olympiad", OLYMPIAD | {"modality": "Multimodal"}, "malformed"),
        ("apps", APPS | {"input_output": ""}, "no_answer"),
        ("apps", APPS | {"input_output": '{"inputs": [' + "9" * 5000 + '], "outputs": [""]}'}, "malformed"),
        ("apps", APPS | {"source": "geeksforgeeks"}, "refused"),
        ("codecontests", CONTEST | {"input_file": "in.txt"}, "interactive"),
        ("codecontests", CONTEST | {"description": "See <image>."}, "malformed"),
        ("codecontests", CONTEST | {"public_tests": {"input": ["3\n"]}}, "malformed"),
        ("codecontests", CONTEST | {"public_tests": None, "generated_tests": None}, "no_answer"),
        ("codeforces", SUBMISSION | {"test_cases": None}, "malformed"),
        ("codeforces", SUBMISSION | {"test_cases": [{"input": "1...", "output": "2"}]}, "tests_too_large"),
        ("codeforces", SUBMISSION | {"problem-description": "Print any of them."}, "several_outputs"),
        ("apps", LIVECODEBENCH, "malformed"),
        ("apps", HUMANEVAL, "malformed"),
        ("eurus", LIVECODEBENCH, "malformed"),
        ("eurus", HUMANEVAL, "malformed"),
    ],
)
def test_a_row_that_becomes_no_item_is_left_out_by_a_rule(reader: Reader, row: dict[str, Any], rule: str) -> None:
    source = replace(MATH if reader in ("math", "olympiad") else CODE, reader=reader)
    with pytest.raises(LeftOut) as left_out:
        read_draft(row, source, RULES)
    assert left_out.value.rule == rule and left_out.value.reason
