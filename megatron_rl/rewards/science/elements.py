"""The chemical elements: their names and symbols, and ions and isotopes by name."""

from __future__ import annotations

import re

from megatron_rl.rewards.science.numerals import roman

_TABLE = """
    H hydrogen He helium Li lithium Be beryllium B boron C carbon N nitrogen O oxygen F fluorine Ne neon Na sodium
    Mg magnesium Al aluminium Si silicon P phosphorus S sulfur Cl chlorine Ar argon K potassium Ca calcium Sc scandium
    Ti titanium V vanadium Cr chromium Mn manganese Fe iron Co cobalt Ni nickel Cu copper Zn zinc Ga gallium
    Ge germanium As arsenic Se selenium Br bromine Kr krypton Rb rubidium Sr strontium Y yttrium Zr zirconium
    Nb niobium Mo molybdenum Tc technetium Ru ruthenium Rh rhodium Pd palladium Ag silver Cd cadmium In indium Sn tin
    Sb antimony Te tellurium I iodine Xe xenon Cs caesium Ba barium La lanthanum Ce cerium Pr praseodymium
    Nd neodymium Pm promethium Sm samarium Eu europium Gd gadolinium Tb terbium Dy dysprosium Ho holmium Er erbium
    Tm thulium Yb ytterbium Lu lutetium Hf hafnium Ta tantalum W tungsten Re rhenium Os osmium Ir iridium Pt platinum
    Au gold Hg mercury Tl thallium Pb lead Bi bismuth Po polonium At astatine Rn radon Fr francium Ra radium
    Ac actinium Th thorium Pa protactinium U uranium Np neptunium Pu plutonium Am americium Cm curium Bk berkelium
    Cf californium Es einsteinium Fm fermium Md mendelevium No nobelium Lr lawrencium Rf rutherfordium Db dubnium
    Sg seaborgium Bh bohrium Hs hassium Mt meitnerium Ds darmstadtium Rg roentgenium Cn copernicium Nh nihonium
    Fl flerovium Mc moscovium Lv livermorium Ts tennessine Og oganesson
"""
NAMES = dict(zip(_TABLE.split()[::2], _TABLE.split()[1::2], strict=True))
SYMBOLS = {name: symbol for symbol, name in NAMES.items()} | {"aluminum": "Al", "sulphur": "S", "cesium": "Cs"}
NUMBERS = {symbol: number for number, symbol in enumerate(_TABLE.split()[::2], 1)}  # of protons
_ISOTOPE = re.compile(r"([A-Za-z]{3,13})[ -]([0-9]{1,3})")
_ISOTOPES = {"protium": "H-1", "deuterium": "H-2", "tritium": "H-3"}
_OLD_ION = re.compile(r"([A-Za-z]{6,10}) (?:cat)?ions?")
_OLD_IONS = {
    "ferrous": ("Fe", 2), "ferric": ("Fe", 3), "cuprous": ("Cu", 1), "cupric": ("Cu", 2), "stannous": ("Sn", 2),
    "stannic": ("Sn", 4), "plumbous": ("Pb", 2), "plumbic": ("Pb", 4), "mercuric": ("Hg", 2),
}  # fmt: skip
_ION = re.compile(r"([A-Za-z]{1,13}) ?\(([IVX]{1,4})\)(?: (?:cat)?ion)?")
_BOTH = re.compile(r"([A-Za-z]{1,13}) ?\(([A-Za-z]{1,13})\)")


def in_symbols(text: str) -> str:
    """A text that is the name of an element, of an isotope or of an ion, by its symbol; any other as it is.

    >>> in_symbols("Zinc"), in_symbols("carbon-14"), in_symbols("iron(III)"), in_symbols("Zn (zinc)"), in_symbols("tea")
    ('Zn', 'C-14', 'Fe^{3+}', 'Zn', 'tea')
    """
    if text.lower() in SYMBOLS:
        return SYMBOLS[text.lower()]
    if text.lower() in _ISOTOPES:
        return _ISOTOPES[text.lower()]
    if (match := _ISOTOPE.fullmatch(text)) and match[1].lower() in SYMBOLS:
        return f"{SYMBOLS[match[1].lower()]}-{match[2]}"
    if (match := _OLD_ION.fullmatch(text)) and match[1].lower() in _OLD_IONS:
        return "{}^{{{}+}}".format(*_OLD_IONS[match[1].lower()])
    if (match := _ION.fullmatch(text)) and (symbol := _symbol(match[1])):
        return f"{symbol}^{{{roman(match[2])}+}}"
    if (match := _BOTH.fullmatch(text)) and (symbol := _symbol(match[1])) and symbol == _symbol(match[2]):
        return symbol
    return text


def _symbol(text: str) -> str | None:
    return text if text in NAMES else SYMBOLS.get(text.lower())
