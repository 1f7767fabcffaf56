r"""What can stand before an answer and name it: `x`, `f(x)`, `\angle ABC`, `\text{Area}`, `(x, y)`, `a+b`."""

from __future__ import annotations

import re

MAX_LABEL_CHARACTERS = 60

_NAME = r"(?:(?:\\[A-Za-z]+(?![A-Za-z])|[A-Za-z])(?:_ ?(?:\{[^{}]*\}|[A-Za-z0-9]))?'*)"
_TERM = rf"(?:\\(?:vec|overrightarrow|text) ?\{{ ?[A-Za-z]{{1,3}} ?\}}|{_NAME})"
_WORDS = r"\\text ?\{[^{}]*\}"
_FUNCTION_OR_SIZE = re.compile(r"\||(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_NUMBER_E_OR_I = re.compile(r"(?<![\\A-Za-z])[ei](?![A-Za-z])")
_INSIDE = re.compile(r"\\text ?\{([^{}]*)\}")
_LABEL = re.compile(
    rf"(?:{_WORDS} ?)?(?:m ?\\angle |\\angle |\\triangle |\|)?(?:\\(?:overline|vec|bar|hat) ?\{{)?"
    rf"{_NAME}(?: ?(?:[+-] ?)?{_NAME})*\}}?\|?(?: ?\^ ?\{{ ?-1 ?\}})?(?: ?\([^()=<>]*\))?"
    rf"|\\frac ?\{{ ?d[^{{}}]*\}} ?\{{ ?d[a-z] ?\}}|{_WORDS}|\( ?{_NAME}(?: ?, ?{_NAME})+ ?\)"
    r"|(?:Pr?|E|\\mathbb ?\{[PE]\}|\\text ?\{ ?(?:Pr?|E|Var) ?\}) ?(?:\([^()]+\)|\[[^\[\]]+\])"  # P(X=2), E[X]
    rf"|\| ?{_TERM}(?: ?(?:[+-] ?)?{_TERM})* ?\|"
)
_TO_BE_WORKED_OUT = re.compile(
    r"\\(?:sum|int|prod|lim|infty|pi|sqrt|cdot|times|binom|l?log|l[ng]|exp|arc[a-z]+|ar[a-z]+h|[lr](?:floor|ceil))(?![A-Za-z])"
    r"|(?<![A-Za-z\\])(?:log|ln|lg|exp|sqrt|arc[a-z]{3})(?![A-Za-z])"
)


_DENIAL = re.compile(
    r"\b(?:not|no(?!\.| of\b)|never|nor|neither|either|or|if|unless|maybe|perhaps|possibly|instead|twice|thrice|double|"
    r"triple|than|at least|at most|(?:wrong|incorrect|false) (?:answer|result|solution|value))\b|n't\b|^ ?[0-9]",
    re.IGNORECASE,
)


def is_denial(words: str) -> bool:
    """Whether words before a value say that it is not the answer, or not the only one.

    >>> is_denial("not"), is_denial("10 or"), is_denial("No. of apples")
    (True, True, False)
    """
    return bool(_DENIAL.search(words))


def is_label(text: str, value: str = "") -> bool:
    r"""Whether a text in plain form names something and has no numbers to work out; e and i are names of plain values.

    >>> is_label("f(x)"), is_label("a+b"), is_label("3+4"), is_label("x^2"), is_label("e"), is_label("e", "0.5")
    (True, True, False, False, False, True)
    """
    if len(text) >= MAX_LABEL_CHARACTERS or not _LABEL.fullmatch(text) or _TO_BE_WORKED_OUT.search(text):
        return False
    if text in ("e", "i") and (not value or _NUMBER_E_OR_I.search(value)):
        return False
    return not any(map(is_denial, (*_INSIDE.findall(text), _INSIDE.sub(" ", text))))


def is_variable(text: str, value: str = "") -> bool:
    r"""Whether it is a label whose bounds are those of the answer: x > 2 is (2, \infty), and |x| > 2 is not.

    >>> is_variable("x"), is_variable("f(x)"), is_variable("|x|"), is_variable("\\sin x")
    (True, True, False, False)
    """
    return is_label(text, value) and not _FUNCTION_OR_SIZE.search(text)
