"""A verdict says whether the response has an answer in the form that was asked for."""

from typing import Any

import pytest

from megatron_rl.rewards.score import VERIFIERS
from megatron_rl.types import Verdict

CODE = {"tests": [{"input": "1\n", "output": "1\n"}]}
LOGIC = {"task": "chain_sum", "entry": {"question": "1 + 1", "answer": "2", "metadata": {}}}


@pytest.mark.parametrize(
    ("domain", "item", "response"),
    [
        ("math", {"answer": "5"}, "it is 5"),
        ("math", {"answer": "5"}, "\\boxed{}"),
        ("math", {"answer": "5"}, "<think>\\boxed{5}"),
        ("stem", {"answer": "5 m"}, "<think>5 m"),
        ("code", CODE, "print(1)"),
        ("code", CODE, "```python\n```"),
        ("logic", LOGIC, "2"),
        ("logic", LOGIC, "<answer> </answer>"),
        ("instruct", {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}, " "),
    ],
)
def test_a_response_without_an_answer_is_told_from_a_wrong_one(domain: str, item: Any, response: str) -> None:
    found = VERIFIERS[domain].prepare(response, item)
    assert isinstance(found, Verdict)
    assert (found.score, found.outcome, found.is_unanswered) == (0.0, "judged", True)


@pytest.mark.parametrize("response", ["\\boxed{5}", "\\boxed{6}"])
def test_a_wrong_answer_is_an_answer(response: str) -> None:
    found = VERIFIERS["math"].prepare(response, {"answer": "5"})
    assert isinstance(found, Verdict) and not found.is_unanswered
