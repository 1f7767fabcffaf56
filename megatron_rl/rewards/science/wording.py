"""Whether two answers in words are the same: names, true and false, chemical formulas and equations.

Not covered: synonyms beyond `names`, names for formulas beyond `compounds`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from megatron_rl.rewards.mathematics.notation import plain
from megatron_rl.rewards.science.compounds import formulas
from megatron_rl.rewards.science.concentrations import has_concentrations
from megatron_rl.rewards.science.elements import NAMES, NUMBERS, in_symbols
from megatron_rl.rewards.science.forms import in_one_form, without_kind
from megatron_rl.rewards.science.names import is_known, one_name
from megatron_rl.rewards.science.particles import IN_REACTIONS, particle
from megatron_rl.rewards.science.symbols import without_subscripts

MAX_NUM_NAMES = 6  # of a list

_SYMBOLS = """
    H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo
    Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl
    Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr D T
"""
_ELEMENTS = re.compile(f"(?:{'|'.join(sorted(_SYMBOLS.split(), key=len, reverse=True))})+|[enp]")
_SUBSTANCES = re.compile(rf"(?:{_ELEMENTS.pattern}|[A-Z])+")  # of a reaction: HA is an acid
_WRAPPER = re.compile(r"\\(?:text|ce|mathrm) ?(?=\{)")
_ARROW = re.compile(
    r"\\x(?:rightarrow|rightleftharpoons) ?(?:\[[^\[\]]*\] ?)?\{(?:[^{}]|\{[^{}]*\})*\}"  # what is above it
    r"|\\(?:long|x)?(?:rightarrow|rightleftharpoons|leftrightarrow|to)(?![A-Za-z])|[→⟶⇌]|<?[=-]+>"
)
_FORMULA = re.compile(r"[A-Za-z0-9()\[\]^+\-.=#→]+")
_CHARGE = re.compile(r"\^\(?(?:([0-9]*)([+-])|([+-])([0-9]+))\)?(?![0-9])")
_BARE_CHARGE = re.compile(r"(?<=[A-Za-z0-9)\]])([+-])([0-9])$")
# Fe3+; but O2- and I3- may be molecules.
_METAL_ION = re.compile(r"^((?!(?:[HBCNOFPSI]|Cl|Br)[0-9])[A-Z][a-z]?)([2-4][+-])$")
_STATE = re.compile(r"\((?:s|l|g|aq)\)")
_BARE_SIGN = re.compile(r"([A-Za-z0-9)\]])([+-])(?=(?:\((?:s|l|g|aq)\))?$)")  # Na+ and Cl-, in a reaction
_PLUS = re.compile(r"\s\+\s")
_ISOTOPE = re.compile(
    r"(?:\^?(?P<mass>[0-9]+)(?:_(?P<protons>[0-9]+))?|_(?P<before>[0-9]+)\^(?P<above>[0-9]+))(?P<symbol>[A-Z][a-z]?)"
    r"|(?P<named>[A-Z][a-z]?)-(?P<behind>[0-9]+)"
)
_VERDICT_ON_STATEMENT = re.compile(
    r"(?:the )?(?:given |above |following )?(?:statement|claim|assertion|proposition) is (true|false)", re.IGNORECASE
)
_ARTICLES = re.compile(
    r"^[\s{]*(?:the )?(?:process|phenomenon|principle|law|method|technique) (?:of|called|known as) (?:the )?"
    r"|^[\s{]*(?:the )?(?:enzyme|hormone|element|compound|pigment|organelle|mineral|metal) (?=[a-z]{3})"
    r"|\b(?:the|an?) |^[\s{]*(?:by|via|through|due to|because of) (?:means of )?"
)
_ARTICLE = re.compile(r"^\s*(?:[Tt]he|[Aa]n|a) ")  # A may be a substance
_GREEK = "alpha beta gamma delta epsilon lambda mu pi sigma omega"
_CROSS = re.compile(r"\\times(?![A-Za-z])")
_LETTERS = dict(zip("αβγδελμπσω", _GREEK.split(), strict=True))
_COMMANDS = re.compile(rf"\\({'|'.join(_GREEK.split())})(?![A-Za-z]) ?")
_IN_BRACKETS = re.compile(r"^\(([^()]*)\)$")
_ABBREVIATION = re.compile(r"([^()]*[^()\s])\s*\((?![IVX]+\))(?=[A-Za-z0-9]*[A-Z])([A-Za-z][A-Za-z0-9]{0,7})\)\W*")
# "toluene (methylbenzene)", "the ammonium ion, NH4+"
_TWO_NAMES = re.compile(
    r"(?P<name>[^\s](?:.{0,80}?\S)?)(?:\s\((?P<bracket>.{1,80})\)"
    r"|, (?:(?:or|namely|that is|i\.e\.|also (?:known as|called)),? )?(?P<other>.{1,80}))"
)
_SUBSCRIPT = re.compile(r"_ ?(?=[{0-9A-Za-z])")
_STRAND = re.compile(r"^5'?-?([acgtu]{3,})-?3'?$")
_GENOTYPE = re.compile(r"(?:([A-Za-z])(?i:\1)){1,8}")
_PAIRS = re.compile(r"(?<![A-Za-z])(?:([A-HJ-Za-hj-z])(?i:\1))+(?![A-Za-z])")
_SUBSHELL = re.compile(r"\[[A-Z][a-z]?\]|[1-7][spdf]\^[0-9]{1,2}(?=[1-7][spdf]|$)")
_CORES = {"Rn": "[Xe]4f^145d^106s^26p^6", "Xe": "[Kr]4d^105s^25p^6", "Kr": "[Ar]3d^104s^24p^6"}
_CORES |= {"Ar": "[Ne]3s^23p^6", "Ne": "[He]2s^22p^6", "He": "1s^2"}
_BARE_SUBSHELL = re.compile(r"(?<![0-9A-Za-z^])([1-7][spdf])([0-9]{1,2})(?![0-9A-Za-z])")
_AND = re.compile(r"\s*(?:[,;&]|\band\b)[\s,]*(?:\band\b\s*)?")
# A list of such says what belongs to what: "increases, decreases" is not "decreases, increases".
_IN_TURN = re.compile(
    r"\b(?:respectively|then|(?:in|de)creas\w+|higher|lower|more|less|larger|smaller|greater|left|right|up|down|true|false"
    r"|yes|no|positive|negative|oxidi[sz]ed|reduced|first|second|rises?|falls?|not|same)\b|[:<>=→]|(?:^|[\s,])-",
    re.IGNORECASE,
)
_VARIANT = re.compile(r"\\var(epsilon|theta|phi|rho|kappa)(?![A-Za-z])")
_EXTREME = re.compile(r"_ ?\{ ?\\(max|min) ?\}")
_BOLD_HAT = re.compile(r"\\(?:mathbf|boldsymbol|bm|vec) ?\{ ?(\\hat ?(?:\{ ?[A-Za-z] ?\}|[A-Za-z])) ?\}")
_MATHEMATICAL = re.compile(r"\\(?:frac|sqrt)(?![A-Za-z])")
_HYPHEN = re.compile(r"(?<=[^\W\d])-(?=\w)|(?<=\d)-(?=[^\W\d])|(?<!\d)\s+|\s+(?!\d)")  # or space, but not in 1-2
_MARKUP = re.compile(r"[{}$\\\"'`]+|\*+(?!\w)|(?<!\w)\*+")
_ORBITALS = re.compile(r"(?:\[[A-Z][a-z]?\])?(?:d\^?2?sp\^?[23]|sp\^?[23]?(?:d\^?2?)?|(?:[1-7][spdf]\^?[0-9]+)+)")
_FUNCTIONS = r"(?:sin|cos|tan|cot|log|exp|sqrt|frac|mod|max|min)"
# A word, but no product: nRT and mgh are none.
_PHRASE = re.compile(
    rf"(?<![A-Za-z\\])(?!{_FUNCTIONS}(?![A-Za-z]))(?=[A-Za-z]*[aeiouyAEIOUY])(?:[A-Za-z][a-z]{{2,}}|[A-Z]{{3,}})(?![A-Za-z])"
)
_TUPLE = re.compile(r"[(<] ?-?[0-9][0-9./]*(?: ?, ?-?[0-9][0-9./]*)+ ?[)>]")
_EXPONENTIAL = re.compile(r"(?<![A-Za-z\\])e ?\^ ?(?:\{ ?[+-]? ?)?[0-9]")
# In order of size or strength: A < B < C.
_COMPARED = re.compile(r"\s*[<>]\s*")
_QUOTIENT = re.compile(
    r"[A-Za-z0-9)}] ?/ ?[A-Za-z0-9({]|[0-9] ?: ?[0-9]|^[+-]?[0-9.]+ ?[A-Za-z]{1,3}$"
    r"|^[A-Za-z]{0,2} ?\\(?:alpha|beta|gamma|delta|mu)(?![A-Za-z]) ?[A-Za-z]{0,2}$"
)
_SYMBOLIC = re.compile(r"\\(?!(?:text|ce|alpha|beta|gamma|delta|mu)(?![A-Za-z]))[A-Za-z]+|[=^_*+<>]|^-")
_VERDICT = re.compile(r"\b(?:true|false|yes|no)\b", re.IGNORECASE)
_BEGINS_WITH_VERDICT = re.compile(rf"{_VERDICT.pattern}[,.;:]", re.IGNORECASE)  # "No, it does not."
_SHORT = {"t": "true", "f": "false", "y": "yes", "n": "no"}


@lru_cache(512)  # an answer is compared with several texts, and asked for in several ways
def _plain(text: str) -> str:
    """The plain form, where an arrow is no inequality."""
    return plain(text.replace("<=>", "⇌"))


@lru_cache(1024)  # the samples of a prompt share their reference
def is_symbolic(text: str) -> bool:
    """Whether a reference answer is an expression to be compared by value, not words or a chemical formula.

    >>> is_symbolic("x^2"), is_symbolic("H_2O"), is_symbolic("Na^+ ions")
    (True, False, False)
    """
    written = _plain(text)
    if "^" in written and particle(text):
        return False
    if has_concentrations(written):
        return True
    has_symbols = _SYMBOLIC.search(written) is not None
    if _EXPONENTIAL.search(written) or "\\begin" in text or _TUPLE.fullmatch(text):
        return True
    ranked = _COMPARED.split(written)
    are_names = all(part in NAMES or _names_something(part) for part in ranked)
    if (
        len(ranked) > 1
        and are_names
        and not any(map(is_symbolic, ranked))
        and (len(ranked) > 2 or any(len(part) > 1 for part in ranked))
    ):
        return False
    if not has_symbols or _is_formula(_formula(text)):
        return False
    if _MATHEMATICAL.search(text) and "\\text" not in text:
        return True  # GMm is a product there
    return _PHRASE.search(_WRAPPER.sub("", without_subscripts(written))) is None


def same_words(answer: str, reference: str) -> bool:
    """Whether both say the same, whatever the case, articles, hyphens, markup and final s; formulas keep their case.

    >>> same_words("The X-ray", "x ray"), same_words("H₂O", "\\\\ce{H2O}"), same_words("CO", "Co")
    (True, True, False)
    """
    answer, reference = (_IN_BRACKETS.sub(r"\1", text.strip()) for text in (answer, reference))  # (S) is S
    if _GENOTYPE.fullmatch(reference.strip()):  # case is what it says
        return "".join(_MARKUP.sub("", _WRAPPER.sub("", _plain(answer))).split()) == reference.strip()
    particles = particle(answer), particle(reference)
    if all(particles):
        return particles[0] == particles[1]
    if any(same_words(mine, its) for mine, its in _shorter(answer, reference)) or _same_list(answer, reference):
        return True
    if _COMPARED.search(_plain(reference)) and "->" not in reference:
        return _same_order(_plain(answer), _plain(reference))
    mine, its = (without_kind(_unmarked(_plain(text))) for text in (answer, reference))
    mine, thing = _ARTICLE.sub("", mine), one_name(_ARTICLE.sub("", its))
    if is_known(thing) and one_name(mine) == thing:
        return True
    if _are_initials(mine, _unmarked(reference)) or _are_initials(its, _unmarked(answer)):
        return True
    symbols = in_symbols(mine), in_symbols(its)
    if symbols != (mine, its) and _same_marks(_formula(symbols[0]), _formula(symbols[1])):
        return True
    if _same_substance(mine, its):
        return True
    if reference.lower() not in _SHORT.values() and _is_formula(its := _formula(without_kind(reference))):
        mine = _formula(without_kind(_ARTICLE.sub("", _WRAPPER.sub("", _plain(answer))).rstrip("} ")))
        if not _STATE.search(its):
            mine = _STATE.sub("", mine)
        is_reaction, is_configuration = "→" in its, "^" in mine and "".join(_SUBSHELL.findall(its)) == its
        return (
            _same_marks(mine, its)
            or (is_reaction and _same_marks(_in_order(mine), _in_order(its)))
            or (is_configuration and _subshells(mine) == _subshells(its))
        )
    if _alleles(answer) != _alleles(reference):
        return False
    mine, its = _folded(answer), _folded(reference)
    if its in _SHORT.values():
        stated = _VERDICT_ON_STATEMENT.fullmatch(_unmarked(answer).rstrip("."))
        if stated:
            return stated[1].lower() == its
        said = {word.lower() for word in re.findall(_VERDICT, answer)}
        mine = its if said == {its} and _BEGINS_WITH_VERDICT.match(_unmarked(answer)) else _SHORT.get(mine, mine)
    return _same_marks(mine, its) or len(its) > 3 and mine.removesuffix("s") == its.removesuffix("s")


def meaning(text: str) -> str:
    """What two texts of one wording have in common; formulas keep their case."""
    formula = _formula(text)
    return formula if _is_formula(formula) else _folded(text)


def in_one_notation(text: str) -> str:
    r"""A formula whose letters have one shape: `\varepsilon` is `\epsilon`, and a bold unit vector a unit vector.

    >>> in_one_notation("\\varphi + \\mathbf{\\hat{i}}")
    '\\phi + \\hat{i}'
    """
    return _EXTREME.sub(r"_{\1}", _BOLD_HAT.sub(r"\1", _VARIANT.sub(r"\\\1", text)))


def may_be_formula(text: str) -> bool:
    """Whether a reference in words may be a quotient, a ratio or a multiple of a symbol: 0.693/k, 1 : 3, 0.8c."""
    return _QUOTIENT.search(text) is not None


def _same_marks(answer: str, reference: str) -> bool:
    """Whether both are the same, though one may be typed without the carets of the other."""
    has_carets = "^" in answer and "^" in reference
    return answer == reference or not has_carets and answer.replace("^", "") == reference.replace("^", "")


def _shorter(answer: str, reference: str) -> list[tuple[str, str]]:
    """The pairs left where a name has its abbreviation in brackets behind it: "adenosine triphosphate (ATP)"."""
    plain_answer, its = _WRAPPER.sub("", _plain(answer)).strip("{} "), _abbreviation(reference.strip())
    if its:
        return [(answer, its[1]), (answer, its[2])]
    both = _TWO_NAMES.fullmatch(plain_answer)
    if both and same_words(both["name"], both["bracket"] or both["other"]):
        return [(both["name"], reference)]
    mine = _abbreviation(plain_answer)
    if not mine or "(" in reference:
        return []
    letters = iter(mine[1].lower())
    # ATP is not short for adenosine diphosphate.
    is_same = all(letter in letters for letter in mine[2].lower()) or _same_substance(mine[1], mine[2])
    return [(mine[1], reference), *([(mine[2], reference)] if is_same else [])]


def _same_substance(one: str, other: str) -> bool:
    """Whether a name and a formula, or two names, mean the same substance or ion."""
    named = formulas(one), formulas(other)
    if all(named):
        return bool(named[0] & named[1]) and len(named[0]) == len(named[1])
    for formula, found in ((other, named[0]), (one, named[1])):
        if found:
            written = _STATE.sub("", _formula(formula))
            return any(_same_marks(written, its) for its in found)
    return False


def _same_list(answer: str, reference: str) -> bool:
    """Whether both list the same names; two, and more with an "and", have no order."""
    texts = [
        _unmarked(_ARROW.sub(", ", _plain(text)) if _is_chain(text) else _plain(text)) for text in (answer, reference)
    ]
    mine, its = [_AND.split(_IN_BRACKETS.sub(r"\1", text).strip(" .[]")) for text in texts]
    if not 1 < len(its) == len(mine) <= MAX_NUM_NAMES or not all(re.search("[A-Za-z]", name) for name in its):
        return False
    is_in_turn = _is_chain(answer) or _is_chain(reference) or _IN_TURN.search(f"{answer} {reference}")
    if is_in_turn or len(its) > 2 and not re.search(r"\band\b|&", reference):
        return all(map(same_words, mine, its))
    left = list(its)
    for name in mine:
        same = next((other for other in left if same_words(name, other)), None)
        if same is None:
            return False
        left.remove(same)
    return True


def _are_initials(short: str, name: str) -> bool:
    """Whether a word of three capitals or more has the initials of a name: KCL, Kirchhoff's current law."""
    words = [
        word for word in re.split(r"[\s-]+", name) if word[:1].isalpha() and word.lower() not in ("of", "the", "and")
    ]
    return (
        len(short) > 2 and short.isalpha() and short.isupper() and short.lower() == "".join(w[0] for w in words).lower()
    )


