"""No response is too long, too deep or too odd: the trainer's own part is fast on anything, and nothing raises."""

from __future__ import annotations

import time
from typing import Any

import pytest

from megatron_rl.rewards.score import VERIFIERS, Case, Scorer

ENTRY = {"question": "hello", "answer": "olleh", "metadata": {"word": "hello"}}
FOLLOWED = {
    "length_constraints:number_sentences": {"num_sentences": 9, "relation": "at least"},
    "detectable_format:number_highlighted_sections": {"num_highlights": 9},
    "keywords:existence": {"keywords": ["olleh"]},
    "startend:quotation": {},
}
ITEMS: list[tuple[str, dict[str, Any]]] = [
    ("math", {"answer": "x+1"}),
    ("code", {"tests": [{"input": "", "output": "6\n"}]}),
    ("stem", {"answer": "B"}),
    ("stem", {"answer": "photosynthesis"}),
    ("stem", {"answer": "9.81", "unit": "m/s^2"}),
    ("logic", {"task": "spell_backward", "entry": ENTRY}),
    ("instruct", {"instruction_id_list": list(FOLLOWED), "kwargs": list(FOLLOWED.values())}),
]
SIZE = 100_000
TEXTS = {
    "letters": "a" * SIZE,
    "digits": "1" * SIZE,
    "lines": "\n" * SIZE,
    "bullets": "-\n" * (SIZE // 2),
    "stops": "." * SIZE + "}",
    "lonely stops": ". " * (SIZE // 8),
    "spaces": " " * SIZE + "x",
    "brackets": "(" * SIZE,
    "open boxes": "\\boxed{" * 10_000,
    "boxes": "\\boxed{1}" * 10_000,
    "fractions": "\\frac{" * 10_000,
    "thinking": "<think>" * 10_000,
    "fences": "```python\n" * 10_000,
    "program": "x = 1\n" * 20_000,
    "half a character": "\ud800",
    "zero": "\0" * 1000,
    "answers": "The answer is " * 10_000,
}
WRAPS = ("{}", "\\boxed{{{}}}", "<answer>{}</answer>", "```python\n{}\n```", "The answer is {}")


@pytest.mark.parametrize("text", TEXTS)
def test_the_trainers_part_is_fast_on_any_text(text: str) -> None:
    for wrap in WRAPS:
        for domain, item in ITEMS:
            began = time.process_time()
            VERIFIERS[domain].prepare(wrap.format(TEXTS[text]), item)
            assert time.process_time() - began < 1.0, f"{domain} {item}, {wrap}"


def test_any_text_has_a_verdict_and_earns_nothing() -> None:
    cases = [
        Case(domain, wrap.format(text), item) for text in TEXTS.values() for wrap in WRAPS for domain, item in ITEMS
    ]
    with Scorer(num_processes=1, timeout_seconds=20.0, allows_unsafe_sandbox=True) as scorer:
        verdicts = scorer.score(cases)
    for (domain, text, *_), verdict in zip(cases, verdicts, strict=True):
        assert verdict.outcome == "judged", f"{domain} {text[:40]!r}: {verdict}"
        assert verdict.score <= (0.5 if domain == "instruct" else 0.0), f"{domain} {text[:40]!r}: {verdict}"
