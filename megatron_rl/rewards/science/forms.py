"""Words in one form: what changes in a name when it is written by another hand, and changes nothing of what it says."""

from __future__ import annotations

import re

from megatron_rl.rewards.science.elements import SYMBOLS
from megatron_rl.rewards.science.numerals import roman

MAX_NUM_WORDS = 9  # of a name with "of"

_SUBJECT = re.compile(
    r"^(?:it|they|this|that) (?:(?:will|would|is|are) )?(?=\w)|^(?:in|inside|within|at|on|to|towards?) (?:the )?(?=\w)"
)
# What kind of thing a name is of, where it stands behind it; "ion" and "bond" say more.
_KIND = re.compile(
    r"[ -](?:(?:molecular|electron) )?(?:geometry|shape|mechanism|process|hybridi[sz]ation|hybridi[sz]ed|law|effect|"
    r"reaction|gas|element|configuration|isomer|syndrome|disease|inheritance|molecules?|organelles?)$",
    re.IGNORECASE,
)
_BONDING = re.compile(r"[ -](?:bonding|bonds?|interactions?)$")
_WARD = re.compile(r"\b(north|south|east|west|up|down|left|right|in|out)(?:wards?|erly)\b")
_PROPERTY = re.compile(r"(?:(?<=\bionic)|(?<=valent)|(?<=metallic)) bond$")  # says it alone; "hydrogen" does not
_ROMAN = re.compile(r"(?<=[a-z] )(?:viii|vii|vi|iv|v|iii|ii|i)\b")
# Latin and Greek plurals: ending of several, ending of one.
_ENDINGS = (("ices", "ex"), ("ices", "ix"), ("ae", "a"), ("i", "us"), ("a", "um"), ("a", "on"), ("ses", "sis"))
# Endings alone do not tell a plural: ammonia is not ammonium, a larva not a larvum.
_LATIN = """
    bacterium mitochondrion nucleus nucleolus fungus alga alveolus vertebra ovum stimulus radius locus focus phylum
    spectrum quantum datum medium stratum septum cilium flagellum larva antenna hypothesis thesis basis analysis crisis
    diagnosis vertex matrix index helix appendix ganglion phenomenon criterion atrium epithelium cranium maximum minimum
    optimum equilibrium bronchus thallus hypha stigma stamen pupa lamella villus glomerulus thrombus embolus sporangium
    gametangium mycelium taxon symposium metastasis chiasma centrum continuum pseudopodium nebula nova supernova formula
    papilla fimbria
    """
_SINGULARS = frozenset(_LATIN.split())
_COUNTS = "two three four five six seven eight nine ten eleven twelve"
_SMALL_NUMBERS = {word: str(number) for number, word in enumerate(_COUNTS.split(), 2)}
_RANKS = {
    "0th": "zeroth", "1st": "first", "2nd": "second", "3rd": "third", "4th": "fourth", "5th": "fifth", "6th": "sixth",
    "7th": "seventh", "8th": "eighth",
}  # fmt: skip
_IRREGULAR = {
    "teeth": "tooth",
    "feet": "foot",
    "mice": "mouse",
    "axes": "axis",
    "leaves": "leaf",
    "genera": "genus",
    "stomata": "stoma",
    "stigmata": "stigma",
    "lens": "lens",
    "lenses": "lens",
    "gases": "gas",
}
# A locant before the suffix, as IUPAC has it, or before the name: butan-2-ol, 2-butanol.
_LOCANT = re.compile(
    r"-?((?:meth|eth|prop|but|pent|hex|hept|oct|non|dec|benz)(?:an|en|yn|a)?e?)-?([0-9](?:,[0-9])*)-?"
    r"((?:di|tri)?(?:ol|one|ene|yne|amine|thiol|oic acid|carboxylic acid|al)\b)"
)
_SPELLINGS = {
    "sulph": "sulf", "aluminium": "aluminum", "caesium": "cesium", "haem": "hem", "oedema": "edema", "aemia": "emia",
    "oestr": "estr", "colour": "color", "behaviour": "behavior", "fibre": "fiber", "centre": "center",
    "tumour": "tumor", "ise": "ize", "isation": "ization", "ising": "izing", "ised": "ized",
    "faeces": "feces", "leuko": "leuco", "oesophag": "esophag",
}  # fmt: skip


def in_one_form(text: str) -> str:
    """A name in small letters as one hand would write it, to be compared with another one.

    >>> in_one_form("mitochondrion") == in_one_form("in the mitochondria"), in_one_form("ammonia")
    (True, 'ammonia')
    >>> in_one_form("rate of reaction") == in_one_form("reaction rate"), in_one_form("eastwards")
    (True, 'east')
    >>> in_one_form("3-methylbutan-2-ol") == in_one_form("3-methyl-2-butanol"), in_one_form("anaphase ii")
    (True, 'anaphase 2')
    """
    text = _SUBJECT.sub("", text.strip())
    text = _without_of(text)
    text = _WARD.sub(r"\1", _PROPERTY.sub("", without_kind(_BONDING.sub(" bond", text))))
    text = _LOCANT.sub(lambda match: f"{'-' if match.start() else ''}{match[2]}-{match[1]}{match[3]}", text)
    text = _ROMAN.sub(lambda match: str(roman(match[0].upper())), text)
    for british, american in _SPELLINGS.items():
        text = text.replace(british, american)
    return " ".join(_singular(word) for word in text.split())


def _without_of(text: str) -> str:
    """A name of few words with what stands behind "of" before it: "energy conservation"."""
    words = text.split()
    if words.count("of") != 1 or len(words) > MAX_NUM_WORDS:
        return text
    where = words.index("of")
    behind = words[where + 1 :]
    return " ".join([*(behind[1:] if behind[:1] == ["the"] else behind), *words[:where]])


def without_kind(text: str) -> str:
    """A name without the word behind it that says what it is a name of.

    >>> without_kind("tetrahedral geometry"), without_kind("sp3 hybridized"), without_kind("process")
    ('tetrahedral', 'sp3', 'process')
    """
    return _KIND.sub("", text)


def _singular(word: str) -> str:
    """The singular of a plural; an element's name, and what would become one, stays: silica is no silicon."""
    if word in _SMALL_NUMBERS:
        return _SMALL_NUMBERS[word]
    if word in _RANKS:
        return _RANKS[word]
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or word in SYMBOLS:
        return word
    for plural, singular in _ENDINGS:
        one = word.removesuffix(plural) + singular
        if word.endswith(plural) and one in _SINGULARS:
            return one
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    if word.endswith("ies") and len(word) > 5:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word