def _subshells(configuration: str) -> list[str]:
    """The occupied subshells in the order of their names, those of a noble gas one by one."""
    for gas, core in _CORES.items():
        configuration = configuration.replace(f"[{gas}]", core)
    return sorted(_SUBSHELL.findall(configuration))


def _is_chain(text: str) -> bool:
    """Whether a text is a sequence with arrows, of three things or more; a reaction has one arrow."""
    return len(_ARROW.findall(text)) > 1


def _alleles(text: str) -> list[str]:
    """The genotypes in a text, whose case is what they say: Aa, BB."""
    return sorted(match[0] for match in _PAIRS.finditer(_unmarked(_plain(text))))


def _same_order(answer: str, reference: str) -> bool:
    """Whether both put the same names in the same order; it may be read from either end."""
    ranks = [[_WRAPPER.sub("", part).strip("{} ") for part in _COMPARED.split(text)] for text in (answer, reference)]
    signs = [[sign.strip() for sign in _COMPARED.findall(text)] for text in (answer, reference)]
    if signs[0] != signs[1]:
        ranks[0].reverse()
        signs[0] = [{"<": ">", ">": "<"}[sign] for sign in reversed(signs[0])]
    mine, its = ranks
    is_short = len(mine) == len(its) <= MAX_NUM_NAMES
    return is_short and signs[0] == signs[1] and all(map(same_words, mine, its))


