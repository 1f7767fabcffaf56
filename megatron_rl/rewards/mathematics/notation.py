r"""The plain form of an answer's text: one spelling for what LaTeX, Unicode and habit write in many ways.

Presentation goes (`\left`, `$`, `\displaystyle`, thin spaces), Unicode becomes LaTeX, synonyms become one command.
Nothing that carries meaning goes: words stay in `\text{...}`, signs of percent, degree and currency stay.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

# Characters, then what stands for each of them; √ and ∛ are left to `_ROOT`.
_TABLE = r"""
    −–‒—﹣‐‑ -    ∗ *          ∕⁄ /      ÷ \div       ′’‘ '        “” "
    ·⋅∙• \cdot   ×✕✖⨯ \times  ± \pm       ∓ \mp        °º ^\circ   ∞ \infty     … \ldots
    ≤⩽≦ \le      ≥⩾≧ \ge      ≠ \ne       ≈≃ \approx  ≅ \cong   ∈ \in       ∑ \sum       ∏ \prod     ∫ \int
    ∪ \cup       ∩ \cap       ∅ \emptyset ∖ \setminus  ⟨ \langle   ⟩ \rangle
    ℏħ \hbar     △ \triangle ∠ \angle      ⊥ \perp     ∥ \parallel  ∶ :          、 ,         。 .
    ⌊ \lfloor    ⌋ \rfloor    ⌈ \lceil    ⌉ \rceil     ℝ \mathbb{R} ℤ \mathbb{Z} ℕ \mathbb{N} ℚ \mathbb{Q} ℂ \mathbb{C}
