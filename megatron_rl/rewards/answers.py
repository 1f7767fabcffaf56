r"""The structure of an answer, read from its plain form: values, lists, sets, tuples, intervals, relations, matrices.

Inequalities in one symbol become intervals, `a \pm b` becomes two values, `x = 5` the value 5 with the label x.
What has no structure known here, as a chain of equalities, is of the kind "other" and equals its own text only.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from megatron_rl.rewards.notation import compact
from megatron_rl.rewards.numbers import plain_number
from megatron_rl.rewards.scalars import words

MAX_DEPTH = 12
MAX_PRODUCT_CHARACTERS = 100
Kind = Literal["value", "list", "set", "tuple", "union", "matrix", "relation", "approximation", "other"]


class Answer(NamedTuple):
    """One part of an answer, or all of it."""

    kind: Kind
    text: str  # compact; two answers with the same text are the same
    value: str = ""  # of a value: plain, without the label
    parts: tuple[Answer, ...] = ()
    brackets: str = ""  # of a tuple or interval; the operator of a relation
    label: str = ""  # what stands before `=` or in an inequality


_OPEN = r"\\begin ?\{[a-zA-Z*]+\}|\\\{|\\langle(?![A-Za-z])|\\lfloor(?![A-Za-z])|\\lceil(?![A-Za-z])|[(\[{]"
_CLOSE = r"\\end ?\{[a-zA-Z*]+\}|\\\}|\\rangle(?![A-Za-z])|\\rfloor(?![A-Za-z])|\\rceil(?![A-Za-z])|[)\]}]"


def _separator(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?P<separator>{pattern})|(?P<open>{_OPEN})|(?P<close>{_CLOSE})|\\\\|\\[A-Za-z]+|\\.")


_AND_OR = r"\\text ?\{ ?,? ?(?:and|or) ?\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\(?:land|lor|wedge|vee)(?![A-Za-z])"
_ITEM = _separator(rf"{_AND_OR}|[,;]")
_CUP = _separator(r"\\(?:cup|bigcup)(?![A-Za-z])")
_MINUS_SET = _separator(r"\\(?:setminus|backslash)(?![A-Za-z])|-(?= ?\\\{)")
_RELATION = _separator(r"[=<>]|\\(?:le|ge|ne|approx|in|equiv)(?![A-Za-z])")
_SUCH_THAT = _separator(r"\\mid(?![A-Za-z])|[|:]")
_ROW = _separator(r"\\\\(?: ?\[[^\]]*\])?")
_CELL = _separator("&")

_THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9]|,[0-9])")
_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
_MATRIX = re.compile(
    r"(?P<factor>[^=<>&]*?)\\begin ?\{(?:[pbB]|small)?(?:matrix|array)\} ?(?:\{[lcr| ]*\})?(?P<rows>.*)\\end ?\{[a-zA-Z]+\}",
    re.DOTALL,
)
_INTEGER_SYMBOL = re.compile(r"[a-z] ?\\in ?\\mathbb ?\{Z\}")  # x = 2k\pi, k \in \mathbb{Z}: may be left out
_PREFIX = re.compile(r"\\text ?\{[^{}]*[:=] ?\} ?(?=\S)")  # \text{Answer: }
_ALIGNED = re.compile(r"\\begin ?\{(aligned|align\*?|gathered|split)\}(.*)\\end ?\{\1\}", re.DOTALL)
_BRACKETED = re.compile(r"(\\\{|\\langle(?![A-Za-z])|[(\[{])(.*?)(\\\}|\\rangle|[)\]}])", re.DOTALL)
_REALS = "(-\\infty,\\infty)"
_SYNONYMS = {
    "infinity": r"\infty",
    "positive infinity": r"\infty",
    "negative infinity": r"-\infty",
    "all real numbers": _REALS,
    "all reals": _REALS,
    r"\mathbb{R}": _REALS,
    "empty set": r"\emptyset",
    "no solution": r"\emptyset",
    "no solutions": r"\emptyset",
    "no real solution": r"\emptyset",
    "no real solutions": r"\emptyset",
    "dne": r"\text{does not exist}",
}
# A symbol with indices and primes, f(x), |z|, \angle ABC, AB, words; and sums or products of symbols without numbers.
_NAME = r"(?:(?:\\[A-Za-z]+(?![A-Za-z])|[A-Za-z])(?:_ ?(?:\{[^{}]*\}|[A-Za-z0-9]))?'*)"
_LABEL = re.compile(
    rf"(?:\\text ?\{{[^{{}}]*\}} ?)?(?:m ?\\angle |\\angle |\\triangle |\|)?(?:\\(?:overline|vec|bar|hat) ?\{{)?"
    rf"{_NAME}(?: ?[+-]? ?{_NAME})*\}}?\|?(?: ?\^ ?\{{ ?-1 ?\}})?(?: ?\([^()=<>]*\))?|\\frac ?\{{ ?d[^{{}}]*\}} ?\{{ ?d[a-z] ?\}}|\\text ?\{{[^{{}}]*\}}|\( ?{_NAME}(?: ?, ?{_NAME})+ ?\)"
)
_NO_LABEL = re.compile(r"\\(?:sum|int|prod|lim|infty|pi|sqrt|cdot|times|sin|cos|tan|log|ln|binom)(?![A-Za-z])|^[ei]$")


def read_answer(text: str) -> Answer:
    r"""The structure of a text in plain form.

    >>> read_answer("x = 5"), read_answer("1 < x \\le 2").brackets
    (Answer(kind='value', text='x=5', value='5', parts=(), brackets='', label='x'), '(]')
    """
    if not text.startswith(("(", "[", "\\{", "{")) or re.search(r", |;", text):
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    return _read(text, 0)._replace(text=compact(text))


def _read(text: str, depth: int) -> Answer:
    text = _PREFIX.sub("", text.lstrip("+ ,;").rstrip(" .,;"))
    if depth > MAX_DEPTH:
        return Answer("other", compact(text))
    if found := words(text):
        text = _SYNONYMS.get(" ".join(found), text)
    text = _SYNONYMS.get(text, text)
    if whole := _TEXT.fullmatch(text):
        pieces = [piece for piece in _split(whole[1], _ITEM)[0] if piece]
        if len(pieces) > 1:
            return Answer(
                "list", compact(text), parts=tuple(_read(f"\\text{{{piece}}}", depth + 1) for piece in pieces)
            )
        return _read(whole[1], depth + 1) if found is None else Answer("value", compact(text), text)
    readers = (_read_items, _read_words, _read_plus_minus, _read_matrix, _read_relation, _read_union, _read_brackets)
    for reader in readers:
        answer = reader(text, depth)
        if answer is not None:
            return answer if answer.text else answer._replace(text=compact(text))
    return Answer("value", compact(text), text)


def _split(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """The pieces between the separators that stand in no brackets, and the separators."""
    pieces, found, start, depth = [], [], 0, 0
    for match in separator.finditer(text):
        if match["open"]:
            depth += 1
        elif match["close"]:
            depth -= 1
        elif match["separator"] and depth <= 0:
            pieces.append(text[start : match.start()].strip())
            found.append(match[0])
            start = match.end()
    return [*pieces, text[start:].strip()], found


def _read_items(text: str, depth: int) -> Answer | None:
    pieces, separators = _split(text, _ITEM)
    if not separators:
        return None
    parts = [_read(piece, depth + 1) for piece in pieces if piece and not _INTEGER_SYMBOL.fullmatch(piece)]
    if len(parts) == 1 and len(pieces) > 1 and any(_INTEGER_SYMBOL.fullmatch(piece) for piece in pieces):
        return parts[0]
    parts = [inner for part in parts for inner in (part.parts if part.kind == "list" else (part,))]
    return _joined_regions(parts) or Answer("list", compact(text), parts=tuple(parts))


def _joined_regions(parts: list[Answer]) -> Answer | None:
    """The set of real numbers that inequalities in one symbol describe together, None where they do not."""
    if parts and _removed_points(parts[0]):  # x \ne 0, x \ne 1 or x \ne 0, 1
        removed = [_removed_points(part) if part.label == parts[0].label else [part.value] for part in parts]
        points = [point for some in removed for point in some]
        are_numbers = all(plain_number(point) is not None for point in points)
        return _without(points, parts[0].label) if are_numbers else None
    labels = {part.label for part in parts}
    is_region = [part.kind in ("tuple", "union") for part in parts]
    if len(labels) != 1 or labels == {""} or not any(is_region):
        return None
    label = parts[0].label
    for part, other in (parts, parts[::-1]) if len(parts) == 2 else ():
        if part.kind == "tuple" and (without := _removed_points(other)):
            return _union(_interval_without(part, without), label)
    if len(parts) == 2 and all(part.kind == "tuple" for part in parts):
        low, high = sorted(parts, key=lambda part: part.parts[0].text == "-\\infty")
        if low.parts[1].text == "\\infty" and high.parts[0].text == "-\\infty":
            bounds = plain_number(low.parts[0].value), plain_number(high.parts[1].value)
            if bounds[0] is not None and bounds[1] is not None and bounds[0] < bounds[1]:
                return _interval(low.parts[0].value, high.parts[1].value, low.brackets[0] + high.brackets[1], label)
    pieces = [
        piece
        for part in parts
        for piece in (part.parts if part.kind == "union" else (part,) if part.kind == "tuple" else (_set((part,)),))
    ]
    return _union(pieces, label)


def _read_words(text: str, depth: int) -> Answer | None:
    return Answer("value", compact(text), text) if words(text) is not None else None


def _read_plus_minus(text: str, depth: int) -> Answer | None:
    if text.startswith("\\{") or not re.search(r"\\(?:pm|mp)(?![A-Za-z])", text):
        return None
    both = []
    for plus, minus in ("+-", "-+"):
        signed = re.sub(r"\\pm(?![A-Za-z]) ?", plus, re.sub(r"\\mp(?![A-Za-z]) ?", minus, text))
        both.append(_read(signed, depth + 1))
    return Answer("list", compact(text), parts=tuple(both))


def _read_matrix(text: str, depth: int) -> Answer | None:
    if aligned := _ALIGNED.fullmatch(text):
        rows = _split(aligned[2], _ROW)[0]
        return _read(",".join(row.replace("&", "") for row in rows if row), depth + 1)
    match = _MATRIX.fullmatch(text)
    if match is None or "\\begin" in match["rows"]:
        return None
    rows = [_split(row, _CELL)[0] for row in _split(match["rows"], _ROW)[0] if row and row != "\\hline"]
    if factor := {"-": "-1"}.get(match["factor"].strip(), match["factor"].strip()):
        rows = [[_product(factor, cell) for cell in row] for row in rows]
    parts = [Answer("tuple", "&".join(row), parts=tuple(_read(cell, depth + 1) for cell in row)) for row in rows]
    return Answer("matrix", compact(text), parts=tuple(parts))


def _product(factor: str, cell: str) -> str:
    value, other = plain_number(factor), plain_number(cell)
    if value is None or other is None or len(factor) + len(cell) > MAX_PRODUCT_CHARACTERS:
        return f"({factor})({cell})"
    product = value * other
    return f"{product.numerator}/{product.denominator}"


def _read_relation(text: str, depth: int) -> Answer | None:
    operands, operators = _split(text, _RELATION)
    if operators and not operands[0] and operators[0] in ("=", "\\approx"):  # "= 5"
        operands, operators = operands[1:], operators[1:]
        if not operators:
            return _read(operands[0], depth + 1)._replace(text=compact(text))
    if not operators:
        return None
    if not all(operands):
        return Answer("other", compact(text))
    if len(operators) == 1:
        return _read_single_relation(operands[0], operators[0], operands[1], depth)
    if operators == ["=", "\\approx"] and is_label(operands[0]):
        return _approximation(operands[1], operands[2], compact(operands[0]))
    if len(operators) == 2 and is_label(operands[1]):
        if set(operators) <= {">", "\\ge"}:
            operands, operators = operands[::-1], [{">": "<", "\\ge": "\\le"}[sign] for sign in operators[::-1]]
        if set(operators) <= {"<", "\\le"}:
            brackets = ("(" if operators[0] == "<" else "[") + (")" if operators[1] == "<" else "]")
            return _interval(operands[0], operands[2], brackets, compact(operands[1]))
    return Answer("other", compact(text))


def _read_single_relation(left: str, sign: str, right: str, depth: int) -> Answer:
    text = compact(left + sign + right)
    if sign in ("<", ">", "\\le", "\\ge"):
        return _half_line(left, sign, right) or _relation(left, sign, right)
    if not is_label(left) and is_label(right) and not re.search("[A-Za-z]", left):
        left, right = right, left
    if is_label(left):
        if sign == "\\ne" and (value := plain_number(right)) is not None:
            return _without([right], compact(left)) if value is not None else Answer("other", text)
        if sign in ("=", "\\in", "\\approx", "\\equiv"):
            answer = _read(right, depth + 1)
            if answer.label or answer.kind in ("relation", "approximation", "other"):
                return Answer("other", text)
            return answer._replace(label=compact(left), text=text)
    if sign == "\\approx":
        return _approximation(left, right, "")
    return _relation(left, sign, right) if sign == "=" else Answer("other", text)


def _half_line(left: str, sign: str, right: str) -> Answer | None:
    if is_label(right) and not is_label(left):
        left, right, sign = right, left, {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}[sign]
    if not is_label(left):
        return None
    if sign in ("<", "\\le"):
        return _interval("-\\infty", right, "()" if sign == "<" else "(]", compact(left))
    return _interval(right, "\\infty", "()" if sign == ">" else "[)", compact(left))


def _read_union(text: str, depth: int) -> Answer | None:
    pieces, separators = _split(text, _CUP)
    if separators:
        parts = [_read(piece, depth + 1) for piece in pieces]
        return _union([piece for part in parts for piece in (part.parts if part.kind == "union" else (part,))], "")
    pieces, separators = _split(text, _MINUS_SET)
    if len(separators) != 1:
        return None
    interval, removed = (_read(piece, depth + 1) for piece in pieces)
    if interval.kind != "tuple" or removed.kind != "set":
        return None
    points = [part.value for part in removed.parts]
    are_numbers = all(plain_number(point) is not None for point in points)
    return _union(_interval_without(interval, points), "") if are_numbers and len(interval.parts) == 2 else None


def _read_brackets(text: str, depth: int) -> Answer | None:
    match = _BRACKETED.fullmatch(text)
    if match is None or not _encloses(text):
        return None
    opening, inside, closing = (part.strip() for part in match.groups())
    if opening == "\\{":
        pieces, separators = _split(inside, _SUCH_THAT)
        if len(separators) == 1:
            return _read_set_by_condition(pieces[0], pieces[1], depth)
    pieces, separators = _split(inside, _ITEM)
    if opening in ("\\{", "{") and (separators or opening == "\\{"):
        parts = [_read(piece, depth + 1) for piece in pieces if piece]
        return _set(tuple(inner for part in parts for inner in (part.parts if part.kind == "list" else (part,))))
    if not separators:
        return _read(inside, depth + 1) if opening in "({" else None
    brackets = "()" if opening == "\\langle" else opening + closing
    parts = [_read(piece, depth + 1) for piece in pieces]
    if len(parts) == 2 and brackets != "()" and parts[0].kind == parts[1].kind == "value":
        return _interval(parts[0].value, parts[1].value, brackets, "")
    return Answer("tuple", "", parts=tuple(parts), brackets=brackets)


def _read_set_by_condition(element: str, condition: str, depth: int) -> Answer:
    described = _read(condition, depth + 1)
    name = compact(_split(element, _RELATION)[0][0])  # of x, or of x \in \mathbb{R}
    if described.kind in ("tuple", "union") and described.label == name:
        return described
    return Answer("tuple", "", parts=(_read(element, depth + 1), described), brackets="|")


def _encloses(text: str) -> bool:
    """Whether the first bracket of the text closes with its last."""
    depth = 0
    for match in _ITEM.finditer(text):
        depth += bool(match["open"]) - bool(match["close"])
        if depth == 0 and match["close"]:
            return match.end() == len(text)
    return False


def _interval(low: str, high: str, brackets: str, label: str) -> Answer:
    if low in ("-\\infty", "- \\infty"):
        low, brackets = "-\\infty", "(" + brackets[1]
    if high in ("\\infty", "+\\infty", "+ \\infty"):
        high, brackets = "\\infty", brackets[0] + ")"
    parts = (Answer("value", compact(low), low), Answer("value", compact(high), high))
    text = f"{label}\\in{brackets[0]}{compact(low)},{compact(high)}{brackets[1]}"
    return Answer("tuple", text.removeprefix("\\in"), parts=parts, brackets=brackets, label=label)


def _removed_points(union: Answer) -> list[str]:
    """The points that a union of open intervals leaves out of the real line, none where it leaves out more."""
    ends = [end for piece in union.parts if piece.brackets == "()" for end in piece.parts]
    if union.kind != "union" or not ends or len(ends) != 2 * len(union.parts):
        return []
    inner = [end.value for end in ends[1:-1]]
    is_line = (ends[0].value, ends[-1].value) == ("-\\infty", "\\infty")
    return inner[::2] if is_line and inner[::2] == inner[1::2] else []


def _interval_without(interval: Answer, points: list[str]) -> list[Answer]:
    """The pieces between the points, which are plain numbers, that lie in the interval."""
    low, high = (plain_number(part.value) for part in interval.parts)
    values = sorted((value, point) for point in set(points) if (value := plain_number(point)) is not None)
    inside = [point for value, point in values if (low is None or low < value) and (high is None or value < high)]
    ends = [interval.parts[0].value, *inside, interval.parts[1].value]
    sides = interval.brackets[0] + ")(" * len(inside) + interval.brackets[1]
    return [
        _interval(ends[index], ends[index + 1], sides[2 * index : 2 * index + 2], "") for index in range(len(ends) - 1)
    ]


def _without(points: list[str], label: str) -> Answer:
    """The real numbers without some."""
    return _union(_interval_without(_interval("-\\infty", "\\infty", "()", ""), points), label)


def _union(pieces: list[Answer], label: str) -> Answer:
    """Intervals in any order, then all single points as one set."""
    points = tuple(point for piece in pieces if piece.kind == "set" for point in piece.parts)
    parts = [piece._replace(label="") for piece in pieces if piece.kind != "set"] + ([_set(points)] if points else [])
    text = f"{label}\\in" + "\\cup".join(piece.text for piece in parts)
    return Answer("union", text.removeprefix("\\in"), parts=tuple(parts), label=label)


def _set(parts: tuple[Answer, ...]) -> Answer:
    parts = tuple({part.text: part for part in parts}.values())
    return Answer("set", "\\{" + ",".join(part.text for part in parts) + "\\}", parts=parts)


def _relation(left: str, sign: str, right: str) -> Answer:
    sides = tuple(Answer("value", compact(side), side) for side in (left, right))
    return Answer("relation", compact(left + sign + right), parts=sides, brackets=sign)


def _approximation(exact: str, decimal: str, label: str) -> Answer:
    sides = tuple(Answer("value", compact(side), side) for side in (exact, decimal))
    return Answer("approximation", compact(f"{label}={exact}\\approx {decimal}"), parts=sides, label=label)


def is_label(text: str) -> bool:
    """Whether a text can stand before an answer: it names something and has no numbers to work out."""
    return len(text) < 60 and bool(_LABEL.fullmatch(text)) and not _NO_LABEL.search(text)