def _names_something(text: str) -> bool:
    return _is_formula(_formula(text)) or _PHRASE.search(_WRAPPER.sub("", text)) is not None


def _unmarked(text: str) -> str:
    return _MARKUP.sub("", _WRAPPER.sub("", text)).strip()


def _abbreviation(text: str) -> re.Match[str] | None:
    """A name with a small letter, and its abbreviation in brackets."""
    match = _ABBREVIATION.fullmatch(text)
    return match if match and re.search("[a-z]", match[1]) else None


def _in_order(reaction: str) -> str:
    """A reaction with the substances of each side in order; a sign behind a caret is a charge."""
    return "→".join("+".join(sorted(re.split(r"(?<!\^)(?<!\^[0-9])\+", side))) for side in reaction.split("→"))


def _is_formula(text: str) -> bool:
    """Whether a compact text is made of element symbols or orbitals; K or C alone may be anything."""
    if _ORBITALS.fullmatch(text):
        return True
    if "=" in text and not any(map(str.isdigit, text)):  # P=IV; CH2=CH2 has a double bond
        return False
    runs = re.findall(r"[A-Za-z]+", _STATE.sub("", text))
    substance = _SUBSTANCES if "→" in text else _ELEMENTS
    return (
        _FORMULA.fullmatch(text) is not None
        and bool(runs)
        and all(substance.fullmatch(run) for run in runs)
        and (sum(character.isupper() for character in text) > 1 or not text.isalpha() or len(text) == 2)
    )


