"""Whether two answers are the same: their structures part by part, and single values as `scalars` has it.

Lists and sets have no order, a list keeps its duplicates; tuples, intervals and matrices are compared in order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from megatron_rl.rewards.mathematics.numbers import plain_number
from megatron_rl.rewards.mathematics.scalars import Rules, Undecided, is_same_scalar
from megatron_rl.rewards.mathematics.structures import DOTS, EMPTY, Answer, end_value, joined_pieces

MAX_UNMATCHED_PARTS = 40  # each is compared with each

_SYMBOL = re.compile(r"(?:\\[A-Za-z]+|[A-Za-z])(?:_.*)?")
_FUNCTION = re.compile(r"[A-Za-z]\(x\)")
_CHOICES = re.compile(r"(?:\\text ?\{ ?)?\(?([A-H]{1,6})\)? ?\}?")
_INDIAN = re.compile(r"-?[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}")
_UNKNOWN = re.compile(r"(?<![\\A-Za-z])(?![ei](?![A-Za-z]))[A-Za-z]")
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")


def is_same_answer(reference: Answer, answer: Answer, rules: Rules) -> bool:
    """Whether an answer is the reference, or the set of it alone.

    Raises Undecided where that takes an evaluation the rules do not allow.
    """
    sides = [
        side.parts[0] if other.kind == "value" and _is_set_of_a_value(side) else side
        for side, other in ((reference, answer), (answer, reference))
    ]
    return _is_same(sides[0], sides[1], rules)


def _is_set_of_a_value(side: Answer) -> bool:
    """Not {x}, which may be the fractional part of x."""
    if side.kind != "set" or len(side.parts) != 1 or side.parts[0].kind != "value" or side.parts[0].text == EMPTY:
        return False
    return "\\text" in side.text or not _UNKNOWN.search(side.parts[0].value)


def _is_same(reference: Answer, answer: Answer, rules: Rules) -> bool:
    if reference.text == answer.text:
        return True
    kinds = {reference.kind, answer.kind}
    if answer.kind == "approximation":
        return _is_same_approximation(reference, answer, rules)
    if "relation" in kinds or _names_differ(reference, answer):
        return _is_same_relation(reference, answer, rules)
    if answer.kind == "other":
        return False  # a chain of equalities, or text that nests too deep
    if reference.kind == "other":
        return _is_same_by_math_verify(reference, answer, rules)
    if kinds == {"value", "list"}:
        letters = _letters(reference), _letters(answer)
        if letters[0] and letters[1]:
            return letters[0] == letters[1]
        has_indian_groups = bool(_INDIAN.fullmatch(answer.text))
        return has_indian_groups and plain_number(answer.text.replace(",", "")) == plain_number(reference.value)
    if kinds == {"value"}:
        return is_same_scalar(reference.value, answer.value, rules)
    if kinds <= {"list", "set"}:
        if {reference.brackets, answer.brackets} == {"and", "or"}:  # Alice and Bob, Alice or Bob
            return False
        if _are_named(reference) and not any(part.label for part in answer.parts):  # (1, 2) for x=1, y=2
            return answer.kind == "list" and _are_same_in_order(reference.parts, answer.parts, rules)
        return _are_same_parts(reference, answer, "set" in kinds, rules)
    if kinds == {"tuple"}:
        may_be_interval = len(reference.parts) == 2
        has_same_ends = reference.brackets == answer.brackets or not may_be_interval
        return has_same_ends and _are_same_in_order(reference.parts, answer.parts, rules)
    if "union" in kinds and kinds <= {"union", "tuple", "set"}:
        return _is_same_union(reference, answer, rules)
    if kinds == {"union", "list"}:
        return _are_same_parts(reference, answer, True, rules)
    if kinds == {"matrix"}:
        has_same_rows = len(reference.parts) == len(answer.parts)
        rows = zip(reference.parts, answer.parts, strict=False)
        return has_same_rows and all(_are_same_in_order(row.parts, other.parts, rules) for row, other in rows)
    parts, others = _in_order(reference), _in_order(answer)
    return bool(parts and others) and _are_same_in_order(parts, others, rules)


def _letters(answer: Answer) -> str:
    """The letters of several choices, as ABD or A, B, D, in their order; an empty text for anything else."""
    parts = answer.parts if answer.kind == "list" else (answer,)
    found = [match[1] for part in parts if (match := _CHOICES.fullmatch(part.value))]
    letters = "".join(sorted(found)) if len(found) == len(parts) else ""
    is_ascending = len(letters) > 1 and list(letters) == sorted(set(letters))
    return letters if is_ascending and (answer.kind == "list" or found == [letters]) else ""


def _is_same_union(reference: Answer, answer: Answer, rules: Rules) -> bool:
    """Sets of real numbers, joined where they touch; by parts where their ends are no numbers."""
    sides = [side.parts if side.kind == "union" else (side._replace(label=""),) for side in (reference, answer)]
    joined = [joined_pieces(pieces, end_value) for pieces in sides]
    if None in joined:
        if not rules.may_evaluate:
            raise Undecided
        from megatron_rl.rewards.mathematics.symbolic import real_value

        joined = [joined_pieces(pieces, real_value) for pieces in sides]
    if joined[0] is None or joined[1] is None:
        return reference.kind == answer.kind and _are_same_parts(reference, answer, True, rules)
    return _are_same_in_order(joined[0], joined[1], rules)


def _in_order(answer: Answer) -> Sequence[Answer]:
    """The components of a tuple, of a matrix of one row or column, or of x=1, y=2; nothing for anything else."""
    if answer.kind == "tuple" and answer.brackets == "()" and (not answer.label or answer.label.startswith("(")):
        return answer.parts
    if answer.kind == "matrix" and all(len(row.parts) == 1 for row in answer.parts):
        return [row.parts[0] for row in answer.parts]
    if answer.kind == "matrix" and len(answer.parts) == 1:
        return answer.parts[0].parts
    if _are_named(answer):
        return [part._replace(label="") for part in sorted(answer.parts, key=lambda part: part.label)]
    return ()


def _are_same_in_order(reference: Sequence[Answer], answer: Sequence[Answer], rules: Rules) -> bool:
    """Whether all pairs are; one that is not decides, also where others are undecided.

    They share their integer: (k, k+1) is not (k, k).
    """
    rules = rules._replace(parameter="")
    if len(reference) != len(answer):
        return False
    is_undecided = False
    for part, other in zip(reference, answer, strict=True):
        try:
            if not _is_same(part, other, rules):
                return False
        except Undecided:
            is_undecided = True
    if is_undecided:
        raise Undecided
    return True


def _are_same_parts(reference: Answer, answer: Answer, is_set: bool, rules: Rules) -> bool:
    """Whether each part has its like on the other side, in any order; those with the same text or number have."""
    counts = [Counter(_key(part) for part in side.parts) for side in (reference, answer)]
    parts = {_key(part): part for part in (*reference.parts, *answer.parts)}
    if is_set:
        counts = [Counter(count.keys()) for count in counts]
    missing = [parts[key] for key in (counts[0] - counts[1]).elements()]
    surplus = [parts[key] for key in (counts[1] - counts[0]).elements()]
    if max(len(missing), len(surplus)) > MAX_UNMATCHED_PARTS:
        return False
    if not is_set:
        return len(missing) == len(surplus) and all(_is_taken_from(surplus, part, rules) for part in missing)
    # An element of a set may equal one that is matched already, as in {1, 2/2, 2}.
    references, answers = ([parts[key] for key in count] for count in counts)
    return all(any(_is_same(part, other, rules) for other in answers) for part in missing) and all(
        any(_is_same(other, part, rules) for other in references) for part in surplus
    )


def _is_taken_from(surplus: list[Answer], part: Answer, rules: Rules) -> bool:
    for index, other in enumerate(surplus):
        if _is_same(part, other, rules):
            del surplus[index]
            return True
    return False


def _key(part: Answer) -> object:
    number = plain_number(part.value) if part.kind == "value" and not part.label else None
    return part.text if number is None else number


def _are_named(answer: Answer) -> bool:
    """Whether it is a list of values of different symbols, as x=1, y=2."""
    labels = [part.label for part in answer.parts]
    return answer.kind == "list" and all(labels) and len({_symbol(label) for label in labels}) == len(labels)


def _names_differ(reference: Answer, answer: Answer) -> bool:
    """Whether both are named, and by different symbols; x_1 may be x, and y may be f(x)."""
    label, other = reference.label, answer.label
    if not label or not other or label == other or label == _symbol(other) or other == _symbol(label):
        return False
    return not ("y" in (label, other) and any(_FUNCTION.fullmatch(name) for name in (label, other)))


def _symbol(label: str) -> str:
    return label.partition("_")[0]


def _is_same_approximation(reference: Answer, answer: Answer, rules: Rules) -> bool:
    """An exact value with its decimal, if both agree: either may be the reference, the decimal only of decimals."""
    exact, decimal = (part.value for part in answer.parts)
    value = plain_number(decimal)
    if reference.kind != "value" or value is None or _names_differ(reference, answer):
        return False
    if not rules.may_evaluate:
        raise Undecided
    from megatron_rl.rewards.mathematics.symbolic import is_rounded

    is_reference = "." in reference.value and value == plain_number(reference.value)
    return is_rounded(exact, value, len(decimal.partition(".")[2].strip())) and (
        is_reference or is_same_scalar(reference.value, exact, rules)
    )


def _is_same_relation(reference: Answer, answer: Answer, rules: Rules) -> bool:
    """Equations and inequalities that are multiples of each other.

    A reference that is solved for a symbol is a value: 2x=10 is no answer where x=5 is asked for, nor 2x<10 for x<5.
    """
    if re.search("[=<>]", reference.label + answer.label):  # P(X=2) is not P(X=3)
        return False
    relation, other = _relation(reference), _relation(answer)
    if relation is None or other is None or (_SYMBOL.fullmatch(relation[0]) and not _LETTER.search(relation[2])):
        return False
    if not rules.may_evaluate:
        raise Undecided
    from megatron_rl.rewards.mathematics.symbolic import is_same_relation

    return is_same_relation(relation, other)


def _relation(answer: Answer) -> tuple[str, str, str] | None:
    """(left, sign, right) of an equation, a labelled value or a half line; None for anything else."""
    if answer.kind == "relation":
        return answer.parts[0].value, answer.brackets, answer.parts[1].value
    if answer.kind == "value" and answer.label:
        return answer.label, "=", answer.value
    if answer.kind != "tuple" or not answer.label or len(answer.parts) != 2:
        return None
    low, high = (part.value for part in answer.parts)
    if low == "-\\infty":
        return answer.label, "<" if answer.brackets[1] == ")" else "\\le", high
    return (answer.label, ">" if answer.brackets[0] == "(" else "\\ge", low) if high == "\\infty" else None


def _is_same_by_math_verify(reference: Answer, answer: Answer, rules: Rules) -> bool:
    if DOTS in reference.text or DOTS in answer.text:
        return False
    if not rules.may_evaluate:
        raise Undecided
    from megatron_rl.rewards.mathematics.symbolic import is_same_by_math_verify

    return is_same_by_math_verify(reference.text, answer.text)
