r"""The reward of a science answer: one option of a multiple-choice question, or a short answer, right or wrong.

The answer is the last `\boxed{...}` after the thinking; without a box, what the response states last as its answer.
Options are compared by letter or text, quantities by number and unit, words by wording, formulas by math-verify.

Covered: several letters or values at once, letters in prose, other units, near values.
Not covered: synonyms; a right answer with an explanation in the same box.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction
from typing import Any

from megatron_rl.rewards import math
from megatron_rl.rewards.mathematics.boxes import boxed_answer
from megatron_rl.rewards.mathematics.expressions import UnreadableError, read_expression
from megatron_rl.rewards.response import after_thinking
from megatron_rl.rewards.science.choices import option_of_last_line, stated_option
from megatron_rl.rewards.science.measures import Quantity, agree, leeway, quantity, with_unit
from megatron_rl.rewards.science.remarks import last_of_equal, without_remarks
from megatron_rl.rewards.science.statements import sentences, statements
from megatron_rl.rewards.science.wording import is_symbolic, same_words
from megatron_rl.rewards.verdicts import right, unanswered, wrong
from megatron_rl.types import Verdict

MAX_ANSWER_CHARACTERS = 300
MAX_STATEMENT_CHARACTERS = 10_000  # an answer in words is looked for in the end of a response

_KEYS = ("answer", "choices", "unit", "relative_tolerance")
_LETTER = re.compile(r"\(?([A-J])\)?\.?")


def check_item(item: Mapping[str, Any]) -> None:
    """Raises ValueError unless `item` has an "answer", and "choices", or "unit" and "relative_tolerance", if any."""
    if "answer" not in item or not item.keys() <= set(_KEYS):
        raise ValueError(f"a stem item has the key 'answer' and perhaps {_KEYS[1:]}, not {sorted(item)}; rename them")
    answer = item["answer"]
    if not isinstance(answer, str) or not any(character.isalnum() for character in answer):
        raise ValueError(f"the answer of a stem item is a text, not {answer!r}; drop the row or mend it")
    if "choices" in item:
        _check_choices(item)
        return
    if "unit" in item and not (isinstance(item["unit"], str) and item["unit"].strip()):
        raise ValueError(f"the unit of a stem item is a text, not {item['unit']!r}; remove the key")
    tolerance = item.get("relative_tolerance", 0)
    if not isinstance(tolerance, int | float) or isinstance(tolerance, bool) or not 0 <= tolerance < 1:
        raise ValueError(f"relative_tolerance is {tolerance!r}; give a number from 0 to below 1")
    if ("unit" in item or tolerance) and _reference(item) is None:
        raise ValueError(f"the answer {answer!r} has a unit or a tolerance but is no number; write it as one")


def verify(response: str, item: Mapping[str, Any]) -> Verdict:
    """The verdict on a response; without a time limit, so for trusted text only.

    >>> verify("It is hot. **Answer: (B)**", {"answer": "B"}).score
    1.0
    """
    found = prepare(response, item)
    return found if isinstance(found, Verdict) else judge(found, item)


def prepare(response: str, item: Mapping[str, Any]) -> Verdict | str:
    """The verdict where it is plain, else the formula for `judge`; fast and safe on any text."""
    text = after_thinking(response).strip()
    boxed, problem = boxed_answer(text)
    if boxed is None and ("\\boxed" in text or "\\fbox" in text):
        return unanswered(problem)
    text = text[-MAX_STATEMENT_CHARACTERS:]
    answers = statements(text) if boxed is None else [boxed]
    if any(len(answer) > MAX_ANSWER_CHARACTERS for answer in answers):
        return wrong(f"the answer has more than {MAX_ANSWER_CHARACTERS} characters")
    if is_multiple_choice(item):
        return _chosen(text, answers[0] if answers else None, boxed is not None, item)
    if not any(answer.strip() for answer in answers):
        return unanswered("no answer after the thinking")
    reference = _reference(item)
    if reference is not None:
        found = [
            quantity(text) for answer in answers for text in (answer, without_remarks(answer), last_of_equal(answer))
        ]
        if any(value is not None and agree(value, reference, _tolerance(item)) for value in found):
            return right()
        if found[-1] is not None or "unit" in item:
            return wrong("another quantity")
    elif not is_symbolic(item["answer"]):
        return right() if any(same_words(answer, item["answer"]) for answer in answers) else wrong("other words")
    return math.prepare(f"\\boxed{{{answers[-1]}}}", _formula_item(item))


def load() -> None:
    """Imports what `judge` needs and builds its parser, so that the first case is as fast as the others."""
    math.load()


def judge(answer: str, item: Mapping[str, Any]) -> Verdict:
    """The verdict on a formula in plain form; may never return."""
    reference = _reference(item)
    if reference is not None and (distance := leeway(reference, _tolerance(item))):
        from megatron_rl.rewards.mathematics.values import is_within

        with suppress(UnreadableError):
            is_near = is_within(read_expression(answer), reference.number, distance)
            return right() if is_near else wrong("another value")
    return math.judge(answer, _formula_item(item))


def is_multiple_choice(item: Mapping[str, Any]) -> bool:
    """Whether the item has choices, or a letter from A to J for its answer."""
    return "choices" in item or _LETTER.fullmatch(item["answer"].strip()) is not None


def _tolerance(item: Mapping[str, Any]) -> Fraction:
    return Fraction(str(item.get("relative_tolerance", 0)))


def _formula_item(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item[key] for key in ("answer", "relative_tolerance") if key in item}


def _options(item: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the choices by letter, in capitals; empty where the item has none."""
    choices = item.get("choices", {})
    if isinstance(choices, list):
        return {chr(ord("A") + index): text for index, text in enumerate(choices)}
    return {label.strip("(). ").upper(): text for label, text in choices.items()}


