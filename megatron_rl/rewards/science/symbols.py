r"""Symbols that are more than a letter, as `F_{\text{net}}`, `\ddot{x}`, `E^\circ`, `|0\rangle`, as formulas know them.

Not covered: products of states, which have an order, and bras.
"""

from __future__ import annotations

import re

_SUBSCRIPT = re.compile(  # behind a number it is a base
    r"(?:(?<=\^0)|(?<=\^ 0)|(?<![0-9)])(?<![0-9)] ))_ ?"
    r"(?:(\{ ?)?\\text ?\{ ?([A-Za-z][A-Za-z0-9 ,.-]{0,29}?) ?\}(?(1) ?\})|\{ ?([A-Za-z]{3,30}) ?\})"
)
_ACCENT = re.compile(
    r"\\(dot|ddot|bar|overline|tilde)(?![A-Za-z]) ?(?:\{ ?(\\?[A-Za-z]{1,9}) ?\}|(\\[A-Za-z]{1,9}|[A-Za-z]))"
)
_ACCENTS = {"dot": "d1", "ddot": "d2", "bar": "b1", "overline": "b1", "tilde": "t1"}
_BELOW = r"_ ?(?:\{ ?\\text ?\{[^{}]{1,30}\} ?\}|\{[^{}]{1,30}\}|\\text ?\{[^{}]{1,30}\}|[A-Za-z0-9])"
_CIRCLE = r"\^ ?(?:\\circ|\{ ?\\circ ?\})"
_ABOVE = rf"(?:{_CIRCLE}|\^ ?(?:0|\{{ ?0 ?\}}))"  # a 0 is no exponent where there is a subscript, too
_STANDARD = re.compile(  # a quantity in its standard state
    rf"([EGHSK]) ?(?:{_ABOVE} ?({_BELOW})|({_BELOW}) ?{_ABOVE}|{_CIRCLE})(?![0-9A-Za-z])"
)
_MARKS = re.compile(r"\\text|[{}_\s]")
_STATE = re.compile(r"\| ?((?:\\[a-z]{1,12}|[A-Za-z0-9+,-]| ){1,16}?) ?\\rangle")
_SEVERAL_STATES = re.compile(r"\\langle|\\rangle ?\^?(?:\{? ?\\otimes|\|)|\\otimes|\\rangle ?\\langle")
MAX_LETTERS = 3  # of a subscript; more are a word in a formula, and a number stands for them


def plain_symbols(text: str) -> str:
    r"""A formula in plain form whose subscripts, accents and states are letters with short subscripts.

    >>> plain_symbols("F_{\\text{net}} = m\\ddot{x}"), plain_symbols("\\frac{|0\\rangle - |1\\rangle}{2}")
    ('F_{net} = m x_{d2} ', '\\frac{ S_{48}  -  S_{49} }{2}')
    """
    text = plain_subscripts(_STANDARD.sub(_standard, text))
    text = _ACCENT.sub(lambda match: f" {match[2] or match[3]}_{{{_ACCENTS[match[1]]}}} ", text)
    if _SEVERAL_STATES.search(text):
        return text
    return _STATE.sub(lambda match: f" S_{{{_number(match[1])}}} ", text)


def plain_subscripts(text: str) -> str:
    r"""A formula in plain form without words or fonts in its subscripts; behind a number they are bases, and stay.

    >>> plain_subscripts("F_{\\text{net}} + 101_{\\text{two}}"), plain_subscripts("I_{total}")
    ('F_{net} + 101_{\\text{two}}', 'I_{500086104428}')
    """
    return _SUBSCRIPT.sub(lambda match: f"_{{{short(match[2] or match[3])}}}", text) if "_" in text else text


def without_subscripts(text: str) -> str:
    """A text in plain form without the words that are subscripts beside other symbols.

    >>> without_subscripts("F_{net} = ma"), without_subscripts("E_{cell}")
    ('F_1 = ma', 'E_{cell}')
    """
    found = _SUBSCRIPT.sub("_1", text)
    return text if re.fullmatch(r"\\?[A-Za-z]{1,9}_1", found.strip()) else found


def short(subscript: str) -> str:
    """A subscript as a formula can have it, whatever its case where it is a word.

    >>> short("net"), short("O2"), short("total") == short("Total") != short("final")
    ('net', 'O2', True)
    """
    name = re.sub(r"[ ,.-]", "", subscript)
    return exact(name.lower() if name.isalpha() and len(name) > MAX_LETTERS else name)


def exact(name: str) -> str:
    """A name as a formula can have it in a subscript: with more than three letters as a number.

    >>> exact("NH3"), exact("HCOOH")
    ('NH3', '310366916424')
    """
    return name if sum(map(str.isalpha, name)) <= MAX_LETTERS else _number(name)


def _standard(match: re.Match[str]) -> str:
    return f" {match[1]}_{{{short(_MARKS.sub('', match[2] or match[3] or '') + 'o')}}} "


def _number(name: str) -> str:
    return str(int.from_bytes(re.sub(r"\s", "", name).encode(), "big"))