def _formula(text: str) -> str:
    r"""A formula in one spelling: `SO_4^{2-}` and `SO₄²⁻` as SO4^2-, `^{14}C` as C-14, any arrow as →."""
    spaced = _BARE_SUBSHELL.sub(r"\1^\2", _WRAPPER.sub("", _plain(text)))
    spaced = re.sub(r"[{}$\\]", "", _ARROW.sub("→", spaced.replace("\\cdot", ".")))
    if " + " in spaced and "→" not in spaced:
        spaced = spaced.replace(" = ", " → ")
    if "→" not in spaced:
        isotope = _ISOTOPE.fullmatch(re.sub(r"\s", "", spaced))
        return _isotope(isotope) if isotope else _species(spaced)
    sides = [[_species(part) for part in _PLUS.split(side)] for side in spaced.split("→")]
    return "→".join("+".join(_BARE_SIGN.sub(r"\1^\2", part) for part in side) for side in sides)


def _isotope(match: re.Match[str]) -> str:
    """An isotope by symbol and mass, with its number of protons where the element has another one."""
    symbol, protons = match["symbol"] or match["named"], match["protons"] or match["before"]
    is_other = protons is not None and int(protons[:4]) != NUMBERS.get(symbol)
    return f"{symbol}-{match['mass'] or match['above'] or match['behind']}" + (f"_{protons}" if is_other else "")


