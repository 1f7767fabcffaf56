"""What a row of a source becomes: a problem with the item of its verifier, or the rule by which it is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Rule = Literal[
    "malformed",
    "other_part",
    "no_answer",
    "disagreement",
    "no_short_answer",
    "several_questions",
    "refused",
    "wrong_own_answer",
    "no_verdict",
    "several_outputs",
    "interactive",
    "tests_too_large",
    "too_long",
    "exact_duplicate",
    "near_duplicate",
    "overlap",
    "not_drawn",
]
RULES: tuple[Rule, ...] = get_args(Rule)
MEANINGS: Mapping[Rule, str] = {
    "malformed": "the row cannot be meant: no JSON, a column missing or of another kind",
    "other_part": "the row is of another domain, or of another subset than the mixture takes",
    "no_answer": "the row has no reference answer",
    "disagreement": "no model's answer agrees with the reference",
    "no_short_answer": "the reference is a whole solution, and no short answer is found in it",
    "several_questions": "more than one thing is asked for",
    "refused": "the verifier refuses the item",
    "wrong_own_answer": "the verifier does not call the reference answer right",
    "no_verdict": "the verifier failed on the reference answer, or took too long",
    "several_outputs": "more than one output is right, and there is no checker",
    "interactive": "the program would have to talk with a judge, or to read files",
    "tests_too_large": "no test is left that is small enough",
    "too_long": "the prompt has more tokens than the recipe takes",
    "exact_duplicate": "an earlier row has the same problem",
    "near_duplicate": "an earlier row has almost the same problem",
    "overlap": "the problem is in an evaluation set",
    "not_drawn": "there are more rows than the mixture takes, and the draw left it out",
}

_BOX = re.compile(r"\\(?:f?boxed|fbox)\s*")


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A problem before the mixture's words are put round it."""

    problem: str
    item: dict[str, Any]
    proof: str | None  # a response that is right, to try the verifier with; None where the row has none
    witnesses: tuple[str, ...] = ()  # responses of which one has to be right, or the source contradicts itself
    tests_left_out: int = 0  # of a code problem, for their size


class LeftOut(Exception):
    """A row does not become an item: the rule and the reason."""

    def __init__(self, rule: Rule, reason: str) -> None:
        super().__init__(reason)
        self.rule: Rule = rule
        self.reason = reason


def text_of(row: Mapping[str, Any], *names: str) -> str:
    """The first of these columns that the row has, which is a text. Raises LeftOut."""
    for name in names:
        if name in row:
            value = row[name]
            if not isinstance(value, str) or not value.strip():
                raise LeftOut("malformed", f"{name} is {_short(value)}; a text is needed")
            return value.strip()
    raise LeftOut("malformed", f"has no column {' or '.join(names)}; it has {', '.join(sorted(map(str, row)))[:200]}")


def answer_of(row: Mapping[str, Any], *names: str) -> str:
    """The first of these columns as an answer: a text, or a whole number in any writing. Raises LeftOut."""
    for name in names:
        if name in row:
            value = row[name]
            if value is None or isinstance(value, str) and not value.strip():
                raise LeftOut("no_answer", f"{name} is empty")
            if isinstance(value, str):
                return value.strip()
            if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
                return str(int(value))
            raise LeftOut("malformed", f"{name} is {_short(value)}; a text or a whole number is needed")
    raise LeftOut("malformed", f"has no column {' or '.join(names)}; it has {', '.join(sorted(map(str, row)))[:200]}")


def boxed(answer: str) -> str:
    """A response that gives this answer."""
    return f"\\boxed{{{answer}}}"


def last_box(solution: str) -> str:
    r"""What the last box of a solution holds. Raises ValueError without one, or where its braces do not close.

    >>> last_box(r"So \boxed{1}, or rather $\boxed{\frac{1}{2}}$."), last_box(r"It is $\boxed 7$.")
    ('\\frac{1}{2}', '7')
    """
    boxes = list(_BOX.finditer(solution))
    if not boxes:
        raise ValueError("column 'solution' has no \\boxed{}; the published rows end in one")
    rest = solution[boxes[-1].end() :]
    if not rest.startswith("{"):
        word = re.match(r"[^\s$.,]+", rest)
        if word is None:
            raise ValueError("column 'solution' ends in an empty \\boxed")
        return word[0]
    depth = 0
    for place, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[1:place].strip()
    raise ValueError("column 'solution' has a last \\boxed{ that does not close")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
