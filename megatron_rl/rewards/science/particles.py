r"""The particles of nuclear reactions: one name for each, whether it is named or written `^1_0n`, `\beta^-`, `He^{2+}`.

Not covered: quarks, mesons and hyperons; what a particle does elsewhere, as the alpha of a helix.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

from megatron_rl.rewards.mathematics.notation import plain

MAX_CHARACTERS, MAX_UNMARKED = 60, 3

# Names, and behind the colon symbols: mass and charge before the letter, the charge behind it.
_TABLE = r"""
    neutron : n n^0 ^1n ^1_0n ^1_0n^0
    proton | hydrogen ion | hydrogen nucleus | hydrogen-1 nucleus : p p^+ ^1p ^1_1p ^1_1p^+ ^1H ^1_1H ^1_1H^+ ^1H^+ H^+
    electron | beta particle | beta minus particle | beta minus | negatron
        : e e^- ^0e ^0e^- ^0_-1e ^0_-1e^- \beta \beta^- ^0\beta ^0\beta^- ^0_-1\beta ^0_-1\beta^-
    positron | beta plus particle | beta plus | antielectron
        : e^+ ^0e^+ ^0_1e ^0_1e^+ \beta^+ ^0\beta^+ ^0_1\beta ^0_1\beta^+
    alpha particle | alpha | helium nucleus | helium-4 | helium-4 nucleus | nucleus of helium
        : \alpha ^4\alpha ^4_2\alpha ^4_2\alpha^2+ \alpha^2+ ^4He ^4_2He ^4He^2+ ^4_2He^2+ He^2+ He-4
    deuteron | deuterium nucleus | hydrogen-2 nucleus : ^2H ^2_1H ^2_1D ^2_1d ^2H^+ ^2_1H^+
    triton | tritium nucleus | hydrogen-3 nucleus : ^3H ^3_1H ^3_1T ^3_1t ^3H^+ ^3_1H^+
    gamma ray | gamma radiation | gamma photon | gamma : \gamma ^0\gamma ^0_0\gamma
    electron neutrino : \nu_e ^0_0\nu_e
    electron antineutrino : \bar\nu_e \overline\nu_e ^0_0\bar\nu_e
    neutrino : \nu ^0_0\nu
    antineutrino : \bar\nu \overline\nu ^0_0\bar\nu
    muon : \mu^-
    antimuon : \mu^+
"""
# In the formula of a reaction; a proton is H^+ in chemistry, and keeps the form that it has.
IN_REACTIONS = {"neutron": "n", "electron": "e^-", "positron": "e^+", "alpha particle": "He-4"}

# What no longer name or symbol is without; most texts are none of a particle, and reading them takes a while.
_HINT = re.compile(
    r"[\^αβγνμ⁺⁻⁰¹²³⁴]|tron|proton|alpha|beta|gamma|helium|hydrogen|trit|deuter|neutrino|muon|He-4|\\(?:nu|mu|bar|over)",
    re.IGNORECASE,
)
_WRAPPER = re.compile(r"\\(?:text|ce|mathrm) ?(?=\{)")
_BEFORE = re.compile(r"_([+-]?[0-9]{1,3})\^([0-9]{1,3})")
_PLUS = re.compile(r"(?<=_)\+(?=[0-9])")
_SIGN_FIRST = re.compile(r"\^([+-])([0-9])$")
_PARTICLE = re.compile(r"[ -](particles?|rays?)$")
_SIGN = re.compile(r"(?<=beta) ?(?:\^ ?)?([+-])(?= particle|$)")


@lru_cache(512)
def particle(text: str) -> str | None:
    r"""The name of the particle that a text names or writes, None where it is anything else.

    >>> particle("{}^1_0\\text{n}"), particle("\\beta^-"), particle("an Alpha-particle"), particle("^3_2He")
    ('neutron', 'electron', 'alpha particle', None)
    """
    if len(text) > MAX_CHARACTERS or len(text) > MAX_UNMARKED and not _HINT.search(text):
        return None
    text = _WRAPPER.sub("", plain(text))
    symbol = re.sub(r"[{}$\s]", "", text.replace("++", "2+"))
    symbol = _SIGN_FIRST.sub(r"^\2\1", _PLUS.sub("", _BEFORE.sub(r"^\2_\1", _PLUS.sub("", symbol))))
    if found := _known()[1].get(symbol):
        return found
    words = " ".join(re.sub(r"[{}$\\]", " ", text).lower().split()).rstrip(".")
    words = re.sub(r"^(?:the|an?) ", "", words)
    words = _SIGN.sub(lambda match: {"+": " plus", "-": " minus"}[match[1]], _PARTICLE.sub(r" \1", words))
    names = _known()[0]
    spellings = (words, words.removesuffix("s"), words.replace("-", " "))
    return next((names[spelling] for spelling in spellings if spelling in names), None)


@cache
def _known() -> tuple[dict[str, str], dict[str, str]]:
    """The first name of a particle by each of its names, and by each of its symbols."""
    by_name: dict[str, str] = {}
    by_symbol: dict[str, str] = {}
    for line in re.sub(r"\n\s*:", " :", _TABLE).strip().splitlines():
        names, _, symbols = line.partition(" : ")
        first, *others = [name.strip() for name in names.split("|")]
        by_name |= dict.fromkeys((first, *others), first)
        by_symbol |= dict.fromkeys(symbols.split() + symbols.replace("\\", "").split(), first)
    return by_name, by_symbol
