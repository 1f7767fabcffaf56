r"""The reward of a math answer: the last `\boxed{...}` against the reference answer, by value.

What is the same text, and what plain numbers, words, lists and intervals of them decide, is decided at once, exactly.
Expressions are evaluated in a worker process, with bounds on their size. math-verify is asked only where the
reference is outside the grammar: it can run for ever or use up the memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from megatron_rl.rewards.mathematics.answers import read_answer
from megatron_rl.rewards.mathematics.boxes import boxed_answer
from megatron_rl.rewards.mathematics.comparison import is_same_answer
from megatron_rl.rewards.mathematics.families import with_the_same_names
from megatron_rl.rewards.mathematics.notation import (
    changes_cross_product,
    compact,
    crossed_as,
    has_vectors,
    nesting,
    plain,
    vectors_as_letters,
)
from megatron_rl.rewards.mathematics.numbers import MAX_NUMBER_CHARACTERS, plain_number
from megatron_rl.rewards.mathematics.scalars import Rules, Undecided
from megatron_rl.rewards.science.symbols import plain_subscripts
from megatron_rl.rewards.verdicts import right, unanswered, wrong
from megatron_rl.types import Verdict

MAX_ANSWER_CHARACTERS = 2_000  # of what is no plain number
MAX_ANSWER_NESTING = 20
MAX_RELATIVE_TOLERANCE = 0.1

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def check_item(item: Mapping[str, Any]) -> None:
    """Raises ValueError unless `item` is {"answer": a reference answer}, with or without "relative_tolerance"."""
    if not {"answer"} <= item.keys() <= {"answer", "relative_tolerance"}:
        raise ValueError(
            f"a math item has the key 'answer' alone or with 'relative_tolerance', not {sorted(item)}; "
            "remove or rename the others"
        )
    answer = item["answer"]
    if not isinstance(answer, str) or not plain(answer):
        raise ValueError(f"the answer of a math item is a text, not {answer!r}; drop the row or mend it")
    if not _is_balanced(answer):
        raise ValueError(f"the answer of a math item has braces that do not close, {answer!r}; drop the row or mend it")
    tolerance = item.get("relative_tolerance", 0.0)
    if not isinstance(tolerance, float) or not 0.0 <= tolerance <= MAX_RELATIVE_TOLERANCE:
        raise ValueError(
            f"the relative_tolerance of a math item is a decimal from 0.0 to {MAX_RELATIVE_TOLERANCE}, "
            f"not {tolerance!r}; mend or remove it"
        )


def verify(response: str, item: Mapping[str, Any]) -> Verdict:
    """The verdict on a response; without a time limit, so for trusted text only.

    >>> verify("<think>3 5 8</think>The median is \\\\boxed{5}.", {"answer": "5"}).score
    1.0
    """
    found = prepare(response, item)
    return found if isinstance(found, Verdict) else judge(found, item)


def prepare(response: str, item: Mapping[str, Any]) -> Verdict | str:
    """The verdict where it is plain, else the boxed answer for `judge`; fast and safe on any text."""
    answer, problem = boxed_answer(response)
    if answer is None:
        return unanswered(problem)
    if len(answer) > MAX_NUMBER_CHARACTERS:
        return wrong(f"the box holds more than {MAX_NUMBER_CHARACTERS} characters")
    answer = crossed_as(answer, item["answer"])
    is_changed = changes_cross_product(answer, item["answer"])
    answer, reference = plain(answer), plain(item["answer"])
    if not answer:
        return unanswered("the box is empty")
    if compact(answer) == compact(reference):
        return right()
    if is_changed:
        return wrong("another product of vectors")
    numbers = plain_number(reference), plain_number(answer)
    rules = Rules(may_evaluate=False, relative_tolerance=item.get("relative_tolerance", 0.0))
    if numbers[0] is None or numbers[1] is None:
        if len(answer) > MAX_ANSWER_CHARACTERS:
            return wrong(f"the box holds more than {MAX_ANSWER_CHARACTERS} characters")
        if nesting(answer) > MAX_ANSWER_NESTING:
            return wrong(f"the box nests deeper than {MAX_ANSWER_NESTING} brackets")
    try:
        return _verdict(reference, answer, rules)
    except Undecided:
        return answer


def load() -> None:
    """Imports what `judge` needs and builds its parser, so that the first case is as fast as the others."""
    from megatron_rl.rewards.mathematics.symbolic import is_same_by_math_verify

    is_same_by_math_verify("x+1", "1+x")


def judge(answer: str, item: Mapping[str, Any]) -> Verdict:
    """The verdict on an answer in plain form that takes an evaluation; with math-verify it may never return."""
    rules = Rules(may_evaluate=True, relative_tolerance=item.get("relative_tolerance", 0.0))
    return _verdict(plain(item["answer"]), answer, rules)


def _verdict(reference: str, answer: str, rules: Rules) -> Verdict:
    # Without words below and vectors, which math-verify would read no further than.
    if has_vectors(reference):
        reference, answer = vectors_as_letters(reference), vectors_as_letters(answer)
    reference, answer, parameter = with_the_same_names(plain_subscripts(reference), plain_subscripts(answer))
    rules = rules._replace(parameter=parameter)
    return right() if is_same_answer(read_answer(reference), read_answer(answer), rules) else wrong("another value")


def _is_balanced(text: str) -> bool:
    depth = 0
    for match in _BRACE.finditer(text):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth < 0:
            return False
    return depth == 0
