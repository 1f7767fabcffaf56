"""What the instruct verifier calls followed and not, item by item of instruct_cases.jsonl, and how it fails."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_rl.rewards import instruct
from megatron_rl.rewards.instructions import language

CASES = [
    json.loads(line)
    for line in Path(__file__).with_name("instruct_cases.jsonl").read_text(encoding="utf-8").splitlines()
]
ARGUMENTS = {  # one item per instruction, met by nothing below
    "keywords:existence": {"keywords": ["zebra"]},
    "keywords:frequency": {"keyword": "zebra", "frequency": 3, "relation": "at least"},
    "keywords:forbidden_words": {"forbidden_words": ["aa", "[["]},
    "keywords:letter_frequency": {"letter": "#", "let_frequency": 3, "let_relation": "at least"},
    "language:response_language": {"language": "fi"},
    "length_constraints:number_sentences": {"num_sentences": 3, "relation": "at least"},
    "length_constraints:number_paragraphs": {"num_paragraphs": 3},
    "length_constraints:number_words": {"num_words": 3, "relation": "less than"},
    "length_constraints:nth_paragraph_first_word": {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "zebra"},
    "detectable_content:number_placeholders": {"num_placeholders": 3},
    "detectable_content:postscript": {"postscript_marker": "P.P.S"},
    "detectable_format:number_bullet_lists": {"num_bullets": 3},
    "detectable_format:number_highlighted_sections": {"num_highlights": 3},
    "detectable_format:multiple_sections": {"section_spliter": "Section", "num_sections": 3},
    "combination:repeat_prompt": {"prompt_to_repeat": "Say it."},
    "startend:end_checker": {"end_phrase": "The end."},
    "change_case:capital_word_frequency": {"capital_frequency": 3, "capital_relation": "at least"},
}
EVERY_INSTRUCTION = {
    "instruction_id_list": list(instruct.INSTRUCTIONS),
    "kwargs": [ARGUMENTS.get(identifier, {}) for identifier in instruct.INSTRUCTIONS],
}


@pytest.mark.parametrize("case", CASES, ids=[f"{case['why']}: {case['response'][:30]}" for case in CASES])
def test_instruct_verdicts(case: dict) -> None:
    instruct.check_item(case["item"])
    verdict = instruct.verify(case["response"], case["item"])
    assert (verdict.score, verdict.outcome) == (case["score"], "judged"), verdict.detail


def test_the_cases_cover_every_instruction_both_followed_and_not() -> None:
    assert len(instruct.INSTRUCTIONS) == 25
    for followed in (True, False):
        single = [case["item"]["instruction_id_list"] for case in CASES if (case["score"] == 1) is followed]
        assert {names[0] for names in single if len(names) == 1} == set(instruct.INSTRUCTIONS)


def test_the_verdict_names_what_was_not_followed() -> None:
    item = {"instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}]}
    assert instruct.verify("no", item).detail == "not followed: startend:quotation"


def test_only_questions_of_language_are_left_to_a_worker() -> None:
    for identifier in instruct.INSTRUCTIONS:
        item = {"instruction_id_list": [identifier], "kwargs": [ARGUMENTS.get(identifier, {})]}
        assert isinstance(instruct.prepare("some text", item), str) == (identifier in instruct.NEEDS_LANGUAGE)
        assert not isinstance(instruct.prepare(" ", item), str), "a blank response is plain"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({}, "has the keys"),
        ({"instruction_id_list": [], "kwargs": []}, "a list with an instruction in it"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "a list of 1 objects"),
        (
            {"instruction_id_list": ["punctuation:no_commas"], "kwargs": [{}]},
            "nearest known one is 'punctuation:no_comma'",
        ),
        ({"instruction_id_list": [7], "kwargs": [{}]}, "unknown instruction 7"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [None]}, "are an object"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"relation": "at least"}]}, "has the kwargs"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}], "mode": "lax"}, "use one of strict, loose"),
        ({"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": None}]}, "has the kwargs"),
        ({"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": "cat"}]}, "a list of texts"),
        ({"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": [" "]}]}, "a list of texts"),
        ({"instruction_id_list": ["language:response_language"], "kwargs": [{"language": "german"}]}, "nearest is"),
        ({"instruction_id_list": ["startend:end_checker"], "kwargs": [{"end_phrase": " "}]}, "not empty"),
        ({"instruction_id_list": ["detectable_format:number_bullet_lists"], "kwargs": [{"num_bullets": 1.5}]}, "whole"),
        ({"instruction_id_list": ["detectable_format:number_bullet_lists"], "kwargs": [{"num_bullets": -1}]}, "whole"),
    ],
)
def test_items_that_can_not_be_meant_are_refused(item: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instruct.check_item(item)


@pytest.mark.parametrize(
    ("identifier", "change", "message"),
    [
        ("keywords:letter_frequency", {"letter": "ab"}, "one character"),
        ("keywords:frequency", {"relation": "at most"}, "use one of less than, at least"),
        ("length_constraints:nth_paragraph_first_word", {"nth_paragraph": 4}, "paragraph 4 of 3"),
    ],
)
def test_arguments_that_can_not_be_meant_are_refused(identifier: str, change: dict, message: str) -> None:
    item = {"instruction_id_list": [identifier], "kwargs": [ARGUMENTS[identifier] | change]}
    with pytest.raises(ValueError, match=message):
        instruct.check_item(item)


def test_a_language_is_detected_the_same_way_whatever_was_asked_before() -> None:
    texts = ["hoy es domingo ok", "hello world", "Jag heter Anna.", "hi there", "Mi piace la pizza.", "no"]
    questions = [(text, code) for text in texts for code in ("en", "es", "sv", "it", "nl", "pt")]
    once = {question: language.response_language(*question) for question in questions}
    for _ in range(5):
        random.shuffle(questions)
        assert {question: language.response_language(*question) for question in questions} == once


def test_the_known_languages_are_those_of_langdetect() -> None:
    instruct.load()
    assert set(language._profiles().names) | {"zh"} == language.LANGUAGES


REPEATED = """
    a * - [ ] << > # . a. " ' *a [a A.B. P.S p.p. - 1. a@ http:// a- A' 漢 <<>> {"a": [[ ``` ****** Dr. ... ?! _ ( A, B
