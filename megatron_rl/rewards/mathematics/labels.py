r"""What can stand before an answer and name it: `x`, `f(x)`, `\angle ABC`, `\text{Area}`, `(x, y)`, `a+b`."""

from __future__ import annotations

import re

MAX_LABEL_CHARACTERS = 60

_NAME = r"(?:(?:\\[A-Za-z]+(?![A-Za-z])|[A-Za-z])(?:_ ?(?:\{[^{}]*\}|[A-Za-z0-9]))?'*)"
_WORDS = r"\\text ?\{[^{}]*\}"
_LABEL = re.compile(
    rf"(?:{_WORDS} ?)?(?:m ?\\angle |\\angle |\\triangle |\|)?(?:\\(?:overline|vec|bar|hat) ?\{{)?"
    rf"{_NAME}(?: ?(?:[+-] ?)?{_NAME})*\}}?\|?(?: ?\^ ?\{{ ?-1 ?\}})?(?: ?\([^()=<>]*\))?"
    rf"|\\frac ?\{{ ?d[^{{}}]*\}} ?\{{ ?d[a-z] ?\}}|{_WORDS}|\( ?{_NAME}(?: ?, ?{_NAME})+ ?\)"
)
_TO_BE_WORKED_OUT = re.compile(
    r"\\(?:sum|int|prod|lim|infty|pi|sqrt|cdot|times|sin|cos|tan|log|ln|binom)(?![A-Za-z])|^[ei]$"
)


def is_label(text: str) -> bool:
    r"""Whether a text in plain form names something and has no numbers to work out.

    >>> is_label("f(x)"), is_label("a+b"), is_label("3+4"), is_label("x^2")
    (True, True, False, False)
    """
    return len(text) < MAX_LABEL_CHARACTERS and bool(_LABEL.fullmatch(text)) and not _TO_BE_WORKED_OUT.search(text)
