r"""Whether two single values are the same: numbers, quantities, digits in a base, residues, words, expressions.

All texts are in plain form. What needs an expression to be evaluated is undecided where that is not allowed.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from megatron_rl.rewards.expressions import FUNCTIONS, Tree, Unreadable, read_expression, symbols
from megatron_rl.rewards.notation import compact
from megatron_rl.rewards.numbers import plain_number
from megatron_rl.rewards.quantities import split_unit


class Rules(NamedTuple):
    """How to compare: whether expressions may be evaluated here, and how far apart closed values may be."""

    may_evaluate: bool
    relative_tolerance: float = 0.0


class Undecided(Exception):  # noqa: N818 - it is an outcome, not an error
    """The verdict needs an expression to be evaluated."""


_BASES = dict(
    zip("two three four five six seven eight nine ten eleven twelve sixteen".split(), [*range(2, 13), 16], strict=True)
)
_IN_BASE = re.compile(
    r"\(?(?P<digits>[0-9][0-9A-Fa-f]*|[A-F]+[0-9][0-9A-F]*|[A-F]{2,})\)? ?"
    r"(?:_ ?(?P<digit>[0-9])|(?:_ ?\{?|(?= ?\(?(?:\\text|base)))[ ({]*(?:\\text ?\{)?[( ]*(?:in )?(?:base(?:[ }(]*))?"
    r"(?P<base>[0-9]+|[a-z]+)[) }]*)"
)
_MODULO = re.compile(r"(?P<residue>.+?) ?\(? ?\\(?:pmod|bmod|mod) ?(?:\{ ?([0-9]+) ?\}|([0-9]+)) ?\)?")
_CHOICE = re.compile(r"(?:\\text ?\{ ?)*(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer:?) )?\(?([A-Za-z])(?:\)|\.|:)?[ }]*")
_CHOICE_AND_TEXT = re.compile(r"(?:\\text ?\{ ?)*(?:\(([A-Z])\)|([A-Z])[.):])[ }]*(?P<rest>\S.*)")
_LABELLED = re.compile(r"\\text ?\{ ?\([A-Z]\) ?\} ?([^A-Z(]+)")  # the choice and its value
_RATIO = re.compile(r":|\\text ?\{ ?to ?\}|(?<=[0-9]) to (?=[0-9])")
_UNWRAPPED = re.compile(r"\\text ?\{([^{}]*)\}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z .,'\":!?-]*")
_SHORT_WORDS = frozenset("yes no odd even true false none all dne".split())
_NOT_WORDS = frozenset((*FUNCTIONS, "sqrt", "infty", "infinity", "frac"))
_ARTICLES = frozenset(("the", "a", "an"))


def is_same_scalar(reference: str, answer: str, rules: Rules) -> bool:
    """Whether an answer has the value of the reference.

    Raises Undecided where that takes an evaluation the rules do not allow.
    """
    if compact(reference) == compact(answer):
        return True
    numbers = plain_number(reference), plain_number(answer)
    if numbers[0] is not None and numbers[1] is not None:
        return _is_near(*numbers, rules)
    if (labelled := _LABELLED.fullmatch(answer)) and not _CHOICE.fullmatch(reference):
        return is_same_scalar(reference, labelled[1], rules)
    for is_same in (_is_same_choice, _is_same_in_base, _is_same_modulo, _is_same_ratio, _is_same_wording):
        verdict = is_same(reference, answer)
        if verdict is not None:
            return verdict
    return _is_same_quantity(reference, answer, numbers[0] is not None, rules)


def is_rounded(exact: str, decimal: str, rules: Rules) -> bool:
    """Whether a decimal is an exact value, rounded or cut off after its last digit."""
    value, unit = plain_number(decimal), 10 ** -len(decimal.partition(".")[2].strip())
    if value is None:
        return False
    if not rules.may_evaluate:
        raise Undecided
    from megatron_rl.rewards.values import is_within

    try:
        return is_within(read_expression(exact), value, Fraction(unit))
    except Unreadable:
        return False


def _is_near(reference: Fraction, value: Fraction, rules: Rules) -> bool:
    return abs(reference - value) <= Fraction(rules.relative_tolerance) * abs(reference)


def _is_same_choice(reference: str, answer: str) -> bool | None:
    """The letter of a multiple choice, with or without brackets and the text of the choice."""
    match = _CHOICE.fullmatch(reference)
    if match is None or not match[1].isupper():
        return None
    if named := _CHOICE_AND_TEXT.fullmatch(answer):
        is_single = not re.search(r"(?<![A-Za-z\\])[A-Z](?![A-Za-z])", named["rest"])
        return is_single and (named[1] or named[2]) == match[1]
    chosen = _CHOICE.fullmatch(answer)
    if chosen is None:
        return None
    return chosen[1] == match[1] or (chosen[1].upper() == match[1] and match[1] in "ABCDE")


def _is_same_in_base(reference: str, answer: str) -> bool | None:
    """Digits with a base, as 1011_2; without one they are decimal. The base is part of the answer."""
    digits = [_in_base(text) for text in (reference, answer)]
    if digits == [None, None]:
        return None
    bases = [(plain_number(text), 10) if found is None else found for text, found in zip((reference, answer), digits, strict=True)]
    return bases[0] == bases[1]


def _in_base(text: str) -> tuple[Fraction, int] | None:
    match = _IN_BASE.fullmatch(text)
    if match is None:
        return None
    base = _BASES.get(match["base"]) or int(match["digit"] or match["base"] if (match["digit"] or match["base"]).isdigit() else 0)
    try:
        return (Fraction(int(match["digits"], base)), base) if 2 <= base <= 36 else None
    except ValueError:
        return None


def _is_same_modulo(reference: str, answer: str) -> bool | None:
    """Residues, as 3 \\pmod 7; the modulus may be left out of the answer, or stand in it alone."""
    split = [_MODULO.fullmatch(text) for text in (reference, answer)]
    if split == [None, None]:
        return None
    residues = [
        plain_number(match["residue"] if match else text) for match, text in zip(split, (reference, answer), strict=True)
    ]
    if residues[0] is None or residues[1] is None or (split[0] is None and "\\pmod" not in answer):
        return False
    moduli = [int(match[2] or match[3]) for match in split if match and len(match[2] or match[3]) < 1000]
    if len(moduli) < 2 or moduli[0] != moduli[1] or moduli[0] == 0:
        return len(moduli) == 1 and residues[0] == residues[1]
    return (residues[0] - residues[1]) % moduli[0] == 0


def _is_same_ratio(reference: str, answer: str) -> bool | None:
    """Ratios, as 3:2; one of two parts may be written as a fraction."""
    split = [[plain_number(part.strip()) for part in _RATIO.split(text)] for text in (reference, answer)]
    if len(split[0]) == len(split[1]) == 1:
        return None
    if None in split[0] or None in split[1]:
        return False if None not in split[0] and len(split[0]) > 1 else None
    (first, *_), (second, *_) = split = [[*parts, Fraction(1)] if len(parts) == 1 else parts for parts in split]
    if len(split[0]) != len(split[1]) or not first or not second:
        return False
    return all(a * second == b * first for a, b in zip(*split, strict=True))  # type: ignore[operator]


def _is_same_wording(reference: str, answer: str) -> bool | None:
    """Words in text, but for case, articles and punctuation."""
    found = words(reference), words(answer)
    if found == (None, None):
        unwrapped = [compact(_UNWRAPPED.sub(r" \1 ", text).strip()) for text in (reference, answer)]
        return True if "\\text" in reference + answer and unwrapped[0] == unwrapped[1] else None
    loose = [words(f"\\text{{{text}}}") if text.isalpha() else None for text in (reference, answer)]
    return (found[0] or loose[0]) == (found[1] or loose[1])


def words(text: str) -> tuple[str, ...] | None:
    r"""The words of a text that is nothing but words; None for anything else, as a product xy.

    >>> words("\\text{The Monday.}"), words("xy"), words("12 \\text{ cm}")
    (('monday',), None, None)
    """
    unwrapped = " ".join(_UNWRAPPED.sub(r" \1 ", text).split())
    if not _WORDS.fullmatch(unwrapped):
        return None
    found = re.findall(r"[a-z']+", unwrapped.lower())
    is_text = "\\text" in text and any(len(word) > 1 for word in found)
    if not is_text and not any(len(word) > 3 or word in _SHORT_WORDS for word in found):
        return None
    if _NOT_WORDS & set(found) and len(found) < 3:
        return None
    return tuple(word for word in found if word not in _ARTICLES) or None


def _is_same_quantity(reference: str, answer: str, reference_is_number: bool, rules: Rules) -> bool:
    """Values with units, which may be left out on one side; percent may be a hundredth."""
    (value, unit), (other, other_unit) = split_unit(reference, False), split_unit(answer, reference_is_number)
    if unit and other_unit and unit != other_unit:
        return False
    percent = frozenset({("percent", 1)})
    numbers = plain_number(value), plain_number(other)
    if numbers[0] is None or numbers[1] is None:
        if (value, other) != (reference, answer):
            return is_same_scalar(value, other, rules)
        return _is_same_expression(value, other, rules)
    gold, number = numbers
    if unit == percent and not other_unit:
        return _is_near(gold, number, rules) or _is_near(gold / 100, number, rules)
    if other_unit == percent and not unit:  # 5% for 5 and for 0.05, but 0.05% for neither
        return (abs(gold) >= 1 and _is_near(gold, number, rules)) or (abs(gold) <= 1 and _is_near(gold, number / 100, rules))
    return _is_near(gold, number, rules)


def _is_same_expression(reference: str, answer: str, rules: Rules) -> bool:
    if not rules.may_evaluate:
        raise Undecided
    from megatron_rl.rewards.values import is_finished, is_same_value

    gold = read_or_none(reference)
    if gold is None:
        return is_same_by_math_verify(reference, answer)
    tree = read_or_none(answer)
    if tree is None:
        return False
    if not symbols(gold) and (symbols(tree) or not is_finished(tree, gold)):
        return False
    return is_same_value(gold, tree, rules.relative_tolerance)


def read_or_none(text: str) -> Tree | None:
    """The tree of a text in plain form, None where the grammar does not cover it."""
    try:
        return read_expression(text)
    except Unreadable:
        return None


_UNEVALUATED = re.compile(r"\\(?:sum|int|iint|oint|prod|lim|limsup|liminf|bigcup|frac ?\{ ?d)(?![A-Za-z])|∑|∫")
_TOWER = re.compile(r"\^[^^]{0,12}\^|\^ ?\{? ?[0-9]{4}|[0-9]{4}[ )}]*!|\^.*!")
MAX_NESTING = 8  # math-verify takes seconds for 12 brackets in one another
MAX_CHARACTERS = 300


def is_same_by_math_verify(reference: str, answer: str) -> bool:
    """math-verify's verdict; it is asked about references that the grammar here does not cover.

    Raises ValueError where it can not read the reference either.
    """
    from math_verify import LatexExtractionConfig, parse, verify

    from megatron_rl.rewards.values import is_bounded

    tree = read_or_none(answer)
    if tree is not None and not is_bounded(tree):
        return False
    if _TOWER.search(answer) or len(answer) > MAX_CHARACTERS or nesting(answer) > MAX_NESTING:
        return False
    if _UNEVALUATED.search(answer) and not _UNEVALUATED.search(reference):
        return False
    # LaTeX only: the plain-expression target of math-verify evaluates text with sympy's parse_expr.
    # Its own time limits are alarms, which a long C call ignores and a thread can not set; the worker's limit is used.
    gold, value = (
        parse(f"\\boxed{{{text}}}", [LatexExtractionConfig()], parsing_timeout=None) for text in (reference, answer)
    )
    if not gold:
        raise ValueError(f"the reference answer {reference!r} can not be read; drop the row or mend it")
    return bool(verify(gold, value, timeout_seconds=None, raise_on_error=True))


def nesting(text: str) -> int:
    """How deep the brackets of `text` stand in one another.

    >>> nesting("(1+[2])(3)")
    2
    """
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest
