"""A thought that is not closed holds no answer, in any domain, whoever has opened it: the response or its prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from megatron_rl.rewards.score import VERIFIERS, Case, Scorer

TESTS = {"tests": [{"input": "3\n", "output": "6\n"}]}
ENTRY = {"question": "?", "answer": "olleh", "metadata": {"word": "hello"}}
FOLLOWED = {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["tea"]}]}
GERMAN = {"instruction_id_list": ["language:response_language"], "kwargs": [{"language": "de"}]}
ANSWERS: list[tuple[str, str, str, dict[str, Any]]] = [  # domain, right, wrong, item
    ("math", r"So \boxed{4}.", r"So \boxed{5}.", {"answer": "4"}),
    ("math", r"So \boxed{1+x}.", r"So \boxed{2+x}.", {"answer": "x+1"}),
    ("code", "```python\nprint(2 * int(input()))\n```", "```python\nprint(0)\n```", TESTS),
    ("stem", "The answer is C.", "The answer is D.", {"answer": "C"}),
    ("stem", r"So \boxed{9.81\text{ m/s}^2}.", r"So \boxed{3\text{ m}}.", {"answer": "9.81", "unit": "m/s^2"}),
    ("logic", "<answer>olleh</answer>", "<answer>hello</answer>", {"task": "spell_backward", "entry": ENTRY}),
    ("instruct", "Some tea.", "Some milk.", FOLLOWED),
    ("instruct", "Der Hund schläft im Garten, weil die Sonne scheint.", "The dog sleeps in the garden.", GERMAN),
]
# What the model writes, with a right and a wrong answer in it, and whether it is right after a prompt that opens
# nothing, and after one that opens a thought.
SHAPES = {
    "it never thinks": ("{right}", True, False),
    "it closes a thought": ("{wrong} Hm.</think>{right}", True, True),
    "its answer is in the thought": ("{right} Hm.</think>{wrong}", False, False),
    "it opens and closes one": ("<think>{wrong}</think>{right}", True, True),
    "cut off in the thought": ("{right} But let me", True, False),
    "cut off in its own thought": ("<think>{right} But let me", False, False),
    "cut off in the closing tag": ("{right}</thin", True, False),
    "closed at its end": ("{right}</think>", False, False),
    "closed twice": ("{wrong}</think>{wrong}</think>{right}", True, True),
    "thought twice": ("{wrong}</think>{wrong}<think>{wrong}</think>{right}", True, True),
    "cut off in a second thought": ("{wrong}</think>{right}<think>{wrong}", True, True),
    "its answer is in a second thought": ("{wrong}</think>{wrong}<think>{right}", False, False),
    "opened twice and closed once": ("<think><think>{wrong}</think>{right}", True, True),
}


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    with Scorer(num_processes=1, timeout_seconds=20.0, allows_unsafe_sandbox=True) as scorer:
        yield scorer


@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_thought_holds_is_no_answer(shape: str, scorer: Scorer) -> None:
    text, *expected = SHAPES[shape]
    for opens_thought, is_right in zip((False, True), expected, strict=True):
        cases = [
            Case(domain, text.format(right=f"\n{right}\n", wrong=f"\n{wrong}\n"), item, opens_thought)
            for domain, right, wrong, item in ANSWERS
        ]
        for case, verdict in zip(cases, scorer.score(cases), strict=True):
            # Words around an answer follow no instruction to leave them out; in the other domains they do no harm.
            assert (verdict.score, verdict.outcome) == (float(is_right), "judged"), f"{case}: {verdict}"


def test_every_domain_is_here() -> None:
    assert {domain for domain, *_ in ANSWERS} == set(VERIFIERS)
