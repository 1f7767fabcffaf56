"""The limit of samples without a verdict holds in a round as a whole, and for each domain in a step."""

from __future__ import annotations

import pytest

from megatron_rl.rollout.verdicts import check_verifiers
from megatron_rl.types import Groups
from tests.report.records import groups

JUDGED, HALF, FAILED = [True] * 4, [True, True, False, False], [False] * 4


def of(domains: str, *judged: list[bool]) -> Groups:
    """A group of four samples for each word of `domains`, judged as said, or else wholly."""
    names = domains.split()
    rows = [*judged, *[JUDGED] * (len(names) - len(judged))]
    return groups(rewards=[[0.0] * 4] * len(names), judged=rows, domains=names)


MANY = "instruct instruct " + "math " * 40


def test_a_small_domain_that_fails_ends_the_run() -> None:
    broken = of(MANY, FAILED, FAILED)
    assert (~broken.judged).double().mean() < 0.1, "the whole round is within the limit"
    message = r"step 3: 100% of 8 samples of instruct could not be judged \(8 timeout in instruct\), more than run\.max"
    with pytest.raises(RuntimeError, match=message):
        check_verifiers([broken], 3, 0.1)
    with pytest.raises(RuntimeError, match="50% of 8 samples of instruct"):
        check_verifiers([of(MANY, HALF, HALF)], 3, 0.1)


def test_a_domain_of_one_prompt_that_fails_wholly_ends_the_run() -> None:
    with pytest.raises(RuntimeError, match="100% of 4 samples of instruct"):
        check_verifiers([of("instruct " + "math " * 40, FAILED)], 3, 0.1)


def test_a_prompt_that_nobody_can_judge_ends_nothing() -> None:
    check_verifiers([of(MANY, FAILED)], 3, 0.1)
    check_verifiers([of(MANY), of("instruct " + "math " * 40, FAILED)], 3, 0.1)


def test_a_domain_is_counted_over_the_rounds_of_a_step() -> None:
    with pytest.raises(RuntimeError, match="25% of 16 samples of instruct"):
        check_verifiers([of(MANY, HALF), of(MANY, HALF)], 3, 0.1)
    check_verifiers([of(MANY, HALF), of(MANY, HALF)], 3, 0.25)


def test_a_round_as_a_whole_is_within_the_limit_or_ends_the_run() -> None:
    check_verifiers([of("math " * 10, FAILED)], 3, 0.1)
    with pytest.raises(RuntimeError, match="11% of 36 samples could not be judged"):
        check_verifiers([of("math " * 9, FAILED)], 3, 0.1)
