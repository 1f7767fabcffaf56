"""What the stem verifier calls right and wrong, case by case and item by item, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest

from megatron_rl.rewards import stem
from megatron_rl.rewards.mathematics.units import unit
from megatron_rl.rewards.science.measures import agree, quantity

CASES = [
    json.loads(line) for line in Path(__file__).with_name("stem_cases.jsonl").read_text(encoding="utf-8").splitlines()
]
GROUPS = [  # responses to one item each: those that are right, and those that are wrong
    json.loads(line) for line in Path(__file__).with_name("stem_groups.jsonl").read_text(encoding="utf-8").splitlines()
]
ITEMS = [
    {"answer": "B"},
    {"answer": "B", "choices": ["10 m", "20 m", "the cell", "H_2O"]},
    {"answer": "9.81", "unit": "m/s^2", "relative_tolerance": 0.01},
    {"answer": "H2SO4"},
    {"answer": "x^2"},
]


@pytest.mark.parametrize("case", CASES, ids=[f"{case['why']}: {case['response'][:30]}" for case in CASES])
def test_stem_verdicts(case: dict) -> None:
    stem.check_item(case["item"])
    verdict = stem.verify(case["response"], case["item"])
    assert (verdict.score, verdict.outcome) == (case["score"], "judged"), verdict.detail


@pytest.mark.parametrize("group", GROUPS, ids=[str(group["item"]["answer"]) for group in GROUPS])
def test_right_and_wrong_responses_to_an_item(group: dict) -> None:
    stem.check_item(group["item"])
    verdicts = {
        kind: {response: stem.verify(response, group["item"]).score for response in group[kind]}
        for kind in ("right", "wrong")
    }
    refused = [response for response, score in verdicts["right"].items() if score != 1]
    paid = [response for response, score in verdicts["wrong"].items() if score != 0]
    assert not refused and not paid, (refused, paid)


@pytest.mark.parametrize("item", ITEMS[:4])
def test_letters_quantities_and_words_need_no_worker(item: dict) -> None:
    for response in ("", "B", r"\boxed{9.7 m/s^2}", r"\boxed{x^2}", "The answer is HCl."):
        assert not isinstance(stem.prepare(response, item), str)


def test_formulas_are_left_to_a_worker() -> None:
    assert stem.prepare(r"\boxed{x \cdot x}", {"answer": "x^2"}) == r"x \cdot x"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({}, "has the key 'answer'"),
        ({"answer": "5", "hint": "x"}, "rename them"),
        ({"answer": 5}, "is a text"),
        ({"answer": " - "}, "is a text"),
        ({"answer": "5", "unit": ""}, "unit of a stem item"),
        ({"answer": "red", "unit": "m"}, "is no number"),
        ({"answer": "red", "relative_tolerance": 0.1}, "is no number"),
        ({"answer": "5", "relative_tolerance": 1.5}, "from 0 to below 1"),
        ({"answer": "5", "relative_tolerance": "1%"}, "from 0 to below 1"),
        ({"answer": "B", "choices": ["one"]}, "2 to 26 texts"),
        ({"answer": "B", "choices": ["one", ""]}, "2 to 26 texts"),
        ({"answer": "B", "choices": {"1": "one", "2": "two"}}, "one letter each"),
        ({"answer": "E", "choices": ["one", "two"]}, "none of the choices"),
        ({"answer": "three", "choices": ["one", "two"]}, "none of the choices"),
        ({"answer": "B", "choices": ["1", "2"], "unit": "m"}, "neither 'unit'"),
    ],
)
def test_items_that_can_not_be_meant_are_refused(item: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stem.check_item(item)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("N", "kg m/s^2"),
        ("J", "N·m"),
        ("Pa", "N/m^2"),
        ("V", "J/C"),
        ("Ω", "V/A"),
        ("F", "C/V"),
        ("Wb", "V s"),
        ("T", "Wb/m^2"),
        ("H", "Wb/A"),
        ("W", "joules per second"),
        ("M", "mol/L"),
        ("kWh", "3.6 MJ"),
        ("eV", "1.602176634e-19 J"),
        ("atm", "760 torr"),
        ("L", "cubic decimeters"),
        ("hectares", "10000 square meters"),
        ("km/h", "kph"),
        ("°C", "degrees Celsius"),
        ("J/mol K", "J mol^{-1} K^{-1}"),
    ],
)
def test_units_are_worth_what_they_are_defined_as(one: str, other: str) -> None:
    mine, its = quantity(f"1 {one}"), quantity(other) or quantity(f"1 {other}")
    assert mine is not None and its is not None
    assert agree(mine, its, Fraction(0)) and agree(its, mine, Fraction(0))


@pytest.mark.parametrize("text", ["apples", "x", "m^99", "", "/", "m^", "5", "("])
def test_what_is_no_unit_is_none(text: str) -> None:
    assert unit(text) is None


REPEATED = r"""
    a * ( { } 1 1, 1/ 10^ - \ \text{ \frac{ \boxed{ \boxed{1} 。 ½ ² H2O a: A) B answer Answer: <think> x= m/s ^\circ
"""
LINES = [" ", "\n", "A ", "B\n", "answer is ", "Answer: A\n", "the answer ", "is correct ", "**Answer**\n", "so ", "1 "]


@pytest.mark.parametrize("piece", REPEATED.split() + LINES)
def test_a_megabyte_of_anything_is_prepared_in_linear_time(piece: str) -> None:
    repeated = piece * (1_000_000 // len(piece))
    started = time.process_time()
    for item in ITEMS:
        for text in (repeated, f"The answer is {repeated}", f"\\boxed{{{repeated[:290]}}}"):
            stem.prepare(text, item)
    assert time.process_time() - started < 5, "about 0.3 s; quadratic time would be hours"


def test_importing_the_verifier_imports_nothing_heavy() -> None:
    program = (
        "import sys, megatron_rl.rewards.stem; print({'sympy', 'math_verify', 'numpy', 'torch'} & sys.modules.keys())"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"
