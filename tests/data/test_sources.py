"""Rows in every layout that a source was published in: read, or left out by a rule with a reason."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from megatron_rl.config.mixture import Source
from megatron_rl.data.drafts import LeftOut
from megatron_rl.data.sources import read_draft
from megatron_rl.rewards.score import VERIFIERS
from recipes.mixtures.prorl import FENCED, MIXTURE

SOURCES = {source.name: source for source in MIXTURE.sources}
RULES = MIXTURE.rules
TRUTH = {"inputs": ["3\n"], "outputs": ["6\n"]}
TESTS = {"tests": [{"input": "3\n", "output": "6\n"}]}
EURUS = {
    "data_source": "taco",
    "ability": "code",
    "prompt": [{"content": "Think.", "role": "system"}, {"content": "Double n." + FENCED, "role": "user"}],
    "reward_model": {"ground_truth": json.dumps(TRUTH), "style": "rule"},
    "extra_info": {"index": 0, "split": "dummy"},
}
SCP_1 = {
    "domain": "Physics",
    "problem": "A 2 kg cart speeds up at 3 m/s^2. What force acts on it?",
    "matched_solution": "By Newton $F = 6$ N.",
    "o1_solution": "So $\\boxed{6 \\text{ N}}$",
    "is_o1_solution_same_with_matched_solution": True,
    "qwq_solution": "So $\\boxed{5}$",
    "is_qwq_solution_same_with_matched_solution": False,
}
SCP_2 = {
    "domain": "Physics",
    "problem": "A 2 kg cart speeds up at 3 m/s^2. What force acts on it?",
    "extract_solution": "By Newton's second law $F = ma = 6\\ \\mathrm{N}$.",
    "r1_response": "... $\\boxed{6\\ \\text{N}}$",
    "r1_reasoning_content": "We need it.",
}
NEMOTRON = {
    "input": [{"role": "user", "content": "Describe a lake."}],
    "args": {
        "instruction_id_list": ["length_constraints:number_sentences", "keywords:existence"],
        "instruction_kwargs": [
            {"relation": "at least", "num_sentences": 3, "keywords": None},
            {"keywords": ["mirror"], "relation": None, "num_sentences": None},
        ],
        "task": "instruction_following",
        "num_instructions": 2,
    },
    "category": "instruction_following",
}
SENTENCES = {"relation": "at least", "num_sentences": 3}
GPQA = {
    "Question": "Which gas do plants give off by day?",
    "Correct Answer": "Oxygen",
    "Incorrect Answer 1": "Argon",
    "Incorrect Answer 2": "Neon",
    "Incorrect Answer 3": "Ozone",
    "Record ID": "rec0",
}
DAPO = {
    "data_source": "math_dapo",
    "prompt": [
        {
            "content": "Solve the following math problem step by step. The last line of your response should be of the "
            "form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\nHow many primes are "
            'below 20?\n\nRemember to put your answer on its own line after "Answer:".',
            "role": "user",
        }
    ],
    "reward_model": {"ground_truth": "8", "style": "rule-lighteval/MATH_v2"},
}


def source(name: str, **changes: Any) -> Source:
    return replace(SOURCES[name], **changes)


@pytest.mark.parametrize(
    ("where", "row", "problem", "item"),
    [
        (source("deepscaler"), {"problem": "2+3?", "answer": " 5 ", "solution": ""}, "2+3?", {"answer": "5"}),
        (source("deepscaler"), {"problem": "2+3?", "answer": 5, "solution": ""}, "2+3?", {"answer": "5"}),
        (source("eurus"), EURUS, "Double n.", TESTS),
        (source("eurus"), EURUS | {"prompt": json.dumps(EURUS["prompt"])}, "Double n.", TESTS),
        (source("eurus"), EURUS | {"reward_model": {"ground_truth": TRUTH}}, "Double n.", TESTS),
        (
            source("eurus"),
            {"id": 1, "task": "Coding", "source": "taco", "instruction": "Double n.", "reference": json.dumps(TRUTH)},
            "Double n.",
            TESTS,
        ),
        (
            source("eurus", domain="math"),
            EURUS
            | {
                "ability": "math",
                "prompt": [
                    {
                        "role": "user",
                        "content": "2+3?\n\nPresent the answer in LaTex format: \\boxed{Your answer}",
                    }
                ],
                "reward_model": {"ground_truth": "5"},
            },
            "2+3?",
            {"answer": "5"},
        ),
        (source("scp"), SCP_1, SCP_1["problem"], {"answer": "6 \\text{ N}"}),
        (source("scp"), SCP_2, SCP_2["problem"], {"answer": "6\\ \\text{N}"}),
        (
            source("nemotron"),
            NEMOTRON,
            "Describe a lake.",
            {
                "instruction_id_list": NEMOTRON["args"]["instruction_id_list"],
                "kwargs": [SENTENCES, {"keywords": ["mirror"]}],
            },
        ),
        (
            source("ifeval"),
            {"key": 9, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
            "No commas.",
            {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        ),
        (  # of Nemotron-RL-instruction_following
            source("ifeval"),
            {
                "id": 1,
                "prompt": "No commas.",
                "instruction_id_list": ["punctuation:no_comma"],
                "kwargs": [None],
                "grading_mode": "binary",
                "responses_create_params": {},
            },
            "No commas.",
            {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        ),
        (
            source("aime_2024"),
            {"id": 61, "problem": "7^10?", "answer": "049", "solution": "", "url": "", "year": "2024"},
            "7^10?",
            {"answer": "49"},
        ),
        (source("aime_2024"), {"problem_idx": 1, "problem": "7^10?", "answer": 49}, "7^10?", {"answer": "49"}),
        (source("aime_2024"), {"id": 0, "problem": "11^4?", "answer": 16.0, "url": ""}, "11^4?", {"answer": "16"}),
        (source("aime_2024"), {"ID": "1", "Problem": "x?", "Solution": "", "Answer": 4}, "x?", {"answer": "4"}),
        (
            source("gpqa_diamond"),
            {"record_id": "r", "question": "Which gas?", "correct_answer": "Oxygen", "metadata": {}},
            "Which gas?",
            {"answer": "Oxygen"},
        ),
        (source("deepscaler", reader="dapo"), DAPO, "How many primes are below 20?", {"answer": "8"}),
        (
            source("deepscaler", reader="dapo"),
            DAPO | {"prompt": "[2] is a list. 2+6?", "solution": "8"},
            "[2] is a list. 2+6?",
            {"answer": "8"},
        ),
        (
            source("scp", reader="goose"),
            {"question": "Which text fits?", "options": ["6 N", "5 N", "2 N"], "answer": "A"},
            "Which text fits?\n\nA. 6 N\nB. 5 N\nC. 2 N",
            {"answer": "A", "choices": ["6 N", "5 N", "2 N"]},
        ),
        (
            source("deepscaler", reader="items"),
            {"id": "a", "domain": "math", "prompt": "2+3?", "item": {"answer": "5"}},
            "2+3?",
            {"answer": "5"},
        ),
    ],
)
def test_a_row_of_every_layout_becomes_an_item(
    where: Source, row: dict[str, Any], problem: str, item: dict[str, Any]
) -> None:
    draft = read_draft(row, where, RULES)
    assert (draft.problem, draft.item) == (problem, item)
    VERIFIERS[where.domain].check_item(draft.item)


@pytest.mark.parametrize(
    ("where", "row", "rule"),
    [
        ("deepscaler", [1], "malformed"),
        ("deepscaler", {"problem": "2+3?"}, "malformed"),
        ("deepscaler", {"problem": "", "answer": "5"}, "malformed"),
        ("deepscaler", {"problem": None, "answer": "5"}, "malformed"),
        ("deepscaler", {"problem": "2+3?", "answer": ""}, "no_answer"),
        ("deepscaler", {"problem": "2+3?", "answer": None}, "no_answer"),
        ("deepscaler", {"problem": "2+3?", "answer": ["5"]}, "malformed"),
        ("eurus", EURUS | {"ability": "math"}, "other_part"),
        ("eurus", EURUS | {"prompt": []}, "malformed"),
        ("eurus", EURUS | {"prompt": [{"role": "user", "content": FENCED}]}, "malformed"),
        ("eurus", EURUS | {"prompt": [{"role": "assistant", "content": "Yes"}]}, "malformed"),
        ("eurus", EURUS | {"reward_model": {"ground_truth": None}}, "no_answer"),
        ("eurus", EURUS | {"reward_model": None}, "malformed"),
        ("eurus", EURUS | {"prompt": [{"role": "user", "content": "This is an interactive problem."}]}, "interactive"),
        ("codeforces", EURUS, "other_part"),
        ("scp", SCP_1 | {"is_o1_solution_same_with_matched_solution": False}, "disagreement"),
        ("scp", SCP_1 | {"o1_solution": "So 6 N."}, "no_short_answer"),
        ("scp", SCP_2 | {"extract_solution": None}, "no_answer"),
        ("scp", SCP_2 | {"extract_solution": " \n"}, "no_answer"),
        ("scp", SCP_2 | {"r1_response": "It is 6 N."}, "no_short_answer"),
        ("scp", SCP_2 | {"r1_response": None}, "no_short_answer"),
        ("scp", SCP_2 | {"problem": "(a) What is F? (b) What is W?"}, "several_questions"),
        ("scp", SCP_2 | {"problem": "Prove that F = ma."}, "no_short_answer"),
        ("scp", {"domain": "Physics", "problem": "F?"}, "malformed"),
        ("nemotron", NEMOTRON | {"args": None}, "malformed"),
        ("nemotron", NEMOTRON | {"args": {"instruction_id_list": ["a"], "instruction_kwargs": []}}, "malformed"),
        ("nemotron", NEMOTRON | {"category": "math"}, "other_part"),
        ("ifeval", {"prompt": "x", "instruction_id_list": "a", "kwargs": [{}]}, "malformed"),
        ("aime_2024", {"problem": "x?", "answer": 1.5}, "malformed"),
        ("gpqa_diamond", GPQA | {"Incorrect Answer 1": " Oxygen"}, "several_outputs"),
        ("gpqa_diamond", {"Question": "x?"}, "malformed"),
    ],
)
def test_a_row_that_becomes_no_item_is_left_out_by_a_rule(where: str, row: Any, rule: str) -> None:
    with pytest.raises(LeftOut) as left_out:
        read_draft(row, SOURCES[where], RULES)
    assert left_out.value.rule == rule and left_out.value.reason


def test_the_options_of_gpqa_are_in_an_order_that_follows_from_the_row() -> None:
    draft = read_draft(GPQA, SOURCES["gpqa_diamond"], RULES)
    choices, letter = draft.item["choices"], draft.item["answer"]
    assert choices["ABCD".index(letter)] == "Oxygen" and sorted(choices) == ["Argon", "Neon", "Oxygen", "Ozone"]
    assert read_draft(dict(reversed(GPQA.items())), SOURCES["gpqa_diamond"], RULES) == draft
    letters = {
        read_draft(GPQA | {"Record ID": f"rec{n}"}, SOURCES["gpqa_diamond"], RULES).item["answer"] for n in range(40)
    }
    assert letters == set("ABCD")


@pytest.mark.parametrize(
    ("name", "given", "mapped"),
    [
        ("detectable_format:quotation", None, ("startend:quotation", {})),
        (
            "keywords:frequency",
            {"keywords": ["tea"], "frequency": 2, "relation": "at least"},
            ("keywords:frequency", {"keyword": "tea", "frequency": 2, "relation": "at least"}),
        ),
        (
            "change_case:capital_word_frequency",
            {"frequency": 2, "relation": "at least"},
            ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}),
        ),
        ("combination:repeat_prompt", {}, ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."})),
        (
            "detectable_format:constrained_response",
            {"options": ["yes", "no"]},
            ("detectable_format:constrained_response", {}),
        ),
    ],
)
def test_other_names_of_instructions_are_mapped_where_that_is_sure(
    name: str, given: Any, mapped: tuple[str, dict[str, Any]]
) -> None:
    arguments = {"instruction_id_list": [name], "instruction_kwargs": [given]}
    row = NEMOTRON | {"input": [{"role": "user", "content": "Say it."}], "args": arguments}
    item = read_draft(row, SOURCES["nemotron"], RULES).item
    assert (item["instruction_id_list"][0], item["kwargs"][0]) == mapped
    VERIFIERS["instruct"].check_item(item)