def _chosen(text: str, answer: str | None, is_boxed: bool, item: Mapping[str, Any]) -> Verdict:
    options = _options(item)
    label = None if answer is None else stated_option([answer] if is_boxed else sentences(answer), options, _is_same)
    if answer is None or label is None and not is_boxed and "\n" not in text:
        label = option_of_last_line(text, options, _is_same)
    if label is None:
        return wrong("no single option is chosen")
    return right() if label == _right_label(item, options) else wrong(f"chooses {label}")


def _right_label(item: Mapping[str, Any], options: Mapping[str, str]) -> str | None:
    answer = item["answer"].strip()
    letter = _LETTER.fullmatch(answer.upper())
    if letter and (not options or letter[1] in options):
        return letter[1]
    same = [label for label, text in options.items() if text.strip() == answer]
    return same[0] if len(same) == 1 else None


def _is_same(answer: str, reference: str) -> bool:
    mine, its = quantity(answer), quantity(reference)
    if mine is not None and its is not None:
        return agree(mine, its, Fraction(0))
    return same_words(answer, reference)


def _reference(item: Mapping[str, Any]) -> Quantity | None:
    reference = quantity(item["answer"])
    if reference is None and "unit" in item:  # a multiple of pi is a number with a unit, and else a formula
        return quantity(f"{item['answer']} {item['unit']}")
    return with_unit(reference, item["unit"]) if reference and "unit" in item else reference


def _check_choices(item: Mapping[str, Any]) -> None:
    choices = item["choices"]
    texts = choices if isinstance(choices, list) else list(choices.values()) if isinstance(choices, Mapping) else []
    if not 2 <= len(texts) <= 26 or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f"choices are 2 to 26 texts, in a list or by letter, not {choices!r}; mend or drop the row")
    options = _options(item)
    if not all(len(label) == 1 and label.isalpha() for label in options) or len(options) != len(texts):
        raise ValueError(f"choices have one letter each, not {sorted(choices)}; rename them")
    if _right_label(item, options) is None:
        raise ValueError(f"the answer {item['answer']!r} is none of the choices {sorted(options)}; mend the row")
    if "unit" in item or "relative_tolerance" in item:
        raise ValueError("a stem item with choices has neither 'unit' nor 'relative_tolerance'; remove them")
