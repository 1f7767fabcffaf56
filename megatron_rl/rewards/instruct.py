"""The reward of a response to an instruction prompt: the fraction of its IFEval instructions that it follows.

The item is IFEval's own. What an instruction means is what IFEval's published checkers say, with these differences:
a mark with nothing but signs behind it does not count, nor a word without a letter or digit; a response without one
follows nothing; keywords are text, not regular expressions. Only what stands after the thinking is read.

Covered: blank responses, empty bullets, sections and placeholders, all the allowed answers at once, hidden words.
Not covered: whether the response answers the prompt at all.
Source: arXiv 2311.07911 and its published code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from megatron_rl.rewards.instructions import keywords, language, layout, length, whole
from megatron_rl.rewards.instructions.counting import RELATIONS, says_something
from megatron_rl.rewards.response import after_thinking
from megatron_rl.rewards.verdicts import judged, unanswered
from megatron_rl.types import Verdict

# Each checker takes the text and those of the item's kwargs that it names.
INSTRUCTIONS: Mapping[str, Callable[..., bool]] = {
    "keywords:existence": keywords.existence,
    "keywords:frequency": keywords.frequency,
    "keywords:forbidden_words": keywords.forbidden_words,
    "keywords:letter_frequency": keywords.letter_frequency,
    "language:response_language": language.response_language,
    "length_constraints:number_sentences": length.number_sentences,
    "length_constraints:number_paragraphs": length.number_paragraphs,
    "length_constraints:number_words": length.number_words,
    "length_constraints:nth_paragraph_first_word": length.nth_paragraph_first_word,
    "detectable_content:number_placeholders": layout.number_placeholders,
    "detectable_content:postscript": layout.postscript,
    "detectable_format:number_bullet_lists": layout.number_bullet_lists,
    "detectable_format:constrained_response": layout.constrained_response,
    "detectable_format:number_highlighted_sections": layout.number_highlighted_sections,
    "detectable_format:multiple_sections": layout.multiple_sections,
    "detectable_format:json_format": layout.json_format,
    "detectable_format:title": layout.title,
    "combination:two_responses": whole.two_responses,
    "combination:repeat_prompt": whole.repeat_prompt,
    "startend:end_checker": whole.end_checker,
    "startend:quotation": whole.quotation,
    "change_case:capital_word_frequency": whole.capital_word_frequency,
    "change_case:english_capital": whole.english_capital,
    "change_case:english_lowercase": whole.english_lowercase,
    "punctuation:no_comma": whole.no_comma,
}
NEEDS_LANGUAGE = frozenset(
    {"language:response_language", "change_case:english_capital", "change_case:english_lowercase"}
)
ARGUMENTS: Mapping[str, Sequence[str]] = {
    identifier: tuple(inspect.signature(check).parameters)[1:] for identifier, check in INSTRUCTIONS.items()
}
MODES = ("strict", "loose")

_TEXTS = ("keyword", "section_spliter", "postscript_marker", "first_word", "prompt_to_repeat", "end_phrase")


def check_item(item: Mapping[str, Any]) -> None:
    """Raises ValueError unless `item` is {"instruction_id_list": .., "kwargs": ..} as in IFEval, and perhaps "mode"."""
    if not {"instruction_id_list", "kwargs"} <= item.keys() <= {"instruction_id_list", "kwargs", "mode"}:
        raise ValueError(
            f"an instruct item has the keys 'instruction_id_list', 'kwargs' and perhaps 'mode', not {sorted(item)}; "
            "remove or rename the others"
        )
    identifiers, arguments = item["instruction_id_list"], item["kwargs"]
    if not isinstance(identifiers, list) or not identifiers:
        raise ValueError(f"instruction_id_list is a list with an instruction in it, not {identifiers!r}; drop the row")
    if not isinstance(arguments, list) or len(arguments) != len(identifiers):
        raise ValueError(f"kwargs is a list of {len(identifiers)} objects, one for each instruction; mend the row")
    if item.get("mode", "strict") not in MODES:
        raise ValueError(f"mode is {item['mode']!r}; use one of {', '.join(MODES)}")
    for identifier, given in zip(identifiers, arguments, strict=True):
        _check_instruction(identifier, given)


def verify(response: str, item: Mapping[str, Any]) -> Verdict:
    """The verdict on a response; without a time limit, so for trusted text only.

    >>> verify("<think>No, no.</think>Yes!", {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}).score
    1.0
    """
    found = prepare(response, item)
    return found if isinstance(found, Verdict) else judge(found, item)


def prepare(response: str, item: Mapping[str, Any]) -> Verdict | str:
    """The verdict where no language is asked for, else the text for `judge`; fast and safe on any text."""
    text = after_thinking(response).replace("\r\n", "\n").strip()
    if not says_something(text):
        return unanswered("the response is blank")
    return text if NEEDS_LANGUAGE.intersection(item["instruction_id_list"]) else judge(text, item)


def load() -> None:
    """Reads the letter frequencies of the languages, so that the first case is as fast as the others."""
    language.is_language("load", "en")


def judge(answer: str, item: Mapping[str, Any]) -> Verdict:
    """The fraction of the instructions that the text follows."""
    variants = _loose(answer) if item.get("mode") == "loose" else [answer]
    missed = [
        identifier
        for identifier, given in zip(item["instruction_id_list"], item["kwargs"], strict=True)
        if not any(_follows(variant, identifier, given) for variant in variants)
    ]
    num_instructions = len(item["instruction_id_list"])
    detail = f"not followed: {', '.join(missed)}" if missed else "all followed"
    return judged(1 - len(missed) / num_instructions, detail)


def _follows(text: str, identifier: str, given: Mapping[str, Any]) -> bool:
    return INSTRUCTIONS[identifier](text, **{name: given[name] for name in ARGUMENTS[identifier]})


def _loose(text: str) -> list[str]:
    """The text with and without its first line, last line and asterisks, the blank ones apart."""
    lines = text.split("\n")
    cuts = ["\n".join(kept).strip() for kept in (lines, lines[1:], lines[:-1], lines[1:-1])]
    variants = dict.fromkeys([*cuts, *(cut.replace("*", "") for cut in cuts)])
    return [variant for variant in variants if says_something(variant)]


def _check_instruction(identifier: Any, given: Any) -> None:
    if not isinstance(identifier, str) or identifier not in INSTRUCTIONS:
        nearest = get_close_matches(str(identifier), INSTRUCTIONS, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown instruction {identifier!r}; the nearest known one is '{nearest}'")
    if not isinstance(given, Mapping):
        raise ValueError(f"the kwargs of {identifier} are an object, not {given!r}; mend the row")
    values = {name: value for name, value in given.items() if value is not None}  # data sets fill up with nulls
    names = ARGUMENTS[identifier]
    if values.keys() != set(names):
        raise ValueError(f"{identifier} has the kwargs {list(names)}, not {sorted(values)}; mend or drop the row")
    for name, value in values.items():
        if rule := _broken_rule(name, value):
            raise ValueError(f"{name} of {identifier} is {value!r}; {rule}")
    if "nth_paragraph" in values and not 1 <= values["nth_paragraph"] <= values["num_paragraphs"]:
        raise ValueError(
            f"{identifier} asks for paragraph {values['nth_paragraph']} of {values['num_paragraphs']}; drop the row"
        )


def _broken_rule(name: str, value: Any) -> str:
    """What a value of that name must be, where this one is not; names mean the same in all instructions."""
    match name:
        case "keywords" | "forbidden_words":
            is_right = isinstance(value, list) and bool(value) and all(_is_text(word) for word in value)
            return "" if is_right else "give a list of texts"
        case "relation" | "let_relation" | "capital_relation":
            return "" if value in RELATIONS else f"use one of {', '.join(RELATIONS)}"
        case "language":
            nearest = get_close_matches(str(value), language.LANGUAGES, n=1, cutoff=0.0)[0]
            is_known = isinstance(value, str) and value in language.LANGUAGES
            return "" if is_known else f"not a known language code; the nearest is '{nearest}'"
        case "letter":
            return "" if _is_text(value) and len(value) == 1 else "give one character"
        case _ if name in _TEXTS:
            return "" if _is_text(value) else "give a text that is not empty"
        case _:
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            is_whole = is_whole or (isinstance(value, float) and value.is_integer())
            return "" if is_whole and value >= 0 else "give a whole number"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
