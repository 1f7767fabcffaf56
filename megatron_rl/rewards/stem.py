r"""The reward of a science answer: one option of a multiple-choice question, or a short answer, right or wrong.

The answer is the last `\boxed{...}` after the thinking; without a box, what the response states last as its answer.
Options are compared by letter or text, quantities by number and unit, words by wording, formulas by math-verify.

Covered: several letters or values at once, letters in prose, other units, near values.
Not covered: synonyms beyond a table; a right answer with an explanation in the same box.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from typing import Any

from megatron_rl.rewards import math
from megatron_rl.rewards.mathematics.boxes import boxed_answer, same_value
from megatron_rl.rewards.mathematics.expressions import UnreadableError, read_expression
from megatron_rl.rewards.mathematics.notation import (
    changes_cross_product,
    compact,
    crossed_as,
    has_vectors,
    plain,
    vectors_as_letters,
)
from megatron_rl.rewards.mathematics.numbers import plain_number
from megatron_rl.rewards.mathematics.units import unit
from megatron_rl.rewards.response import after_thinking
from megatron_rl.rewards.science.choices import chosen_option, option_of_last_line, stated_option
from megatron_rl.rewards.science.concentrations import has_concentrations, in_concentrations
from megatron_rl.rewards.science.measures import Quantity, agree, irrational, leeway, quantity, resolution, with_unit
from megatron_rl.rewards.science.remarks import last_of_equal, split_direction, without_remarks
from megatron_rl.rewards.science.spans import same_span, span, without_uncertainty
from megatron_rl.rewards.science.statements import sentences, statements
from megatron_rl.rewards.science.symbols import plain_symbols
from megatron_rl.rewards.science.typed import in_letters, with_brackets
from megatron_rl.rewards.science.wording import in_one_notation, is_symbolic, may_be_formula, meaning, same_words
from megatron_rl.rewards.verdicts import right, unanswered, wrong
from megatron_rl.types import Verdict

MAX_ANSWER_CHARACTERS = 300
MAX_STATEMENT_CHARACTERS = 10_000  # an answer in words is looked for in the end of a response

_KEYS = ("answer", "choices", "unit", "relative_tolerance")
_SCALE = re.compile(r"(?:\\text ?\{ ?)?(?P<name>p(?:OH|H|K_?\{?[abw]|I|[A-Z]))[\s}]*(?:=|\\approx)")
_LABEL = re.compile(r"^\s*[A-Za-z](?:_\{?[A-Za-z0-9]{1,9}\}?)?\s?=\s?")  # F = ma
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
    boxed, problem = boxed_answer(text, partial(_meaning, item), may_restate=not is_multiple_choice(item))
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
    return _plain_verdict(answers, item) or _formula(answers[-1], item)


def _plain_verdict(answers: Sequence[str], item: Mapping[str, Any]) -> Verdict | None:
    """The verdict on the ways to read an answer where the reference is a quantity, two of them, or words."""
    reference, tolerance = _reference(item), _tolerance(item)
    value, direction = split_direction(item["answer"])
    if value != item["answer"] and (directed := quantity(value)) is not None and directed.unit:
        return _directed(answers, directed, direction, tolerance)
    if reference is not None:
        if _other_scale(item["answer"], answers[0]):
            return wrong("another scale")
        if reference.unit == unit("degrees"):  # a multiple of pi is an angle in radians
            answers = [*answers, *(f"{answer} rad" for answer in answers if "\\pi" in plain(answer))]
        found = [
            quantity(text) for answer in answers for text in (answer, without_remarks(answer), last_of_equal(answer))
        ]
        found = [*(without_uncertainty(answer, reference) for answer in answers), *found]
        if any(value is not None and agree(value, reference, tolerance) for value in found):
            return right()
        if reference.unit_text and any(_are_spaced_apart(answer, item["answer"]) for answer in answers):
            return wrong("another quantity")
        return wrong("another quantity") if found[-1] is not None or "unit" in item else None
    if (both := span(item["answer"])) is not None:
        found_spans = [span(answer) for answer in answers]
        if any(found and same_span(found, both, tolerance) for found in found_spans):
            return right()
    if is_symbolic(item["answer"]):
        return None
    if any(same_words(text, item["answer"]) for answer in answers for text in (answer, _LABEL.sub("", answer))):
        return right()
    return None if may_be_formula(item["answer"]) else wrong("other words")


def _are_spaced_apart(answer: str, reference: str) -> bool:
    """Whether two texts have the same letters in other words, as 5 c d and 5 cd: a product of units is no unit."""
    mine, its = ([*re.findall("[A-Za-zμΩ]+", plain(text).replace("\\text", ""))] for text in (answer, reference))
    return sorted(mine) != sorted(its) and sorted("".join(mine)) == sorted("".join(its))


def _directed(answers: Sequence[str], reference: Quantity, direction: frozenset[str], tolerance: Fraction) -> Verdict:
    """The verdict where the reference is a quantity with its direction, or with "released"."""
    for answer in answers:
        said, its_direction = split_direction(answer)
        mine = quantity(said)
        if mine is not None and its_direction == direction and agree(mine, reference, tolerance):
            return right()
    return wrong("another quantity or direction")


def _formula(answer: str, item: Mapping[str, Any]) -> Verdict | str:
    answer = crossed_as(answer, item["answer"])
    text, reference = plain(in_one_notation(answer)), plain(item["answer"])
    if compact(text) == compact(reference):
        return right()
    if changes_cross_product(answer, item["answer"]):
        return wrong("another product of vectors")
    if has_vectors(item["answer"]):
        text = plain(vectors_as_letters(in_one_notation(answer)))
    text = plain_symbols(in_concentrations(text) if has_concentrations(reference) else text)
    bracketed = with_brackets(in_letters(text, reference))
    if bracketed is None:
        return wrong("the formula may mean two things")
    return math.prepare(f"\\boxed{{{bracketed}}}", _formula_item(item))


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
    found = math.judge(answer, _formula_item(item))
    return right() if not found.score and _rounds(answer, item["answer"]) else found


def _rounds(answer: str, reference: str) -> bool:
    """Whether an answer is a decimal that a reference without symbols rounds to, as 6.283 for a circle's 2 pi."""
    from megatron_rl.rewards.mathematics.values import is_within

    value, worth = plain_number(answer), resolution(answer)
    if value is None or not worth:
        return False
    with suppress(UnreadableError):
        return is_within(read_expression(plain(reference)), value, worth / 2)
    return False


