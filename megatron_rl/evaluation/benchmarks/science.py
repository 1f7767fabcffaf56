"""Rows of GPQA: open-ended as the papers' subset is, and with its four options in a fixed order."""

from __future__ import annotations

import hashlib
from typing import Any

from megatron_rl.evaluation.benchmarks.columns import Row, text

OPEN_INSTRUCTION = "\n\nLet's think step by step and output the final answer within \\boxed{}."
LETTER_INSTRUCTION = (
    "Answer the following multiple choice question. Think step by step, and put the letter of your answer within "
    "\\boxed{}.\n\n"
)
OPTIONS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def gpqa_r1(row: Row, number: int) -> dict[str, Any]:
    """`record_id`, `question`, `correct_answer` as a text; there are no wrong options."""
    answer = text(row, "correct_answer").strip()
    prompt = text(row, "question").strip() + OPEN_INSTRUCTION
    return {"id": text(row, "record_id"), "domain": "stem", "prompt": prompt, "item": {"answer": answer}}


def gpqa(row: Row, number: int) -> dict[str, Any]:
    """`Record ID`, `Question`, `Correct Answer` and three wrong ones, which are ordered by a hash of id and text."""
    identifier = text(row, "Record ID")
    right, *wrong = (text(row, column).strip() for column in OPTIONS)
    options = sorted([right, *wrong], key=lambda option: hashlib.sha256(f"{identifier}/{option}".encode()).digest())
    if len(set(options)) != len(OPTIONS):
        raise ValueError(f"record {identifier} has two equal options; the published rows have four different ones")
    letters = [chr(ord("A") + place) for place in range(len(options))]
    listed = "\n".join(f"{letter}) {option}" for letter, option in zip(letters, options, strict=True))
    return {
        "id": identifier,
        "domain": "stem",
        "prompt": f"{LETTER_INSTRUCTION}{text(row, 'Question').strip()}\n\n{listed}",
        "item": {"answer": letters[options.index(right)], "choices": options},
    }
