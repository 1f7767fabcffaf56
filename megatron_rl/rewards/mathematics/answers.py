r"""The structure of an answer, read from its plain form: values, lists, sets, tuples, intervals, relations, matrices.

Inequalities in one symbol become intervals, `a \pm b` becomes two values, `x = 5` the value 5 with the label x.
What has no structure known here, as a chain of equalities, is of the kind "other" and equals its own text only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from megatron_rl.rewards.mathematics.labels import is_denial, is_label, is_variable
from megatron_rl.rewards.mathematics.notation import compact
from megatron_rl.rewards.mathematics.numbers import plain_number
from megatron_rl.rewards.mathematics.scalars import words
from megatron_rl.rewards.mathematics.structures import (
    EMPTY,
    REALS,
    Answer,
    join_inequalities,
    make_interval,
    make_set,
    make_union,
    make_value,
    without_dots,
    without_points,
)

MAX_DEPTH = 12
MAX_PRODUCT_CHARACTERS = 100

_OPEN = r"\\begin ?\{[a-zA-Z*]+\}|\\\{|\\langle(?![A-Za-z])|\\lfloor(?![A-Za-z])|\\lceil(?![A-Za-z])|[(\[{]"
_CLOSE = r"\\end ?\{[a-zA-Z*]+\}|\\\}|\\rangle(?![A-Za-z])|\\rfloor(?![A-Za-z])|\\rceil(?![A-Za-z])|[)\]}]"


def _separator(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?P<separator>{pattern})|(?P<open>{_OPEN})|(?P<close>{_CLOSE})|\\\\|\\[A-Za-z]+|\\.")


_AND_OR = r"\\text ?\{ ?,? ?(?:and|or) ?\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\(?:land|lor)(?![A-Za-z])"
_ITEM = _separator(rf"{_AND_OR}|[,;]")
_CUP = _separator(r"\\(?:cup|bigcup)(?![A-Za-z])")
_SET_MINUS = _separator(r"\\(?:setminus|backslash)(?![A-Za-z])|-(?= ?\\\{)")
_RELATION = _separator(r"[=<>]|\\(?:le|ge|ne|approx|in|equiv)(?![A-Za-z])")
_SUCH_THAT = _separator(r"\\mid(?![A-Za-z])|[|:]")
_ROW = _separator(r"\\\\(?: ?\[[^\]]*\])?")
_CELL = _separator("&")
_OPPOSITE = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}

_THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9]|,[0-9])")
_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
_ADVERB = r"(?:[Ee]xactly|[Pp]recisely|[Oo]nly|[Jj]ust|[Ee]quals?|[Aa]pproximately|[Aa]bout|[Rr]oughly)"
_TRANSPOSED = re.compile(r"([(\[][^()\[\]]*,[^()\[\]]*[)\]]) ?\^ ?\{? ?(?:T|\\top|\\text ?\{ ?T ?\}) ?\}?")
_PREFIX = re.compile(  # \text{Answer: }, \text{The final answer is }, \text{exactly }
    rf"\\text ?\{{ ?([^{{}}]*[:=]|(?:[Tt]he )?(?:[Ff]inal |[Cc]orrect )?(?:[Aa]nswer|[Rr]esult|[Ss]olution) "
    rf"(?:is|equals)|{_ADVERB}) ?\}} ?(?=\S)|{_ADVERB} (?=\S)"
)
_INTEGER_SYMBOL = re.compile(r"[a-z] ?\\in ?\\mathbb ?\{Z\}")  # x = 2k\pi, k \in \mathbb{Z}: may be left out
_PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![A-Za-z]) ?")
_ALIGNED = re.compile(r"\\begin ?\{(aligned|align\*?|gathered|split)\}(.*)\\end ?\{\1\}", re.DOTALL)
_MATRIX = re.compile(r"\\begin ?\{([pbB]?(?:small)?matrix\*?|array)\} ?(?:\[[a-z]\])? ?(?:\{[lcr| ]*\})?")
_MATRIX_END = re.compile(r"\\end ?\{([a-zA-Z*]+)\} ?([)\]]?)")
_CASES = re.compile(
    r"(?:\\\{ ?\\begin ?\{array\} ?\{[lcr| ]*\}|(?:\\\{ ?)?\\begin ?\{cases\})(.*)\\end ?\{(?:cases|array)\}", re.DOTALL
)
_IF = re.compile(r"^\\text ?\{ ?(?:if|for|when|where) ?(?:\}|(?=\S))")
_IS = re.compile(r"(?<=[ {])(?:is|are) (?:an? )?")
_BRACKETED = re.compile(r"(\\\{|\\langle(?![A-Za-z])|[(\[{])(.*?)(\\\}|\\rangle|[)\]}])", re.DOTALL)
_FRENCH = re.compile(  # ]0,1] and [0,1[, where an interval may stand
    r"(?:(?<=\\cup)|(?<=\\in)|(?<=\\cup )|(?<=\\in )|^) ?"
    r"([\[\]])([^\[\],;]{1,100}[,;][^\[\],;]{1,100})([\[\]])(?= ?(?:$|\\(?:cup|setminus)(?![A-Za-z])))"
)
_SIZE = re.compile(r"\|([a-vxyA-Z])([+-][^|]+)?\|")  # z and w may be complex
_TERM = re.compile(r"[^-+=]+")
_REALS = "(-\\infty,\\infty)"
_NOTHING = re.compile(  # no real solutions, there is no such x
    r"(?:there (?:is|are|exists?) )?no (?:(?:such|real|integer|integral|rational|positive|natural|possible|valid) )*"
    r"(?:solutions?|roots?|numbers?|integers?|values?|pairs?|triples?|functions?|polynomials?|(?<=such )[a-z])"
    r"(?: exists?)?"
)
_SYNONYMS = {
    "infinity": "\\infty",
    "positive infinity": "\\infty",
    "negative infinity": "-\\infty",
    **dict.fromkeys(("all real numbers", "all reals", "\\mathbb{R}"), _REALS),
    **dict.fromkeys(("empty set", "none"), EMPTY),
    **dict.fromkeys(("infinitely many", "infinitely many solutions", "infinite", "infinite solutions"), "\\infty"),
    **dict.fromkeys(("\\mathbb{R}^+", "\\mathbb{R}^{+}", "\\mathbb{R}_+", "\\mathbb{R}_{+}"), "(0,\\infty)"),
    **dict.fromkeys(("\\mathbb{R}_{>0}", "all positive real numbers", "all positive reals"), "(0,\\infty)"),
    **dict.fromkeys(("\\mathbb{R}_{\\ge 0}", "all non-negative real numbers"), "[0,\\infty)"),
    **dict.fromkeys(("\\mathbb{R}^*", "\\mathbb{R}^{*}"), "(-\\infty,0)\\cup(0,\\infty)"),
    **dict.fromkeys(("无解", "无实数解", "无实根"), EMPTY),
    "是": "\\text{yes}",
    "否": "\\text{no}",
    "dne": "\\text{does not exist}",
}


def read_answer(text: str) -> Answer:
    r"""The structure of a text in plain form.

    >>> read_answer("x = 5").label, read_answer("1 < x \\le 2").brackets, read_answer("1, 2 and 3").kind
    ('x', '(]', 'list')
    """
    text = _FRENCH.sub(lambda match: "[("[match[1] == "]"] + match[2] + "])"[match[3] == "["], text)
    if not text.startswith(("(", "[", "\\{", "{")) or re.search(r", |;", text):
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    return _read(text, 0)._replace(text=compact(text))


def _read(text: str, depth: int) -> Answer:
    text = _without_prefix(text.lstrip("+ ,;").rstrip(" .,;"))
    if depth > MAX_DEPTH:
        return Answer("other", compact(text))
    if transposed := _TRANSPOSED.fullmatch(text):  # a column, as (1, 2)^T
        text = transposed[1]
    found = words(text)
    wording = " ".join(found) if found else compact(text)
    text = EMPTY if _NOTHING.fullmatch(wording) else _SYNONYMS.get(wording, text)
    if found and found[0] in ("yes", "no") and len(found) > 2:  # Yes, it is
        return make_value(text)
    if whole := _TEXT.fullmatch(text):
        pieces, separators = _split(whole[1], _ITEM)
        parts = [_read(f"\\text{{{piece}}}", depth + 1) for piece in pieces if piece]
        if len(parts) > 1:
            return _list(text, parts, separators)
        return make_value(text) if found else _read(whole[1], depth + 1)
    for reader in (_read_items, _read_plus_minus, _read_matrix, _read_relation, _read_union, _read_brackets):
        answer = reader(text, depth)
        if answer is not None:
            return answer if answer.text else answer._replace(text=compact(text))
    return make_value(text)


def _without_prefix(text: str) -> str:
    """A text without words that lead to a value, unless they deny it."""
    prefix = _PREFIX.match(text)
    return text if prefix is None or is_denial(prefix[1] or "") else text[prefix.end() :]


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


def _list(text: str, parts: list[Answer], separators: Sequence[str] = ()) -> Answer:
    """A list; of words it has "and" or "or" in place of its brackets, where it says so."""
    said = [word for word in ("and", "or") if any(word in separator for separator in separators)]
    joint = said[0] if len(said) == 1 and all(words(part.value) for part in parts) else ""
    flat = [inner for part in parts for inner in (part.parts if part.kind == "list" else (part,))]
    return Answer("list", compact(text), parts=tuple(without_dots(flat)), brackets=joint)


def _read_items(text: str, depth: int) -> Answer | None:
    pieces, separators = _split(text, _ITEM)
    if not separators:
        return None
    kept = [piece for piece in pieces if piece and not _INTEGER_SYMBOL.fullmatch(piece)]
    if len(kept) == 1 and len(pieces) > 1 and all(pieces):
        return _read(kept[0], depth + 1)
    parts = [_read(piece, depth + 1) for piece in kept]
    signs = [sign for sign in separators if sign.startswith("\\") and "text" not in sign]
    if signs and not all(part.label or part.kind == "relation" for part in parts):
        return Answer("other", compact(text))  # p \land q is no list of p and q
    is_choice = any("or" in sign for sign in separators)
    joined = join_inequalities(parts, is_choice)
    if joined is None or is_choice or not signs or len(joined.parts) == 2 and joined.kind == "tuple":
        return joined or _list(text, parts, separators)
    return Answer("other", compact(text))


def _read_plus_minus(text: str, depth: int) -> Answer | None:
    if text.startswith(("\\{", "\\begin")) or "\\ne" in text or not _PLUS_MINUS.search(text):
        return None
    return _list(text, [_read(reading, depth + 1) for reading in _both_signs(text)])


def _both_signs(text: str) -> list[str]:
    """A text with its upper signs, and with its lower ones."""
    upper = _PLUS_MINUS.sub(lambda match: "+" if "pm" in match[0] else "-", text)
    lower = _PLUS_MINUS.sub(lambda match: "-" if "pm" in match[0] else "+", text)
    return [upper.removeprefix("+"), lower.removeprefix("+")]


def _read_matrix(text: str, depth: int) -> Answer | None:
    if aligned := _ALIGNED.fullmatch(text):
        lines = _split(aligned[2].replace("&", ""), _ROW)[0]
        return _read(",".join(line for line in lines if line), depth + 1)
    if cases := _CASES.fullmatch(text):
        return _read_cases(cases[1], depth)
    start, end = text.find("\\begin"), text.rfind("\\end")
    opening, closing = (
        (_MATRIX.match(text, start), _MATRIX_END.fullmatch(text, end)) if 0 <= start < end else (None, None)
    )
    if opening is None or closing is None or opening[1] != closing[1] or "\\begin" in text[opening.end() : end]:
        return None
    factor = text[:start].strip()
    if closing[2]:  # [\begin{array}...\end{array}]
        if factor[-1:] + closing[2] not in ("()", "[]"):
            return None
        factor = factor[:-1].strip()
    if re.search(r"[=<>&]|[(\[{]$", factor):
        return None
    lines = [line.removeprefix("\\hline").strip() for line in _split(text[opening.end() : end], _ROW)[0]]
    rows = [_split(line, _CELL)[0] for line in lines if line]
    if factor:
        rows = [[_product("-1" if factor == "-" else factor, cell) for cell in row] for row in rows]
    parts = [Answer("tuple", "&".join(row), parts=tuple(_read(cell, depth + 1) for cell in row)) for row in rows]
    return Answer("matrix", compact(text), parts=tuple(parts))


def _read_cases(body: str, depth: int) -> Answer | None:
    """Equations that hold together, or values under conditions, which have no order."""
    rows = [_split(line, _CELL)[0] for line in _split(body, _ROW)[0] if line]
    if all(len(row) == 1 for row in rows):
        return _read(",".join(row[0] for row in rows), depth + 1)
    if any(len(row) != 2 for row in rows):
        return None
    parts = []
    for value, condition in rows:
        condition = _IS.sub("", _IF.sub(lambda match: "" if match[0].endswith("}") else "\\text{", condition))
        pair = _read(value, depth + 1), _read(condition, depth + 1)
        parts.append(Answer("tuple", "&".join(part.text for part in pair), parts=pair, brackets="if"))
    return Answer("list", compact(body), parts=tuple(parts))


def _product(factor: str, cell: str) -> str:
    value, other = plain_number(factor), plain_number(cell)
    if value is None or other is None or len(factor) + len(cell) > MAX_PRODUCT_CHARACTERS:
        return f"({factor})({cell})"
    return f"{(value * other).numerator}/{(value * other).denominator}"


def _read_relation(text: str, depth: int) -> Answer | None:
    operands, signs = _split(text, _RELATION)
    if signs and not operands[0] and signs[0] in ("=", "\\approx"):  # "= 5"
        return _read(text[text.index(signs[0]) + len(signs[0]) :], depth + 1)
    if not signs:
        return None
    if not all(operands):
        return Answer("other", compact(text))
    if len(signs) == 1:
        return _read_single_relation(operands[0], signs[0], operands[1], depth)
    if signs == ["=", "\\approx"] and is_label(operands[0]):
        return _sides("approximation", operands[1], "\\approx", operands[2], compact(operands[0]))
    if len(signs) == 2 and is_variable(operands[1], operands[0] + operands[2]):
        if set(signs) <= {">", "\\ge"}:
            operands, signs = operands[::-1], [_OPPOSITE[sign] for sign in signs[::-1]]
        if set(signs) <= {"<", "\\le"}:
            brackets = ("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]")
            return make_interval(operands[0], operands[2], brackets, compact(operands[1]))
    return Answer("other", compact(text))


def _read_single_relation(left: str, sign: str, right: str, depth: int) -> Answer:
    may_turn = sign in _OPPOSITE or (sign != "\\in" and not re.search("[A-Za-z]", left))
    if may_turn and is_label(right, left) and not is_label(left, right):
        left, sign, right = right, _OPPOSITE.get(sign, sign), left
    value, other = plain_number(left), plain_number(right)
    if sign == "=" and value is not None and value == other and ("." in left) != ("." in right):  # 3/4 = 0.75
        return make_value(left)
    if sign in _OPPOSITE and _SIZE.fullmatch(compact(left)):
        return _read_bound(left, sign, right)
    if not is_label(left, "" if sign == "\\approx" else right):
        if sign == "\\approx":
            return _sides("approximation", left, sign, right)
        is_relation = sign == "=" or sign in _OPPOSITE
        return _sides("relation" if is_relation else "other", left, sign, right)
    if sign in _OPPOSITE:
        return _read_bound(left, sign, right)
    label = compact(left)
    if sign == "\\ne":
        points = _split(right, _ITEM)[0] if not _PLUS_MINUS.search(right) else _both_signs(right)
        return without_points(REALS, points, label) or _sides("other", left, sign, right)
    answer = _read(right, depth + 1)
    if answer.label or answer.kind in ("relation", "approximation", "other"):
        return _sides("other", left, sign, right)
    return answer._replace(label=label, text=compact(left + sign + right))


def _read_bound(left: str, sign: str, right: str) -> Answer:
    """The half line of a symbol, or what |x| < 2 and |x-1| > 2 are for a real x."""
    label = compact(left)
    is_below, is_open = sign in ("<", "\\le"), sign in ("<", ">")
    if size := _SIZE.fullmatch(label):
        label, ends = size[1], _ends(size[2] or "", right)
        if ends is None:
            return _sides("relation", left, sign, right)
        if is_below:
            return make_interval(*ends, "()" if is_open else "[]", label)
        low = make_interval("-\\infty", ends[0], "()" if is_open else "(]")
        return make_union([low, make_interval(ends[1], "\\infty", "()" if is_open else "[)")], label)
    if not is_variable(left, right):
        return _sides("relation", left, sign, right)
    if is_below:
        return make_interval("-\\infty", right, "()" if is_open else "(]", label)
    return make_interval(right, "\\infty", "()" if is_open else "[)", label)


def _ends(shift: str, distance: str) -> tuple[str, str] | None:
    """Where |x + shift| is a distance; None where that takes an evaluation."""
    if not shift:
        return (f"-{distance}" if _TERM.fullmatch(distance) else f"-({distance})"), distance
    middle, half = plain_number(shift), plain_number(distance)
    if middle is None or half is None or half <= 0:
        return None
    low, high = -middle - half, -middle + half
    return f"{low.numerator}/{low.denominator}", f"{high.numerator}/{high.denominator}"


def _sides(kind: str, left: str, sign: str, right: str, label: str = "") -> Answer:
    parts = (make_value(left), make_value(right))
    text = compact(f"{label}={left}{sign} {right}" if label else f"{left}{sign} {right}")
    if kind == "other":
        return Answer("other", text)
    return Answer("relation" if kind == "relation" else "approximation", text, "", parts, sign, label)


def _read_union(text: str, depth: int) -> Answer | None:
    pieces, separators = _split(text, _CUP)
    if separators:
        return make_union([_read(piece, depth + 1) for piece in pieces])
    pieces, separators = _split(text, _SET_MINUS)
    if len(separators) != 1:
        return None
    interval, removed = (_read(piece, depth + 1) for piece in pieces)
    if interval.kind != "tuple" or removed.kind != "set":
        return None
    return without_points(interval, [part.value for part in removed.parts])


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
    if opening == "\\{" or (opening == "{" and separators):
        return make_set(_list("", [_read(piece, depth + 1) for piece in pieces if piece]).parts)
    if not separators:
        return _read(inside, depth + 1) if opening in "({" else None
    brackets = "()" if opening == "\\langle" else opening + closing
    parts = tuple(without_dots([_read(piece, depth + 1) for piece in pieces]))
    if len(parts) == 2 and brackets != "()" and parts[0].kind == parts[1].kind == "value":
        return make_interval(parts[0].value, parts[1].value, brackets)
    return Answer("tuple", "", parts=parts, brackets=brackets)


def _read_set_by_condition(element: str, condition: str, depth: int) -> Answer:
    described = _read(condition, depth + 1)
    name = compact(_split(element, _RELATION)[0][0])  # of x, or of x \in \mathbb{R}
    if described.kind in ("tuple", "union") and described.label == name:
        return described
    values = described.parts if described.kind == "list" else (described,)
    if (
        "\\in" not in condition
        and values[0].label == name
        and all(part.kind == "value" and part.label in ("", name) for part in values)
    ):
        return make_set([make_value(part.value) for part in values])  # {x | x = 1 or x = 2}
    return Answer("tuple", "", parts=(_read(element, depth + 1), described), brackets="|")


def _encloses(text: str) -> bool:
    """Whether the first bracket of the text closes with its last."""
    depth = 0
    for match in _ITEM.finditer(text):
        depth += bool(match["open"]) - bool(match["close"])
        if depth == 0 and match["close"]:
            return match.end() == len(text)
    return False