"""
_CHARACTERS = {
    character: f"{latex} " if latex[-1].isalpha() else latex
    for characters, latex in zip(_TABLE.split()[::2], _TABLE.split()[1::2], strict=True)
    for character in characters
}
_CHARACTERS |= dict.fromkeys("\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u00ad\ufeff", "")  # of no width
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_SUPERSCRIPTS = re.compile("[⁰¹²³⁴-⁹⁺⁻ⁿⁱ]+")
_SUBSCRIPTS = re.compile("[₀-₉]+")
_ROOT = re.compile(r"([√∛])\s*(?:([0-9]+(?:\.[0-9]+)?|\\?[A-Za-z]+)|\(([^()]*)\))?")

_END = r"(?![A-Za-z])"
_VECTOR_FONTS = r"\\(?:vec|overrightarrow|mathbf|textbf|boldsymbol|bm|hat)(?![A-Za-z])"
_VECTOR = (
    rf"({_VECTOR_FONTS} ?(?:\{{ ?\\?[A-Za-z]{{1,9}} ?\}}|\\[A-Za-z]{{1,9}}|[A-Za-z])"
    r"(?: ?_ ?(?:\{[A-Za-z0-9]{1,9}\}|[A-Za-z0-9]))?)"
)
_FACTOR = r" ?(?:[A-Za-z0-9] ?){0,6}"  # of a vector, as in r x mv
_CROSSED = re.compile(rf"{_VECTOR} ?\\times{_FACTOR}(?={_VECTOR})")
_MAY_BE_CROSSED = re.compile(  # the font of a vector may be left out beside a sign of its product
    rf"({_VECTOR}|(?<![A-Za-z\\{{_])[A-Za-z](?![A-Za-z])) ?\\times({_FACTOR})({_VECTOR}|[A-Za-z](?![A-Za-z]))"
)
_VECTOR_PARTS = re.compile(
    r"\\(?:vec|overrightarrow|mathbf|boldsymbol|bm|(?P<unit>hat))(?![A-Za-z]) ?"
    r"(?:\{ ?(?P<name>\\?[A-Za-z]{1,9}) ?\}|(?P<letter>\\[A-Za-z]{1,9}|[A-Za-z]))"
    r"(?: ?_ ?(?:\{(?P<at>[A-Za-z0-9]{1,9})\}|(?P<mark>[A-Za-z0-9])))?"
)
_CONSTANTS = ("e", "i")  # which have no subscript
_HAS_ARROW = re.compile(r"\\(?:vec|overrightarrow)(?![A-Za-z])")
_NOT_CROSSED = re.compile(rf"{_VECTOR} ?(?:\\cdot)?{_FACTOR}(?={_VECTOR})")
_FONTS = "mathrm|textrm|textbf|textit|textsf|texttt|textnormal|mbox|hbox|emph|mathbf|mathit|mathsf|bm|boldsymbol|textup"


def _without_marks(match: re.Match[str]) -> str:
    """A number without what groups its thousands."""
    return re.sub("['.]", "", match[0])


_SPELLINGS: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:boxed|fbox|underline|uline)\s*(?=\{)|\\(?:text)?color\s*\{[^{}]*\}", ""),
        (rf"\\(?:[dtcs]|nice)frac{_END}", r"\\frac"),
        (r"\\text\s*\{\s*(?:oder|ou)\s*\}|或者?", r"\\text{ or }"),
        (r"\\text\s*\{\s*(?:und|et)\s*\}|[和且与及]", r"\\text{ and }"),
        (r"\\text\s*\{\s*:\s*\}", ":"),
        (r"\b(?:all )?(?:(?:its|their|the) )?permutations(?: thereof| of it)?\b", "permutations"),
        (rf"\\textdollar{_END}|\\text\s*\{{\s*\\\$\s*\}}", r"\\$"),
        (rf"\\(?:pounds|textsterling){_END}\s?", "£"),
        (rf"\\(?:text)?euro{_END}\s?", "€"),
        (r"\{\s*\\rm\s+([A-Za-z][A-Za-z ]+)\}", r"\\text{ \1}"),
        (rf"\{{([^{{}}\\]*(?:\\(?!over{_END})[^{{}}\\]*)*)\\over{_END}([^{{}}]*)\}}", r"\\frac{\1}{\2}"),
        (rf"\\[dt]binom{_END}", r"\\binom"),
        (rf"\\(?:left|right|[bB]igg?[lrm]?){_END}\.?", ""),
        (rf"\\(?:displaystyle|textstyle|limits|nolimits|tiny|small|normalsize|large|Large|LARGE|huge){_END}", ""),
        (r"\\math(?:open|close|ord|inner)\s*\{\s*([()\[\]])\s*\}", r"\1"),
        (r"\\!(?:\s|\\!)*", r"\\!"),
        (
            r"(?<=[0-9])(?:\\!)?(?:\{,\}|, ?)?\\!(?=[0-9]{3}(?![0-9]))",
            "",
        ),  # thousands, written so that they are no list
        (r"(?<!\\)\\[!/]", ""),
        (r"\\(?:[hv]space\*?|[hv]?phantom)\s*\{[^{}]*\}", " "),
        (r"(?<=[0-9])(?:\{,\}|,?(?<!\\)\\,)(?=[0-9]{3}(?![0-9]))", ""),
        (rf"(?<!\\)\\[,;:> \n]|~|\\(?:quad|qquad|thinspace|enspace){_END}", " "),
        (r"(?<!\\)\\[()\[\]]|(?<!\\)\$", ""),
        (r"(?<![0-9.,'])[1-9][0-9]{0,2}(?:'[0-9]{3})+(?![0-9'.])", _without_marks),
        (r"(?<![0-9.,'])[1-9][0-9]{0,2}(?:\.[0-9]{3}){2,}(?![0-9.])", _without_marks),
        (rf"\\colon{_END}", ":"),
        (r"(?<=[0-9])\{,\}(?=(?:[0-9]{1,2}|[0-9]{4,})(?![0-9]))", "."),  # a decimal comma
        (r"\{([,:])\}", r"\1"),
        (rf"\\(?:dots[bcimo]?|ldots|cdots){_END}|\.\.\.+", r"\\ldots "),
        (rf"\\(?:bf|rm|it|sf|tt|sl|em|bfseries|itshape){_END}", ""),
        (r"(?<![A-Za-z\]}^_])(?<![A-Za-z\]}^_] )\{\s*([A-Za-z]|\\[A-Za-z]+)\s*\}(?=\s*[_^])", r"\1"),
        (r"(?<=[)\]}])\s?U\s?(?=(?:[(\[]|\\\{)[^()\[\]]*,)", r"\\cup "),  # between intervals
        (r"\\%", "%"),
        (r"\\(vec|hat|bar|tilde|overrightarrow|mathbf|boldsymbol|bm)\s+([A-Za-z0-9])", r"\\\1{\2}"),  # as TeX reads it
        (rf"\\(?:{_FONTS}|operatorname\*?)(?=\s*\{{)", r"\\text"),
        (r"(?<=[0-9])\^\s*(?:\{\s*)?\\text\s*\{\s*(?:st|nd|rd|th)\s*\}(?:\s*\})?", ""),
        (rf"\^\s*(?:\{{\s*\\circ\s*\}}|\\circ{_END})|\\(?:degree|textdegree){_END}", r"^\\circ "),
        (rf"\\(?:leq|leqslant|le){_END}|<=", r"\\le "),
        (rf"\\(?:geq|geqslant|ge){_END}|>=", r"\\ge "),
        (rf"\\(?:neq|ne){_END}|!=", r"\\ne "),
        (rf"\\wedge{_END}", r"\\land "),
        (rf"\\vee{_END}", r"\\lor "),
        (rf"\\lt{_END}", "<"),
        (rf"\\gt{_END}", ">"),
        (rf"\\(?:lbrace{_END}|\{{)", r"\\{"),
        (rf"\\(?:rbrace{_END}|\}})", r"\\}"),
        (rf"\\[lr]?vert{_END}", "|"),
        (rf"\\[lr]?Vert{_END}", r"\\|"),
        (rf"\\(?:approxeq|approx|simeq|sim|cong(?=\s*-?[0-9.])){_END}", r"\\approx "),
        (rf"\\(?:varnothing|emptyset){_END}|\\\{{\s*\\\}}", r"\\emptyset "),
        (r"\*\*", "^"),
        (r"\s+", " "),
    )
]
_EMPHASIS = ("***", "**", "*", "__", "_", "``", "`")
_VALUE = re.compile(rf"\\(?:text|frac|sqrt|binom|overline|begin|pm|pi|infty|theta|alpha|beta){_END}")  # never of a unit
_NESTED_FONT = re.compile(rf"\\text ?\{{ ?(?:\{{|[^{{}}]*{_VALUE.pattern})")
_PIECE = re.compile(r"\\text ?\{|\\[A-Za-z]+|\\.|[{}]|[^\\{}]+|\\", re.DOTALL)
_SPACE = re.compile(r" (?![A-Za-z0-9])|(?<![A-Za-z0-9]) ")


def plain(text: str) -> str:
    r"""The plain form; the same again for a plain form; linear time.

    >>> plain("$\\left( 2½,\\; \\dfrac{−1}{3} \\right)$.")
    '( 2\\frac{1}{2}, \\frac{-1}{3} )'
    """
    if text.isalnum() and text.isascii():
        return text
    if not text.isascii():
        text = _in_ascii(text)
    text = _without_emphasis(text)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    if _NESTED_FONT.search(text):
        text = _without_outer_fonts(text)
    return text.rstrip(" .,;\\").lstrip()


def compact(text: str) -> str:
    r"""A plain form without the spaces that mean nothing, to see whether two texts are the same but for habit.

    >>> compact("( \\frac{1}{2}, 1 2, \\pi x )")
    '(\\frac{1}{2},1 2,\\pi x)'
    """
    return _SPACE.sub("", text) if " " in text else text


def nesting(text: str) -> int:
    """How deep the brackets of `text` stand in one another.

    >>> nesting("(1+[2])(3)")
    2
    """
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest


def changes_cross_product(answer: str, reference: str) -> bool:
    r"""Whether an answer, as it was written, crosses two vectors in another order, or where only one of the two does.

    >>> changes_cross_product(r"q\vec{B} \times \vec{v}", r"q\vec v\times\vec B"), changes_cross_product("b", "a")
    (True, False)
    >>> changes_cross_product(r"\vec{a} \cdot \vec{b}", r"\vec a\times\vec b")
    True
    """
    mine, its = _pairs(_CROSSED, answer), _pairs(_CROSSED, reference)
    if any((right, left) in mine and (left, right) not in mine for left, right in its if left != right):
        return True
    return any(
        {(left, right), (right, left)} & without and not {(left, right), (right, left)} & crossed
        for pairs, crossed, without in (
            (its, mine, _pairs(_NOT_CROSSED, answer)),
            (mine, its, _pairs(_NOT_CROSSED, reference)),
        )
        for left, right in pairs
    )


def crossed_as(answer: str, reference: str) -> str:
    r"""An answer with the cross products of the reference written as there: one that is turned round is its negative.

    >>> crossed_as(r"-\mathbf{p} \times \mathbf{r}", r"\vec r\times\vec p"), crossed_as("a", "b")
    ('-\\vec r \\times \\vec p \\cdot (-1)', 'a')
    """
    written = {tuple(map(_vector_name, match)): match for match in _CROSSED.findall(reference)}
    if not written or "\\times" not in answer:
        return answer

    def rewritten(match: re.Match[str]) -> str:
        left, factor, right = match[1], match[3], match[4]
        names = _vector_name(left), _vector_name(right)
        if names in written:
            return rf"{written[names][0]} \times{factor or ' '}{written[names][1]}"
        if names[::-1] in written:
            return rf"{written[names[::-1]][0]} \times{factor or ' '}{written[names[::-1]][1]} \cdot (-1)"
        return match[0]

    return _MAY_BE_CROSSED.sub(rewritten, answer)


def has_vectors(text: str) -> bool:
    """Whether a text has letters with an arrow, or a cross product of vectors."""
    return _HAS_ARROW.search(text) is not None or _CROSSED.search(text) is not None


def vectors_as_letters(text: str) -> str:
    r"""A text with a letter of its own for each vector, whatever its font, and for each unit vector.

    >>> vectors_as_letters(r"m\vec{v}_0 \cdot \mathbf{v} + \hat{n} v")
    'm v_{v0} \\cdot  v_{v} +  n_{h} v'
    """

    def named(match: re.Match[str]) -> str:
        name, kind = match["name"] or match["letter"], "h" if match["unit"] else "v"
        first, others = (name, "") if name[0] == "\\" else (name[0], name[1:])
        if first in _CONSTANTS:
            first, others = "V", f"{first}{others}"
        return f" {first}_{{{others}{kind}{match['at'] or match['mark'] or ''}}}"

    return _VECTOR_PARTS.sub(named, text)


def _vector_name(text: str) -> str:
    return re.sub(rf"{_VECTOR_FONTS}|[{{}} ]", "", text)


def _pairs(product: re.Pattern[str], text: str) -> set[tuple[str, ...]]:
    """The names of the vectors that such a product joins."""
    return {tuple(map(_vector_name, match)) for match in product.findall(text)}


def _without_emphasis(text: str) -> str:
    """A text without the Markdown around all of it."""
    text = text.strip()
    for mark in _EMPHASIS:
        inside = text[len(mark) :].rstrip(" .,;")
        if text.startswith(mark) and inside.endswith(mark) and len(inside) > len(mark) and inside.count(mark) == 1:
            return inside.removesuffix(mark)
    return text


def _without_outer_fonts(text: str) -> str:
    r"""A text where no `\text{...}` holds commands: the outer ones become plain groups.

    >>> _without_outer_fonts("\\text{\\text{odd}}, \\text{ 5}, \\text{\\frac{1}{2}}")
    '{\\text{odd}}, \\text{ 5}, {\\frac{1}{2}}'
    """
    pieces: list[str] = []
    opened: list[int] = []  # where the open groups start among the pieces
    for match in _PIECE.finditer(text):
        piece = match[0]
        if piece == "}" and opened:
            opened.pop()
        elif opened and (_VALUE.match(piece) or (piece == "{" and opened[-1] == len(pieces) - 1)):
            pieces[opened[-1]] = "{"
        pieces.append(piece)
        if piece[-1] == "{" and piece != "\\{":
            opened.append(len(pieces) - 1)
    return "".join(pieces)


def _in_ascii(text: str) -> str:
    text = _SUPERSCRIPTS.sub(lambda match: f"^{{{unicodedata.normalize('NFKC', match[0])}}}", text)
    text = _SUBSCRIPTS.sub(lambda match: f"_{{{unicodedata.normalize('NFKC', match[0])}}}", text)
    text = _NOT_ASCII.sub(lambda match: _latex(match[0]), text)
    return _ROOT.sub(_root, text).replace("√", r"\sqrt").replace("∛", r"\sqrt[3]").replace("−", "-")


def _latex(character: str) -> str:
    if character in _CHARACTERS:
        return _CHARACTERS[character]
    name, usual = unicodedata.name(character, ""), unicodedata.normalize("NFKC", character)
    # Other shapes are usual letters there: ϕ and 𝜃; the sign of micro stays one.
    letter = unicodedata.name(usual, "") if len(usual) == 1 and character != "µ" else ""
    if letter.startswith("GREEK") and "LETTER" in letter:
        command = letter.split()[-1].replace("LAMDA", "LAMBDA")  # as Unicode spells it
        return f"\\{command.title() if 'CAPITAL' in letter else command.lower()} "
    if name.startswith("VULGAR FRACTION"):
        over, _, under = unicodedata.normalize("NFKC", character).partition("⁄")
        return f"\\frac{{{over}}}{{{under}}}" if under else character
    return usual  # full-width digits and letters, other widths of space


def _root(match: re.Match[str]) -> str:
    degree = "[3]" if match[1] == "∛" else ""
    inside = match[2] or match[3]
    return f"\\sqrt{degree}{{{inside}}}" if inside else match[0]
