"""Whether two answers are the same: their structures part by part, and single values as `scalars` has it.

Lists and sets have no order, a list keeps its duplicates; tuples, intervals and matrices are compared in order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from megatron_rl.rewards.answers import Answer
from megatron_rl.rewards.numbers import plain_number
from megatron_rl.rewards.scalars import (
    Rules,
    Undecided,
    is_rounded,
    is_same_by_math_verify,
    is_same_scalar,
    read_or_none,
)

_SYMBOL = re.compile(r"(?:\\[A-Za-z]+|[A-Za-z])(?:_.*)?")
MAX_UNMATCHED_PARTS = 40  # each is compared with each


def is_same_answer(reference: Answer, answer: Answer, rules: Rules) -> bool:
    """Whether an answer is the reference, or the set of it alone.

    Raises Undecided where that takes an evaluation the rules do not allow, ValueError where the reference is unreadable.
    """
    for one, other in ((reference, answer), (answer, reference)):
        if one.kind == "set" and len(one.parts) == 1 and one.parts[0].kind == other.kind == "value":
            return is_same_scalar(*((one.parts[0].value, other.value)[:: 1 if one is reference else -1]), rules)
    return _is_same(reference, answer, rules)


def _is_same(reference: Answer, answer: Answer, rules: Rules) -> bool:
    if reference.text == answer.text:
        return True
    if answer.kind == "approximation":
        return _is_same_approximation(reference, answer, rules)
    if "relation" in (reference.kind, answer.kind) or _names_differ(reference, answer):
        return _is_same_relation(reference, answer, rules)
    if answer.kind == "other":
        return False  # a chain of equalities, or text that nests too deep
    if reference.kind == "other":
        return _by_math_verify(reference, answer, rules)
    kinds = {reference.kind, answer.kind}
    if kinds <= {"list", "set"} and _are_named(reference) and not any(part.label for part in answer.parts):
        return answer.kind == "list" and _are_same_in_order(reference.parts, answer.parts, rules)
    if kinds == {"value"}:
        return is_same_scalar(reference.value, answer.value, rules)
    if kinds <= {"list", "set"}:
        return _are_same_parts(reference, answer, rules, is_set="set" in kinds)
    if kinds == {"tuple"}:
        return _is_same_tuple(reference, answer, rules)
    if kinds in ({"union"}, {"union", "list"}):
        return _are_same_parts(reference, answer, rules, is_set=True)
    if kinds == {"matrix"}:
        return len(reference.parts) == len(answer.parts) and all(
            _are_same_in_order(a.parts, b.parts, rules) for a, b in zip(reference.parts, answer.parts, strict=True)
        )
    parts = _in_order(reference), _in_order(answer)
    return bool(parts[0] and parts[1] and _are_same_in_order(*parts, rules))


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


def _is_same_tuple(reference: Answer, answer: Answer, rules: Rules) -> bool:
    is_pair = len(reference.parts) == 2  # it may be an interval
    if is_pair and reference.brackets != answer.brackets:
        return False
    return _are_same_in_order(reference.parts, answer.parts, rules)


def _are_same_in_order(reference: Sequence[Answer], answer: Sequence[Answer], rules: Rules) -> bool:
    if len(reference) != len(answer):
        return False
    return _all_same(zip(reference, answer, strict=True), rules)


def _all_same(pairs: zip[tuple[Answer, Answer]], rules: Rules) -> bool:
    """Whether all pairs are; one that is not decides, also where others are undecided."""
    is_undecided = False
    for pair in pairs:
        try:
            if not _is_same(*pair, rules):
                return False
        except Undecided:
            is_undecided = True
    if is_undecided:
        raise Undecided
    return True


def _are_same_parts(reference: Answer, answer: Answer, rules: Rules, is_set: bool) -> bool:
    """Whether each part has its like on the other side, in any order."""
    counts = [Counter(_key(part) for part in side.parts) for side in (reference, answer)]
    if is_set:
        counts = [Counter(dict.fromkeys(count, 1)) for count in counts]
    unmatched = [list((counts[side] - counts[1 - side]).elements()) for side in (0, 1)]
    if not any(unmatched):
        return True
    if max(len(unmatched[0]), len(unmatched[1])) > MAX_UNMATCHED_PARTS:
        return False
    by_key = [{_key(part): part for part in side.parts} for side in (reference, answer)]
    if not is_set:
        return len(unmatched[0]) == len(unmatched[1]) and _are_paired(
            [by_key[0][key] for key in unmatched[0]], [by_key[1][key] for key in unmatched[1]], rules
        )
    # An element of a set may equal one that is matched already: {1, 2/2, 2}.
    return all(
        any(_is_same(*((mine, theirs) if side == 0 else (theirs, mine)), rules) for theirs in by_key[1 - side].values())
        for side in (0, 1)
        for mine in (by_key[side][key] for key in unmatched[side])
    )


def _are_paired(reference: list[Answer], answer: list[Answer], rules: Rules) -> bool:
    for part in reference:
        for index, other in enumerate(answer):
            if _is_same(part, other, rules):
                del answer[index]
                break
        else:
            return False
    return True


def _key(part: Answer) -> object:
    number = plain_number(part.value) if part.kind == "value" and not part.label else None
    return part.text if number is None else number


def _are_named(answer: Answer) -> bool:
    """Whether it is a list of values of different symbols, as x=1, y=2."""
    labels = [part.label for part in answer.parts]
    return answer.kind == "list" and all(labels) and len({label.partition("_")[0] for label in labels}) == len(labels)


def _names_differ(reference: Answer, answer: Answer) -> bool:
    """Whether both are named, and by different symbols; x_1 may be x."""
    labels = reference.label, answer.label
    return all(labels) and labels[0] not in (labels[1], labels[1].partition("_")[0]) and labels[1] != labels[0].partition("_")[0]


def _is_same_approximation(reference: Answer, answer: Answer, rules: Rules) -> bool:
    """An exact value with its decimal, if both agree: either may be the reference, the decimal only of decimals."""
    if reference.kind != "value" or (reference.label and answer.label not in ("", reference.label)):
        return False
    exact, decimal = answer.parts
    if not is_rounded(exact.value, decimal.value, rules):
        return False
    return is_same_scalar(reference.value, exact.value, rules) or (
        "." in reference.value and plain_number(decimal.value) == plain_number(reference.value)
    )


def _is_same_relation(reference: Answer, answer: Answer, rules: Rules) -> bool:
    """Equations and inequalities that are multiples of each other.

    A reference that is solved for a symbol is a value: 2x=10 is no answer where x=5 is asked for, nor 2x<10 for x<5.
    """
    sides = _sides(reference), _sides(answer)
    if sides[0] is None or sides[1] is None:
        return False
    (left, sign, right), (other_left, other_sign, other_right) = sides
    if _SYMBOL.fullmatch(left) and not re.search(r"(?<![\\A-Za-z])[A-Za-z]", right):
        return False
    if not rules.may_evaluate:
        raise Undecided
    from megatron_rl.rewards.values import is_multiple

    if _is_greater(sign) != _is_greater(other_sign):
        other_left, other_right = other_right, other_left
        other_sign = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}.get(other_sign, other_sign)
    gold, tree = read_or_none(f"({left})-({right})"), read_or_none(f"({other_left})-({other_right})")
    if sign != other_sign or tree is None:
        return False
    return gold is not None and is_multiple(gold, tree, positive=sign != "=")


def _is_greater(sign: str) -> bool:
    return sign in (">", "\\ge")


def _sides(answer: Answer) -> tuple[str, str, str] | None:
    if answer.kind == "relation":
        return answer.parts[0].value, answer.brackets, answer.parts[1].value
    if answer.kind == "tuple" and answer.label and len(answer.parts) == 2:  # a half line
        low, high = (part.value for part in answer.parts)
        if low == "-\\infty":
            return answer.label, "<" if answer.brackets[1] == ")" else "\\le", high
        return (answer.label, ">" if answer.brackets[0] == "(" else "\\ge", low) if high == "\\infty" else None
    return (answer.label, "=", answer.value) if answer.kind == "value" and answer.label else None


def _by_math_verify(reference: Answer, answer: Answer, rules: Rules) -> bool:
    if not rules.may_evaluate:
        raise Undecided
    return is_same_by_math_verify(reference.text, answer.text)
