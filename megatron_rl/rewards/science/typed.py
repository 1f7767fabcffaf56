r"""Formulas as they are typed: Greek letters by name, and a slash before factors that stand close together.

`v^2/rg` is v^2/(rg), as the style of the Physical Review has it: factors without a sign or a space between them belong
to what is below the slash. `1/2mv^2` is a half of mv^2, for a fraction of two numbers is a number. Where a bracket or a
function follows as closely (`v/r(1+x)`, `v^2/g\sin\theta`), people mean either, and the formula says nothing.
"""

from __future__ import annotations

import re

from megatron_rl.rewards.mathematics.expressions import FUNCTIONS

_LONG = "alpha beta gamma delta epsilon zeta theta kappa lambda sigma upsilon omega hbar"
_SHORT = "eta mu nu xi rho tau phi chi psi"  # m u may be a product
_CAPITALS = "Gamma Delta Theta Lambda Sigma Phi Psi Omega"
_UNMISTAKABLE = frozenset((*_LONG.split(), *_CAPITALS.split()))
_TYPED = re.compile(rf"(?<![A-Za-z\\])({'|'.join(f'{_LONG} {_SHORT} {_CAPITALS}'.split())})(?![A-Za-z])")
_WEIGHT = re.compile(r"(?<![A-Za-z\\])m(?=[gL](?![A-Za-z]))")  # no milligrams stand in a formula
_NAMES = "|".join(f"{_LONG} {_SHORT} {_CAPITALS} varepsilon vartheta varphi pi ell Pi Xi".split())
_FUNCTION = rf"(?:{'|'.join(sorted((*FUNCTIONS, 'sqrt'), key=len, reverse=True))})"
_FACTOR = (
    rf"(?:\\(?:{_NAMES})(?![A-Za-z]) ?|(?!{_FUNCTION})[A-Za-z]|[0-9]+(?:\.[0-9]+)?)"
    r"(?: ?_ ?(?:\{[^{}]*\}|[A-Za-z0-9]))?(?: ?\^ ?(?:\{[^{}]*\}|-?[0-9]+|[A-Za-z]))?"
)
_SLASH = re.compile(
    rf"(?P<above>(?:(?<![\w.}}^)\\])[0-9]+(?:\.[0-9]+)?)?) ?/ ?(?P<below>(?P<first>{_FACTOR})(?:{_FACTOR})*+)"
    rf"(?P<behind>\((?![0-9]\))|\[|\\?{_FUNCTION})?"
)


def in_letters(text: str, other: str) -> str:
    r"""A formula in plain form with Greek letters for their names; a short name where the `other` formula has it.

    >>> in_letters("g sin(theta)/mu", "x"), in_letters("mu", "\\mu")
    ('g sin(\\theta )/mu', '\\mu ')
    """

    def letter(match: re.Match[str]) -> str:
        name = match[1]
        return f"\\{name} " if name in _UNMISTAKABLE or f"\\{name}" in other else name

    return _TYPED.sub(letter, text)


def with_brackets(text: str) -> str | None:
    r"""A formula in plain form with brackets around what stands below a slash, None where that may mean two things.

    >>> with_brackets("v^2/rg"), with_brackets("1/2mv^2"), with_brackets("v/r(1+x)")
    ('v^2/(rg)', '1/2mv^2', None)
    """
    pieces, end = [], 0
    for match in _SLASH.finditer(text):
        if match["above"] and match["first"][0].isdigit():
            continue
        if match["behind"]:
            return None
        if match["below"] != match["first"]:
            pieces.append(f"{text[end : match.start('below')]}({match['below'].rstrip()})")
            end = match.end()
    return _WEIGHT.sub("m ", "".join(pieces) + text[end:])
