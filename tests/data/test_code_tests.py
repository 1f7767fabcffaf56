"""Tests of code problems: every published writing of them, and the problems whose words make them unfit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from megatron_rl.data.code_tests import check_statement, item_of
from megatron_rl.data.drafts import LeftOut
from megatron_rl.rewards import code
from recipes.mixtures.prorl import MIXTURE

RULES = MIXTURE.rules


@pytest.mark.parametrize(
    ("truth", "item"),
    [
        ({"inputs": ["3\n"], "outputs": ["6\n"]}, {"tests": [{"input": "3\n", "output": "6\n"}]}),
        ({"inputs": [["3", "4"]], "outputs": [["6", "8"]]}, {"tests": [{"input": "3\n4", "output": "6\n8"}]}),
        ({"inputs": ["3\r\n"], "outputs": ["6\r\n"]}, {"tests": [{"input": "3\n", "output": "6\n"}]}),
        (
            {"fn_name": "f", "inputs": ['"a"\n[1, 2]'], "outputs": ["[3]"]},
            {"function": "f", "tests": [{"arguments": ["a", [1, 2]], "returns": [3]}]},
        ),
        (
            {"fn_name": "f", "inputs": [[0], [1]], "outputs": [[5], [6]]},
            {"function": "f", "tests": [{"arguments": [0], "returns": 5}, {"arguments": [1], "returns": 6}]},
        ),
        (
            {"fn_name": "f", "inputs": [[0], [1]], "outputs": [[5], [6, 7]]},
            {"function": "f", "tests": [{"arguments": [0], "returns": [5]}, {"arguments": [1], "returns": [6, 7]}]},
        ),
    ],
)
def test_every_published_writing_of_tests_is_read(truth: dict[str, Any], item: dict[str, Any]) -> None:
    for given in (truth, json.dumps(truth)):
        assert item_of(given, RULES) == (item, 0)
    code.check_item(item)


@pytest.mark.parametrize(
    ("truth", "rule"),
    [
        (None, "no_answer"),
        ("", "no_answer"),
        ({"inputs": [], "outputs": []}, "no_answer"),
        ("{", "malformed"),
        ("[1]", "malformed"),
        ({"inputs": ["1"], "outputs": []}, "malformed"),
        ({"inputs": [3], "outputs": ["6"]}, "malformed"),
        ({"fn_name": "f g", "inputs": ["1"], "outputs": ["1"]}, "malformed"),
        ({"fn_name": "f", "inputs": ["(1, 2)"], "outputs": ["1"]}, "malformed"),
        ({"fn_name": "f", "inputs": [[1], "1"], "outputs": [[1], "1"]}, "malformed"),
        ({"fn_name": "f", "inputs": ["9" * 5000], "outputs": ["1"]}, "malformed"),
        ({"inputs": ["1", "1"], "outputs": ["2", "3"]}, "several_outputs"),
        ({"inputs": ["1" * (5 << 20)], "outputs": ["2"]}, "tests_too_large"),
    ],
)
def test_tests_that_cannot_be_meant_are_left_out_by_rule(truth: Any, rule: str) -> None:
    with pytest.raises(LeftOut) as left_out:
        item_of(truth, RULES)
    assert left_out.value.rule == rule


def test_large_tests_are_left_out_of_a_problem_and_counted_and_the_others_keep_their_order() -> None:
    truth = {"inputs": ["22", "x" * 2000, "1", "333"], "outputs": ["b", "c", "a", "d"]}
    item, left_out = item_of(truth, replace(RULES, max_test_bytes=1000))
    assert [test["output"] for test in item["tests"]] == ["b", "a", "d"] and left_out == 1
    item, left_out = item_of(truth, replace(RULES, max_tests=2))
    assert [test["output"] for test in item["tests"]] == ["b", "a"] and left_out == 2


def test_an_equal_test_is_kept_once() -> None:
    item, left_out = item_of({"inputs": ["1", "1"], "outputs": ["2", "2"]}, RULES)
    assert len(item["tests"]) == 1 and left_out == 0


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ("If there are multiple answers, print any of them.", "several_outputs"),
        ("If there are several possible solutions you may output any.", "several_outputs"),
        ("You can print any valid permutation.", "several_outputs"),
        ("Any of them will be accepted.", "several_outputs"),
        ("You may return the answer in any order.", "several_outputs"),
        ("This is an interactive problem.", "interactive"),
        ("Do not forget to flush the output.", "interactive"),
        ("Read n from the file input.txt.", "interactive"),
        ("Print the number of days that any of them is at work.", None),
        ("The numbers are given in any order. Print their sum.", None),
    ],
)
def test_words_that_make_a_problem_unfit_are_found(words: str, rule: str | None) -> None:
    if rule is None:
        check_statement(words)
        return
    with pytest.raises(LeftOut) as left_out:
        check_statement(words)
    assert left_out.value.rule == rule