"""
LINES = [" ", "\n", ". ", "* *", "***\n", "Section 1 ", "\n\n", "\n \n", "- \n", "1. ", "\u200b", "\u0300", "*\n"]
HOSTILE = REPEATED.split() + LINES


@pytest.mark.parametrize("piece", HOSTILE)
def test_long_repetitions_of_anything_are_judged_in_linear_time(piece: str) -> None:
    instruct.load()
    started = time.process_time()
    instruct.verify(piece * (50_000 // len(piece)), EVERY_INSTRUCTION)
    assert time.process_time() - started < 2, "about 0.1 s; quadratic time would be a minute"


def test_a_megabyte_of_everything_is_judged_in_linear_time() -> None:
    instruct.load()
    text = "".join(piece * 1_000 for piece in HOSTILE) + "word " * 160_000
    started = time.process_time()
    instruct.verify(text, EVERY_INSTRUCTION)
    assert len(text) > 900_000 and time.process_time() - started < 10, "about 2 s"


def test_typical_responses_are_judged_at_500_a_second() -> None:
    instruct.load()
    response = "The quick brown fox jumps over the lazy dog. It is *not* amused, and says so.\n\n" * 15
    items = [
        {"instruction_id_list": [one, two], "kwargs": [ARGUMENTS.get(one, {}), ARGUMENTS.get(two, {})]}
        for one in instruct.INSTRUCTIONS
        for two in instruct.INSTRUCTIONS
    ]
    started = time.process_time()
    for item in items:
        instruct.verify(response, item)
    assert len(items) / (time.process_time() - started) > 500


def test_importing_the_verifier_imports_nothing_heavy() -> None:
    program = "import sys, megatron_rl.rewards.instruct; print({'langdetect', 'numpy', 'torch'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"
