r"""Names that an answer may choose: `k\pi` or `n\pi` with any integer, `f(x)=x+1` or `f(t)=t+1`, `+C` or `+c`.

Only what a reference declares, or what can be nothing else, is renamed: `2n` is not `2k`, as either may be given.
Not covered: arbitrary factors, as `cx` and `kx`, and unions of families.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_CHARACTERS = 400

_INTEGERS = r"(?:\\mathbb ?(?:\{ ?Z ?\}|Z)|\\text ?\{ ?Z ?\}|Z)(?![\^_A-Za-z])"
_DECLARED = re.compile(rf"(?<![\\A-Za-z])(?P<name>[a-z]) ?\\in ?{_INTEGERS}")
_QUANTIFIER = r"\\text ?\{[ ,(]*(?:for|where|with)?(?: ?(?:all|any|some|every|each))?"
_IS_INTEGER = r"(?:is |being )?(?:an? |any )?integers?[ )]*"
_CLAUSE = re.compile(  # , k \in \mathbb{Z} or (\text{for any integer } k) or \text{ where } k \text{ is an integer}
    r"[ ,;]*(?:\\(?:quad|qquad) ?)*\(? ?(?:"
    rf"(?:{_QUANTIFIER} ?\}} ?)?(?:\\forall ?)?(?P<symbol>[a-z]) ?\\in ?{_INTEGERS}"
    rf"|(?:{_QUANTIFIER} ?\}} ?)?(?P<said>[a-z]) ?\\text ?\{{ ?{_IS_INTEGER}\}}"
    rf"|{_QUANTIFIER} ?integers? ?\}} ?(?P<named>[a-z])"
    rf"|{_QUANTIFIER} ?integers? (?P<inside>[a-z])[ )]*\}}|{_QUANTIFIER} ?(?P<within>[a-z]) {_IS_INTEGER}\}}"
    r") ?\)?\.?$"
)
_FUNCTION = re.compile(r"(?P<function>[A-Za-z]) ?(?:\( ?(?P<argument>[a-z]) ?\)|_ ?\{? ?(?P<index>[a-z]) ?\}?) ?=")
_MAPS = re.compile(r"(?P<function>[A-Za-z]) ?: ?(?P<argument>[a-z]) ?\\mapsto ?")
_DOMAIN = r" ?\\in ?(?:\\mathbb|\\text) ?\{ ?[RZNQ] ?\}(?: ?\^ ?\{? ?[+*] ?\}?)?"
_FOR_ALL = re.compile(
    r"[ ,;]*\(? ?(?:(?:\\text ?\{[ ,(]*(?:for )?(?:all|any|every|each)(?: real| positive)?(?: numbers?| integers?)? ?\}"
    rf"|\\forall) ?(?P<name>[a-z])(?:{_DOMAIN})?|(?P<element>[a-z]){_DOMAIN}) ?\)?\.?$"
)
_LEFT = re.compile(r"(?<![\\A-Za-z])[a-z] ?(?:=|\\(?:in|ne)(?![A-Za-z]))")
_PERIODIC = re.compile(r"\\pi(?![A-Za-z])|\\circ(?![A-Za-z])")
_BOUND = re.compile(r"\\(?:sum|prod)(?![A-Za-z]) ?_ ?\{ ?([a-z]) ?(?:=|\\(?:in|ge)(?![A-Za-z]))")
_DUMMY = re.compile(r"(?<![A-Za-z\\])d ?([a-z])(?![A-Za-z])")  # of an integral
_CONSTANT = re.compile(r"(?<=\+)( ?)(?:[cKk]|C ?_ ?\{? ?[0-9] ?\}?|\\text ?\{ ?(?:const|constant)\.? ?\})$")
_TOKEN = re.compile(r"\\text ?\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z]")


class Family(NamedTuple):
    """Two texts in plain form with the same names, and the integer that the reference runs over, if it does."""

    reference: str
    answer: str
    parameter: str


def with_the_same_names(reference: str, answer: str) -> Family:
    r"""Both texts, the names that the answer is free to choose as in the reference.

    >>> with_the_same_names(r"2k\pi, k\in\mathbb{Z}", r"2n\pi")
    Family(reference='2k\\pi', answer='2k\\pi', parameter='k')
    """
    if max(len(reference), len(answer)) > MAX_CHARACTERS:
        return Family(reference, answer, "")
    reference, answer = (_MAPS.sub(r"\g<function>(\g<argument>)=", text, count=1) for text in (reference, answer))
    reference, answer = _with_the_same_argument(reference, answer)
    if re.search(r"\+ ?C$", reference) and "C" not in _names(_CONSTANT.sub("", answer)):
        answer = _CONSTANT.sub(r"\1C", answer)
    bound = [_only(set((_DUMMY if "\\int" in text else _BOUND).findall(text))) for text in (reference, answer)]
    if all(bound):
        answer = _renamed(answer, bound[1], bound[0], reference)
    (reference, name), (answer, other) = _without_clause(reference), _without_clause(answer)
    declared = name
    if not name and _PERIODIC.search(reference):
        name = _only(_names(_LEFT.sub("", reference)))
        name = name if name in ("k", "n", "m") else ""
    if not name:
        return Family(reference, answer, "")
    other = other or (name if name in _names(answer) else _only(_names(answer) & set("knmlj")))
    return Family(reference, _renamed(answer, other, name, reference), declared)


def _without_clause(text: str) -> tuple[str, str]:
    """A text without the words at its end that declare an integer, and its name, which may also stand within."""
    match = _CLAUSE.search(text)
    if match and match.start() > 0:
        name = next(name for name in match.group("symbol", "said", "named", "inside", "within") if name)
        if name in _names(text[: match.start()]):
            return text[: match.start()], name
    match = _DECLARED.search(text)
    return text, match["name"] if match else ""


def _with_the_same_argument(reference: str, answer: str) -> tuple[str, str]:
    """Both texts with the argument of a function named as in the reference, and without "for all x"."""
    matches = _FUNCTION.match(reference), _FUNCTION.match(answer)
    texts = []
    for text, match in zip((reference, answer), matches, strict=True):
        quantifier = _FOR_ALL.search(text)
        argument = (match["argument"] or match["index"]) if match else ""
        texts.append(
            text[: quantifier.start()]
            if quantifier and argument == (quantifier["name"] or quantifier["element"])
            else text
        )
    if matches[0] is None or matches[1] is None or matches[0]["function"] != matches[1]["function"]:
        return texts[0], texts[1]
    if bool(matches[0]["argument"]) != bool(matches[1]["argument"]):
        return texts[0], texts[1]
    names = [match["argument"] or match["index"] for match in matches if match]
    return texts[0], _renamed(texts[1], names[1], names[0], "")


def _renamed(text: str, name: str, new: str, taken: str) -> str:
    """A text with another name for a symbol, itself where either name would then mean two things."""
    if not name or name == new or new in _names(text) or name in _names(taken):
        return text
    return _TOKEN.sub(lambda match: new if match[0] == name else match[0], text)


def _names(text: str) -> set[str]:
    return {name for name in _TOKEN.findall(text) if len(name) == 1}


def _only(names: set[str]) -> str:
    return next(iter(names)) if len(names) == 1 else ""