def is_multiple_choice(item: Mapping[str, Any]) -> bool:
    """Whether the item has choices, or a letter from A to J for its answer."""
    return "choices" in item or _LETTER.fullmatch(item["answer"].strip()) is not None


def _meaning(item: Mapping[str, Any], content: str) -> object:
    """What the boxes of one answer have in common: the option, the quantity or the wording."""
    if len(content) > MAX_ANSWER_CHARACTERS:
        return same_value(content)
    if is_multiple_choice(item):
        return chosen_option(content, _options(item), _is_same) or same_value(content)
    found = quantity(content)
    if found is not None:
        return (
            (found.number * found.unit.factor + found.unit.zero, found.unit.dimension)
            if found.unit
            else (found.number, found.unit_text)
        )
    return same_value(content) if is_symbolic(content) else meaning(content)


def _other_scale(reference: str, answer: str) -> bool:
    """Whether both name the logarithmic scale of their number, and different ones: pH and pOH."""
    scales = [_SCALE.match(plain(text)) for text in (reference, answer)]
    return all(scales) and len({match["name"].replace("_", "").replace("{", "") for match in scales if match}) > 1


def _tolerance(item: Mapping[str, Any]) -> Fraction:
    return Fraction(str(item.get("relative_tolerance", 0)))


def _formula_item(item: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: item[key] for key in ("answer", "relative_tolerance") if key in item}
    reference = in_one_notation(item["answer"])
    reference = plain(vectors_as_letters(reference) if has_vectors(reference) else reference)
    reference = in_concentrations(reference) if has_concentrations(reference) else reference
    reference = in_letters(plain_symbols(reference), "")
    return kept | {"answer": with_brackets(reference) or reference}


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
    values = irrational(plain(answer)), irrational(plain(reference))
    if None not in values:  # two ways to write one root or multiple of pi
        return values[0] == values[1]
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
