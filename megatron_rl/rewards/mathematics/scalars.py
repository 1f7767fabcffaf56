r"""Whether two single values are the same: numbers, quantities, choices, digits in a base, residues, ratios, words.

All texts are in plain form. Anything else is an expression and undecided where it may not be evaluated.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from megatron_rl.rewards.mathematics.clock import is_same_time
from megatron_rl.rewards.mathematics.expressions import FUNCTIONS
from megatron_rl.rewards.mathematics.notation import compact
from megatron_rl.rewards.mathematics.numbers import plain_number
from megatron_rl.rewards.mathematics.quantities import PERCENT, split_unit
from megatron_rl.rewards.mathematics.structures import DOTS


class Rules(NamedTuple):
    """How to compare: whether expressions may be evaluated here, how far apart closed values may be, and the name of an
    integer that both run over."""

    may_evaluate: bool
    relative_tolerance: float = 0.0
    parameter: str = ""


class Undecided(Exception):  # noqa: N818 - it is an outcome, not an error
    """The verdict needs an expression to be evaluated."""


_NAMES = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_BASES = {name: base for base, name in enumerate(_NAMES, 2)} | {"sixteen": 16}
_NUMERAL = rf"[0-9]{{1,2}}|{'|'.join(_BASES)}"
_IN_BASE = re.compile(
    r"\(?(?P<digits>[0-9][0-9A-Fa-f]*|[A-F]+[0-9][0-9A-F]*|[A-F]{2,})\)? ?"
    rf"(?:_ ?[{{( ]*(?:\\text ?\{{ ?)?(?P<index>{_NUMERAL})"
    rf"|\(?(?:\\text ?\{{)? ?\(?(?:in )?base ?\}}? ?(?P<named>{_NUMERAL}))[)}} ]*"
)
_MODULO = re.compile(r"(?P<residue>.+?) ?\(? ?\\(?P<kind>pmod|bmod|mod) ?\{? ?(?P<modulus>[0-9]{1,1000}) ?\}? ?\)?")
_CHOICE = re.compile(r"(?:\\text ?\{ ?)*(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer:?) )?\(?([A-Za-z])[).:]?[ }]*")
_CHOICE_AND_TEXT = re.compile(r"(?:\\text ?\{ ?)*(?:\(([A-Z])\)|([A-Z])[.):])[ }]*(?P<rest>\S.*)")
_LABELLED = re.compile(
    r"\\text ?\{ ?\((?P<letter>[A-Z])\) ?(?:\} ?(?P<rest>[^ }].*)|(?P<inside>[^{}]*[^{} ]) ?\})"
    r"|\((?P<bare>[A-Z])\) (?P<value>[-0-9\\].*)"
)
_DENIED = re.compile(
    r"(?:is |are )(?:not|false|wrong|incorrect)|(?:not [a-z]|wrong|incorrect)(?![A-Za-z])", re.IGNORECASE
)
_CHOICE_AND_VALUE = re.compile(r"\\text ?\{ ?\([A-Z]\) ?\} ?([^A-Z(]+)")
_RATIO = re.compile(r":|\\text ?\{ ?to ?\}|(?<=[0-9]) to (?=[0-9])")
_UNWRAPPED = re.compile(r"\\text ?\{([^{}]*)\}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z .,'\":!?-]*")
_SHORT_WORDS = frozenset(("yes", "no", "odd", "even", "true", "false", "none", "all", "dne"))
_NOT_WORDS = frozenset((*FUNCTIONS, "sqrt", "infty", "infinity", "frac"))
_DEGREES, _RADIANS = {"deg": 1}, {"rad": 1}
_FULL_NAMES = """
    monday mon tuesday tue tues wednesday wed weds thursday thu thur thurs friday fri saturday sat sunday sun
    january jan february feb march mar april apr june jun july jul august aug september sep sept october oct
    november nov december dec
