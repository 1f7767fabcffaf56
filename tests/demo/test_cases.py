"""The demo's stored responses get the verdicts that their names promise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron_rl.rewards.cases import check_cases, score_cases
from megatron_rl.rewards.sandbox.probe import probe
from megatron_rl.rewards.score import VERIFIERS, Scorer

CASES = Path(__file__).parents[2] / "demo" / "cases.jsonl"
SCORES = {"right": 1.0, "half": 0.5, "wrong": 0.0}


def test_every_case_gets_the_verdict_of_its_name() -> None:
    if lacking := probe().lacking:
        pytest.skip(f"programs are not run without {lacking}")
    check_cases(CASES, None)
    with Scorer(1, 5.0) as scorer:
        verdicts = [json.loads(line) for line in score_cases(CASES, scorer)]
    assert {one["id"].partition("-")[0] for one in verdicts} == set(VERIFIERS)
    for one in verdicts:
        assert (one["outcome"], one["score"]) == ("judged", SCORES[one["id"].split("-")[1]]), one
