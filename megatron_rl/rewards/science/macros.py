r"""The macros of siunitx and mhchem in plain words: `\SI{3.5}{\micro\metre}` as 3.5 micrometre."""

from __future__ import annotations

import re

_ARGUMENT = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
_RANGE = re.compile(rf"\\(?:SI|qty)range ?\{{([^{{}}]*)\}} ?\{{([^{{}}]*)\}} ?{_ARGUMENT}")
_QUANTITY = re.compile(rf"\\(?:SI|qty) ?(?:\[[^\[\]]{{0,60}}\])? ?\{{([^{{}}]*)\}} ?{_ARGUMENT}")
_ALONE = re.compile(rf"\\(?:num|si|unit|pu) ?{_ARGUMENT}")
_ANGLE = re.compile(r"\\ang ?\{([^{};]*)\}")
_NAMES = "yocto zepto atto femto pico nano micro milli centi deci deca hecto kilo mega giga tera peta exa"
_PREFIXES = frozenset(_NAMES.split())
_SYMBOLS = {"percent": "%", "degree": "°", "celsius": "°C", "degreeCelsius": "°C", "angstrom": "Å", "per": "/"}
_BEHIND = {"squared": "^2", "cubed": "^3"}
_BEFORE = {"square": "^2", "cubic": "^3"}


def without_macros(text: str) -> str:
    r"""The text with the macros of numbers and units in plain words.

    >>> without_macros(r"\SI{5.0}{\newton\metre\per\second\squared}"), without_macros(r"\pu{3 mol/L}")
    ('5.0 newton metre / second^2', '3 mol/L')
    """
    if "\\" not in text:
        return text
    text = _RANGE.sub(lambda match: f"{match[1]} to {match[2]} {_unit(match[3])}", text)
    text = _QUANTITY.sub(lambda match: f"{match[1]} {_unit(match[2])}", text)
    text = _ALONE.sub(lambda match: _unit(match[1]), text)
    return _ANGLE.sub(r"\1^\\circ ", text)


def _unit(text: str) -> str:
    r"""A unit spelled in macros: a prefix joins what follows, a power stands before or behind its unit."""
    if "\\" not in text:
        return text
    text = re.sub(r"\\tothe ?\{([+-]?[0-9])\}", r"^\1", text).replace(".", " ")
    said, prefix, power = "", "", ""
    for piece in re.split(r"(\\[A-Za-z]+)", text):
        name = piece[1:] if piece[:1] == "\\" else ""
        if not name:
            said += piece
        elif name in _PREFIXES:
            prefix = name
        elif name in _BEFORE:
            power = _BEFORE[name]
        elif name in _BEHIND:
            said += _BEHIND[name]
        else:
            said += f" {prefix}{_SYMBOLS.get(name, name)}{power}"
            prefix = power = ""
    return said.strip()