"""
_ABBREVIATIONS: dict[str, str] = {}
for _name in _FULL_NAMES.split():
    _ABBREVIATIONS[_name] = next((full for full in _ABBREVIATIONS if full.startswith(_name)), _name)
_REASON = re.compile(r"(?P<verdict>yes|no) ?(?:[,.;:!-]|because|since) ?(?P<reason>[a-z][a-z .,'\";:!-]*)")
_HEDGED = frozenset(("or", "but", "if", "unless", "except", "maybe", "perhaps", "only", "sometimes", "depends", "wait"))
_UNSURE = {"yes": _HEDGED | {"no", "not", "never", "false", "impossible"}, "no": _HEDGED | {"yes", "true"}}
_ARTICLES = frozenset(("the", "a", "an"))


def is_same_scalar(reference: str, answer: str, rules: Rules, *, may_have_units: bool = True) -> bool:
    """Whether an answer has the value of the reference.

    Raises Undecided where that takes an evaluation the rules do not allow.
    """
    if compact(reference) == compact(answer):
        return True
    value, other = plain_number(reference), plain_number(answer)
    if value is not None and other is not None:
        return _is_near(value, other, rules)
    if DOTS in reference or DOTS in answer:
        return False
    if labelled := _choice_and_content(reference):  # \text{(B)} 12 is answered by B and by 12
        return _is_same_labelled(*labelled, answer, rules)
    match = _CHOICE_AND_VALUE.fullmatch(answer)
    if match and not _CHOICE.fullmatch(reference):
        return is_same_scalar(reference, match[1], rules, may_have_units=may_have_units)
    for is_same in (is_same_time, _is_same_choice, _is_same_in_base, _is_same_modulo, _is_same_ratio, _is_same_wording):
        verdict = is_same(reference, answer)
        if verdict is not None:
            return verdict
    if not may_have_units:
        return _is_same_expression(reference, answer, rules)
    return _is_same_quantity(reference, answer, value is not None, rules)


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


def _is_near(reference: Fraction, value: Fraction, rules: Rules) -> bool:
    return abs(reference - value) <= Fraction(rules.relative_tolerance) * abs(reference)


def _is_same_choice(reference: str, answer: str) -> bool | None:
    """The letter of a multiple choice, with or without brackets and the text of the choice."""
    match = _CHOICE.fullmatch(reference)
    if match is None or not match[1].isupper():
        return None
    if named := _CHOICE_AND_TEXT.fullmatch(answer):
        names_another = re.search(r"(?<![A-Za-z\\])[A-Z](?![A-Za-z])", named["rest"])
        return not names_another and not _DENIED.match(named["rest"]) and (named[1] or named[2]) == match[1]
    chosen = _CHOICE.fullmatch(answer)
    if chosen is None:
        return None
    return chosen[1] == match[1] or (match[1] in "ABCDE" and chosen[1].upper() == match[1])


def _is_same_labelled(letter: str, content: str, answer: str, rules: Rules) -> bool:
    """Whether an answer is the letter of a choice, its content or both."""
    if chosen := _CHOICE.fullmatch(answer):
        return chosen[1].upper() == letter
    other = _choice_and_content(answer)
    if other is None:
        return is_same_scalar(content, answer, rules)
    return other[0] == letter and is_same_scalar(content, other[1], rules)


def _choice_and_content(text: str) -> tuple[str, str] | None:
    match = _LABELLED.fullmatch(text)
    if match is None:
        return None
    return match["letter"] or match["bare"], match["rest"] or match["inside"] or match["value"]


def _is_same_in_base(reference: str, answer: str) -> bool | None:
    """Digits with a base, as 1011_2; without one they are decimal. The base is part of the answer."""
    digits, others = _in_base(reference), _in_base(answer)
    if digits is None and others is None:
        return None
    return (digits or (plain_number(reference), 10)) == (others or (plain_number(answer), 10))


def _in_base(text: str) -> tuple[Fraction, int] | None:
    match = _IN_BASE.fullmatch(text)
    if match is None:
        return None
    name = match["index"] or match["named"]
    base = _BASES[name] if name in _BASES else int(name)
    try:
        return (Fraction(int(match["digits"], base)), base) if 2 <= base <= 36 else None
    except ValueError:  # a digit that the base does not have
        return None


def _is_same_modulo(reference: str, answer: str) -> bool | None:
    r"""Residues, as 3 \pmod 7, of which either side may leave out the modulus; 12 \bmod 7 is a calculation."""
    matches = _MODULO.fullmatch(reference), _MODULO.fullmatch(answer)
    if matches == (None, None):
        return None
    residue, other = (
        plain_number(match["residue"] if match else text)
        for match, text in zip(matches, (reference, answer), strict=True)
    )
    if residue is None or other is None:
        return False
    if matches[0] is None or matches[1] is None:
        return residue == other and (matches[1] is None or matches[1]["kind"] == "pmod")
    moduli = int(matches[0]["modulus"]), int(matches[1]["modulus"])
    return moduli[0] == moduli[1] > 0 and (residue - other) % moduli[0] == 0


def _is_same_ratio(reference: str, answer: str) -> bool | None:
    """Ratios, as 3:2; one of two parts may be written as a fraction."""
    ratio, other = ([plain_number(part.strip()) for part in _RATIO.split(text)] for text in (reference, answer))
    if len(ratio) == len(other) == 1:
        return None
    if None in ratio or None in other:
        return False if len(ratio) > 1 and None not in ratio else None
    parts, others = (
        [part for part in (*side, Fraction(1))[: max(2, len(side))] if part is not None] for side in (ratio, other)
    )
    if len(parts) != len(others) or not parts[0] or not others[0]:
        return False
    return all(a * others[0] == b * parts[0] for a, b in zip(parts, others, strict=True))


def _is_same_wording(reference: str, answer: str) -> bool | None:
    """Words in text, but for case, articles and punctuation."""
    wording, other = words(reference), words(answer)
    if wording is None and other is None:
        unwrapped, others = (compact(" ".join(_UNWRAPPED.sub(r"\1", text).split())) for text in (reference, answer))
        return True if "\\text" in reference + answer and unwrapped == others else None
    if _is_explained(reference, answer) or _is_explained(answer, reference):
        return True
    loose = [words(f"\\text{{{text}}}") if text.isalpha() else None for text in (reference, answer)]
    first, second = wording or loose[0], other or loose[1]
    return first == second or bool(first and second and _in_full(first) == _in_full(second))


def _in_full(wording: tuple[str, ...]) -> tuple[str, ...]:
    """Words with the names of days and months written out."""
    return tuple(_ABBREVIATIONS.get(word, word) for word in wording)


def _is_explained(short: str, long: str) -> bool:
    """Whether a text says yes or no and the other says the same with words that keep to it."""
    match = _REASON.fullmatch(" ".join(_UNWRAPPED.sub(r" \1 ", long).lower().split()))
    if match is None or words(short) != (match["verdict"],):
        return False
    return _UNSURE[match["verdict"]].isdisjoint(re.findall(r"[a-z']+", match["reason"]))


def _is_same_quantity(reference: str, answer: str, reference_is_number: bool, rules: Rules) -> bool:
    """Values with units, which may be left out on one side; percent may be a hundredth."""
    (text, unit), (other_text, other_unit) = split_unit(reference, False), split_unit(answer, reference_is_number)
    if (unit, other_unit) == (_DEGREES, _RADIANS):
        return _is_same_expression(rf"\frac{{\pi ({text})}}{{180}}", other_text, rules)
    if (unit, other_unit) == (_RADIANS, _DEGREES):
        return _is_same_expression(text, rf"\frac{{\pi ({other_text})}}{{180}}", rules)
    if (unit == _DEGREES) != (other_unit == _DEGREES) and "\\circ" in (answer if unit else reference):  # 180^\circ k
        return _is_same_expression(reference, answer, rules)
    if unit and other_unit and unit != other_unit:
        return False
    value, other = plain_number(text), plain_number(other_text)
    if value is None or other is None:
        if (text, other_text) != (reference, answer):
            return is_same_scalar(text, other_text, rules, may_have_units=False)
        return _is_same_expression(text, other_text, rules)
    if unit == PERCENT and not other_unit:
        return _is_near(value, other, rules) or _is_near(value / 100, other, rules)
    if other_unit == PERCENT and not unit:  # 5% for 5 and for 0.05, but 0.05% for neither
        return (abs(value) >= 1 and _is_near(value, other, rules)) or (
            abs(value) <= 1 and _is_near(value, other / 100, rules)
        )
    return _is_near(value, other, rules)


def _is_same_expression(reference: str, answer: str, rules: Rules) -> bool:
    if not rules.may_evaluate:
        raise Undecided
    from megatron_rl.rewards.mathematics.symbolic import is_same_expression

    return is_same_expression(reference, answer, rules.relative_tolerance, rules.parameter)
