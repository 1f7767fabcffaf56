r"""Concentrations in brackets, as in `k[NO]^2[O_2]` and `[A]_0 e^{-kt}`: a symbol each, no product of letters.

Not covered: a substance with brackets of its own in its formula, which is read as a complex.
"""

from __future__ import annotations

import re

from megatron_rl.rewards.science.symbols import exact

_BRACKET = re.compile(
    r"\[ ?(?P<of>[^\[\]]{1,40}?) ?\]"
    r"(?: ?_ ?(?:\{ ?(?:\\text ?\{ ?)?(?P<at>[A-Za-z0-9]{1,9}) ?\}?(?: ?\})?|(?P<one>[A-Za-z0-9])))?"
    r"(?: ?\( ?t ?\))?"
)
_MARKS = re.compile(r"\\(?:text|ce)(?![A-Za-z])|[{}_\s$]")
_SUBSTANCE = re.compile(r"(?:[A-Z][a-z]?[0-9]{0,2}){1,12}(?:\^?([0-9]?)([+-]))?")
# What tells an expression from a complex or from a noble gas before its electrons.
_EXPRESSION = re.compile(
    r"(?<![A-Za-z])k(?:_ ?(?:\{[^{}]{1,9}\}|[A-Za-z0-9]))?['′]? ?\[|\\frac|(?<![A-Za-z])e ?\^|\\exp|="
)
_CONFIGURATION = re.compile(r"\](?: ?_?\{?\}?) ?[1-7] ?[spdf](?![A-Za-z])|→|->|\\to(?![A-Za-z])|\\rightarrow")
_LOG = re.compile(r"\\(?:log(?![A-Za-z])(?! ?_)|lg(?![A-Za-z]))")  # beside concentrations, as of a pH
_SCALE = re.compile(r"\\text ?\{ ?(p(?:OH|H|K)?) ?\}")
_DIMENSIONS = {" C_{M}", " C_{L}", " C_{T}"}  # of a quantity: mass, length, time
_RATE = re.compile(
    r"^\s*(?:\\text ?\{ ?)?(?:(?:the )?(?:initial )?(?:reaction )?rate(?: law)?(?: of (?:the )?reaction)?|r|v)"
    r" ?\}? ?= ?",
    re.IGNORECASE,
)


def has_concentrations(text: str) -> bool:
    r"""Whether a text in plain form is an expression with concentrations.

    >>> has_concentrations("k[A]^2"), has_concentrations("[Ar]4s^2"), has_concentrations("[Fe(CN)_6]^{3-}")
    (True, False, False)
    """
    if "[" not in text or _EXPRESSION.search(text) is None or _CONFIGURATION.search(text):
        return False
    names = {_name(match) for match in _BRACKET.finditer(text)} - {""}
    return bool(names) and not (len(names) > 1 and names <= _DIMENSIONS)


def in_concentrations(text: str) -> str:
    r"""A formula in plain form with a symbol for each concentration, and without `Rate =` before it.

    `[A]_t` and `[A](t)` are [A], and `[A]_0` is not.

    >>> in_concentrations("\\text{Rate} = k[\\ce{NO}]^2[O_2]"), in_concentrations("[A](t) = [A]_0 e^{-kt}")
    ('k C_{NO}^2 C_{O2}', ' C_{A} =  C_{A0} e^{-kt}')
    """
    text = _BRACKET.sub(lambda match: _name(match) or match[0], text)
    return _LOG.sub(r"\\log_{10} ", _RATE.sub("", _SCALE.sub(r"\1", text)))


def _name(match: re.Match[str]) -> str:
    """The symbol of a concentration; empty where the brackets hold no substance."""
    substance = _SUBSTANCE.fullmatch(_MARKS.sub("", match["of"]))
    if substance is None:
        return ""
    name = substance[0].replace("^", "").replace("+", "p").replace("-", "m")
    at = match["at"] or match["one"] or ""
    return f" C_{{{exact(name + ('' if at == 't' else at))}}}"