def _species(text: str) -> str:
    """The formula of one substance in one spelling."""
    if (known := IN_REACTIONS.get(particle(text) or "")) is not None:
        return known
    compact = re.sub(r"\s", "", text)
    if "^" in compact and (isotope := _ISOTOPE.fullmatch(compact)):  # 2Al is two atoms
        return _isotope(isotope)
    compact = compact.replace("_", "").replace("++", "2+").replace("--", "2-").replace("COO", "CO2")
    compact = _CHARGE.sub(lambda match: f"^{(match[1] or match[4] or '').strip('1')}{match[2] or match[3]}", compact)
    compact = _BARE_CHARGE.sub(r"\2\1", compact)
    return _METAL_ION.sub(r"\1^\2", compact)


def _folded(text: str) -> str:
    text = _COMMANDS.sub(r"\1", _SUBSCRIPT.sub("", _CROSS.sub("x", _WRAPPER.sub("", _plain(text)))))
    decomposed = unicodedata.normalize("NFKD", "".join(_LETTERS.get(letter, letter) for letter in text))
    letters = "".join(character for character in decomposed if not unicodedata.combining(character)).casefold()
    said = _STRAND.sub(r"\1", _MARKUP.sub("", _ARTICLES.sub("", letters)).strip(" .,;:!?*"))
    bracket = _IN_BRACKETS.fullmatch(said)
    said = in_one_form(bracket[1] if bracket else said)
    return _HYPHEN.sub("", in_one_form(one_name(said)))
