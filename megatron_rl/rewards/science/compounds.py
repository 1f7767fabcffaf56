"""The formulas of common substances and ions by name: salts by their charges, oxides by their prefixes, a few by table.

Covered: salts and ions of usual cations and anions, binary compounds with "di" and its like, common acids and gases,
and what `names` lists. Not covered: other organic names, complexes.
"""

from __future__ import annotations

import re
from math import gcd

from megatron_rl.rewards.science.elements import SYMBOLS
from megatron_rl.rewards.science.names import one_name, written
from megatron_rl.rewards.science.numerals import roman

_CATIONS = dict.fromkeys(("lithium", "sodium", "potassium", "rubidium", "cesium", "silver", "hydrogen"), 1)
_CATIONS |= dict.fromkeys(("magnesium", "calcium", "strontium", "barium", "zinc", "cadmium"), 2) | {"aluminum": 3}
_AMMONIUM = "NH4"
_ANIONS = {
    "fluoride": ("F", 1), "chloride": ("Cl", 1), "bromide": ("Br", 1), "iodide": ("I", 1), "hydride": ("H", 1),
    "oxide": ("O", 2), "sulfide": ("S", 2), "nitride": ("N", 3), "phosphide": ("P", 3), "hydroxide": ("OH", 1),
    "cyanide": ("CN", 1), "nitrate": ("NO3", 1), "nitrite": ("NO2", 1), "sulfate": ("SO4", 2), "sulfite": ("SO3", 2),
    "carbonate": ("CO3", 2), "bicarbonate": ("HCO3", 1), "hydrogen carbonate": ("HCO3", 1), "phosphate": ("PO4", 3),
    "permanganate": ("MnO4", 1), "chromate": ("CrO4", 2), "dichromate": ("Cr2O7", 2), "hypochlorite": ("ClO", 1),
    "chlorite": ("ClO2", 1), "chlorate": ("ClO3", 1), "perchlorate": ("ClO4", 1), "bisulfate": ("HSO4", 1),
    "hydrogen sulfate": ("HSO4", 1), "peroxide": ("O2", 2), "thiosulfate": ("S2O3", 2), "thiocyanate": ("SCN", 1),
    "cyanate": ("OCN", 1), "azide": ("N3", 1), "oxalate": ("C2O4", 2), "acetate": ("CH3CO2", 1), "formate": ("HCO2", 1),
    "hydrogen phosphate": ("HPO4", 2), "dihydrogen phosphate": ("H2PO4", 1), "manganate": ("MnO4", 2),
    "bisulfite": ("HSO3", 1), "hydrogen sulfite": ("HSO3", 1), "iodate": ("IO3", 1), "bromate": ("BrO3", 1),
    "silicate": ("SiO3", 2), "arsenate": ("AsO4", 3), "superoxide": ("O2", 1),
}  # fmt: skip
_COUNTS = "mono di tri tetra penta hexa hepta"
_PREFIXES = {name: count for count, name in enumerate(_COUNTS.split(), 1)}
_BINARY = re.compile(r"(?:(di|tri|tetra) ?)?([a-z]{3,12}) (?:(mon|di|tri|tetr|pent|hex|hept)[ao]?)([a-z]{4,8})")
_SALT = re.compile(r"([a-z]{3,12}) ?(?:\(([ivx]{1,4})\))? ((?:(?:di)?hydrogen )?[a-z]{5,13})")
_TABLE = {
    "methane": "CH4", "ethane": "C2H6 CH3CH3", "propane": "C3H8 CH3CH2CH3", "benzene": "C6H6",
    "hydrogen peroxide": "H2O2", "sulfurous acid": "H2SO3", "nitrous acid": "HNO2", "carbonic acid": "H2CO3",
    "hydrobromic acid": "HBr", "hydroiodic acid": "HI", "hydrofluoric acid": "HF", "perchloric acid": "HClO4",
    "chloric acid": "HClO3", "hypochlorous acid": "HClO HOCl", "phosphorous acid": "H3PO3", "boric acid": "H3BO3",
    "ammonium": "NH4^+", "silane": "SiH4", "diborane": "B2H6", "hydrazine": "N2H4",
}  # fmt: skip
_ORGANIC = ("CH3CO2", "HCO2")  # CH3COONa is written as often as NaCH3COO
_ION = re.compile(r"(.{1,80}?) (?:cation|anion|ion)s?")
_DIATOMIC = ("hydrogen", "nitrogen", "oxygen", "fluorine", "chlorine", "bromine", "iodine")


def formulas(name: str) -> frozenset[str]:
    """The formulas that a name means, as they are written without underscores; empty where the name is not known.

    >>> sorted(formulas("Iron(III) oxide") | formulas("carbon dioxide") | formulas("calcium nitrate"))
    ['CO2', 'Ca(NO3)2', 'Fe2O3']
    >>> formulas("sulfate ion"), formulas("tea")
    (frozenset({'SO4^2-'}), frozenset())
    """
    name = name.lower().replace("sulph", "sulf").replace("aluminium", "aluminum").replace("caesium", "cesium")
    ion = _ION.fullmatch(name)
    if ion and ion[1] in _CATIONS:
        charge = _CATIONS[ion[1]]
        return frozenset((f"{SYMBOLS[ion[1]]}^{charge if charge > 1 else ''}+",))
    name = one_name(ion[1] if ion else name.removesuffix(" gas").strip())
    if listed := written(name):
        return listed
    if name in _TABLE:
        return frozenset(_TABLE[name].split())
    if name in _DIATOMIC:
        return frozenset((SYMBOLS[name], f"{SYMBOLS[name]}2"))
    if name in _ANIONS:
        symbols, charge = _ANIONS[name]
        return frozenset((f"{symbols}^{charge if charge > 1 else ''}-",))
    binary, salt = _BINARY.fullmatch(name), _SALT.fullmatch(name)
    found = (binary and _binary(binary)) or (salt and _salt(salt))
    return frozenset(found.split()) if found else frozenset()


def _binary(match: re.Match[str]) -> str | None:
    first, second = SYMBOLS.get(match[2]), _ANIONS.get(match[4]) or _ANIONS.get("o" + match[4])
    if first is None or second is None or len(second[0]) > 2:
        return None
    count = next(number for name, number in _PREFIXES.items() if name.startswith(match[3]))
    return _times(first, _PREFIXES.get(match[1] or "mono", 1)) + _times(second[0], count)


def _salt(match: re.Match[str]) -> str | None:
    cation = _AMMONIUM if match[1] == "ammonium" else SYMBOLS.get(match[1])
    charge = roman(match[2].upper()) if match[2] else 1 if cation == _AMMONIUM else _CATIONS.get(match[1])
    if cation is None or not charge or match[3] not in _ANIONS:
        return None
    anion, negative = _ANIONS[match[3]]
    if (anion, negative) == ("O2", 2):  # a peroxide keeps its pair
        return _times(cation, 2 // charge) + anion if charge < 3 else None
    common = gcd(charge, negative)
    parts = _times(cation, negative // common), _times(anion, charge // common)
    return f"{parts[0]}{parts[1]} {parts[1]}{parts[0]}" if anion in _ORGANIC else "".join(parts)


def _times(symbols: str, count: int) -> str:
    if count == 1:
        return symbols
    return f"{symbols}{count}" if re.fullmatch("[A-Z][a-z]?", symbols) else f"({symbols}){count}"
