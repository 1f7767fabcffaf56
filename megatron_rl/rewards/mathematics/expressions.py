r"""Expressions in plain LaTeX as trees of tuples: numbers, symbols, + * / ^, roots and the elementary functions.

A tree is `("number", Fraction)`, `("symbol", name)`, `("constant", "pi" | "e" | "i" | "infinity")`,
`("+", *terms)`, `("*", *factors)`, `("-", a)`, `("/", a, b)`, `("^", a, b)`, `("root", a, degree)` or
`("call", function, *arguments)`.
Not covered: sums, integrals, limits, derivatives, matrices, logic. Such text raises UnreadableError.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from megatron_rl.rewards.mathematics.numbers import plain_number

MAX_DEPTH = 40
TRIGONOMETRIC = ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth")
INVERSE = ("arcsin", "arccos", "arctan", "arccot", "arsinh", "arcosh", "artanh")
LOGARITHMIC = ("ln", "log", "lg", "exp")
FUNCTIONS = (*TRIGONOMETRIC, *INVERSE, *LOGARITHMIC, "cis")

Tree = tuple[Any, ...]

_SYNONYMS = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "arcsec": "?", "tg": "tan", "ctg": "cot"}
_CONSTANTS = {"e": "e", "i": "i", "pi": "pi", r"\pi": "pi", r"\infty": "infinity", r"\imath": "i", "infty": "infinity"}
_LETTERS = r"""
    \alpha \beta \gamma \delta \epsilon \varepsilon \zeta \eta \theta \vartheta \iota \kappa \lambda \mu \nu \xi \rho
    \sigma \tau \upsilon \phi \varphi \chi \psi \omega \Gamma \Delta \Theta \Lambda \Xi \Pi \Sigma \Upsilon \Phi \Psi
    \Omega \ell \hbar
"""
_GREEK = frozenset(_LETTERS.split())
_TIMES = (r"\cdot", r"\times", "*", r"\ast")
_CLOSING = {"(": ")", "[": "]", "{": "}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil", r"\lvert": r"\rvert"}
_ROUNDING = {r"\lfloor": "floor", r"\lceil": "ceiling", r"\lvert": "absolute"}
_TOKEN = re.compile(
    r" *(?:(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)|(?P<word>\\text ?\{ ?[A-Za-z]+ ?\}|[A-Za-z]+)"
    r"|(?P<mark>\\[A-Za-z]+|[-+*/^_!()\[\]{}|'%]))"
)
_WORDS = sorted((*FUNCTIONS, *_SYNONYMS, "sqrt", "pi", "infty"), key=len, reverse=True)
_WORD_PARTS = re.compile("|".join((*_WORDS, "[A-Za-z]")))


class UnreadableError(ValueError):
    """The text is no expression of this grammar."""


def read_expression(text: str, functions: frozenset[str] = frozenset()) -> Tree:
    r"""The tree of a text in plain form, where the letters of `functions` before a bracket are unknown functions.

    >>> read_expression("2\\sqrt{3}")
    ('*', ('number', Fraction(2, 1)), ('root', ('number', Fraction(3, 1)), ('number', Fraction(2, 1))))
    """
    reader = _Reader(_tokens(text), functions)
    tree = reader.sum()
    if reader.next:
        raise UnreadableError(f"'{reader.next}' is out of place")
    return tree


def symbols(tree: Tree) -> frozenset[str]:
    """The names of the symbols in a tree."""
    if tree[0] == "symbol":
        return frozenset((tree[1],))
    return frozenset().union(*(symbols(part) for part in tree[1:] if isinstance(part, tuple)))


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise UnreadableError(f"'{text[position]}' has no meaning here")
        position = match.end()
        if match["word"] is None:
            tokens.append(match["number"] or match["mark"])
            continue
        word = match["word"].removeprefix(r"\text").strip("{ }")
        parts = [_SYNONYMS.get(part, part) for part in _WORD_PARTS.findall(word)]
        if "?" in parts or (len(parts) > 3 and len(parts) == len(word)):
            raise UnreadableError(f"'{word}' is a word")
        tokens += parts
    return tokens


class _Reader:
    """Owns the position in the tokens."""

    def __init__(self, tokens: list[str], functions: frozenset[str]) -> None:
        self._functions = functions
        self._tokens = [*tokens, ""]
        self._position = 0
        self._depth = 0
        self._bars = 0  # how many |...| are open

    @property
    def next(self) -> str:
        return self._tokens[self._position]

    def take(self, *accepted: str) -> str:
        """The next token, which is then behind, if it is one of those; else an empty text."""
        if self.next and self.next in accepted:
            self._position += 1
            return self._tokens[self._position - 1]
        return ""

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise UnreadableError(f"'{token}' is missing")

    def sum(self) -> Tree:
        terms = []
        while True:
            negative = False
            while sign := self.take("+", "-"):
                negative ^= sign == "-"
            term = self.product()
            terms.append(("-", term) if negative else term)
            if self.next not in ("+", "-"):
                break
        return terms[0] if len(terms) == 1 else ("+", *terms)

    def product(self) -> Tree:
        factors, num_divisions = [self.power()], 0
        while True:
            if self.take(*_TIMES):
                negative = self.take("-")
                factor = self.power()
                factors.append(("-", factor) if negative else factor)
            elif sign := self.take("/", r"\div"):
                num_divisions += 1
                if num_divisions > MAX_DEPTH:
                    raise UnreadableError(f"more than {MAX_DEPTH} divisions")
                over = factors.pop()
                factors.append(("/" if sign == "/" else "divided", over, self.power()))
            elif self.starts_factor():
                factors.append(self.power())
            else:
                return factors[0] if len(factors) == 1 else ("*", *factors)

    def starts_factor(self) -> bool:
        token = self.next
        if not token or token in (")", "]", "}", "+", "-", r"\rfloor", r"\rceil", r"\rvert", "^", "_", "!", "'", "%"):
            return False
        if token[0].isdigit() or token[0] == ".":
            before, last = ("", *self._tokens)[self._position - 1 : self._position + 1]
            if self._tokens[self._position + 1] == "^" and (before in ("_", "^") or not last[:1].isdigit()):
                return True  # N_0 2^{-t}
            raise UnreadableError("a number follows without a sign between")
        return token != "|" or self._bars == 0

    def power(self) -> Tree:
        base, num_signs = self.atom(), 0
        while True:
            num_signs += 1
            if num_signs > MAX_DEPTH:
                raise UnreadableError(f"more than {MAX_DEPTH} signs behind one another")
            if self.take("!"):
                base = ("call", "double factorial" if self.take("!") else "factorial", base)
            elif self.take("%"):
                base = ("/", base, ("number", Fraction(100)))
            elif self.take("^"):
                if self.take(r"\circ"):
                    base = ("*", base, ("/", ("constant", "pi"), ("number", Fraction(180))))
                else:
                    exponent = self.exponent()
                    if base[0] == "symbol" and self.next == "_" and "_" not in base[1]:  # x^2_1
                        base = ("symbol", base[1] + self.subscript())
                    base = ("^", base, exponent)
            else:
                return base

    def exponent(self) -> Tree:
        exponent = self.argument()
        if not self.take("^"):
            return exponent
        self.deeper()
        exponent = ("^", exponent, self.exponent())
        self._depth -= 1
        return exponent

    def argument(self) -> Tree:
        """What a `^` or a command takes: a group, or one digit, letter or command."""
        token = self.next
        if len(token) > 1 and token.isdigit() and self._tokens[self._position - 1] != "^":
            self._tokens[self._position : self._position + 1] = [token[0], token[1:]]  # \frac12
        if self.take("-"):
            return ("-", self.atom())
        return self.atom()

    def atom(self) -> Tree:
        self.deeper()
        tree = self.atom_within()
        self._depth -= 1
        return tree

    def deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadableError(f"it nests deeper than {MAX_DEPTH}")

    def atom_within(self) -> Tree:
        token = self.next
        self._position += bool(token)
        if token and (token[0].isdigit() or token[0] == "."):
            return self.number(token)
        if token in _CLOSING:
            return self.group(token)
        if token == "|":
            self._bars += 1
            inside = self.sum()
            self.expect("|")
            self._bars -= 1
            return ("call", "absolute", inside)
        if token in _CONSTANTS:
            return ("constant", _CONSTANTS[token])
        if token == r"\frac":
            over = self.argument()
            return ("/", over, self.argument())
        if token == r"\binom":
            over = self.argument()
            return ("call", "binomial", over, self.argument())
        if token in ("sqrt", r"\sqrt"):
            degree: Tree = ("number", Fraction(2))
            if self.take("["):
                degree = self.sum()
                self.expect("]")
            return ("root", self.argument(), degree)
        name = _SYNONYMS.get(token.lstrip("\\"), token.lstrip("\\"))
        if name in FUNCTIONS:
            return self.call(name)
        if token in _GREEK or (len(token) == 1 and token.isalpha()):
            return self.symbol(token)
        raise UnreadableError(f"'{token}' has no meaning here" if token else "the text ends too soon")

    def number(self, token: str) -> Tree:
        value = plain_number(token)
        assert value is not None, "the token is a decimal"
        if value.denominator == 1 and self.next == r"\frac":
            for length in (7, 2):  # a mixed number, as 2\frac{1}{2} or 2\frac12
                tokens = self._tokens[self._position : self._position + length]
                fraction = plain_number("".join(tokens)) if all(tokens) else None
                if fraction is not None:
                    self._position += len(tokens)
                    return ("number", value + fraction)
        return ("number", value)

    def group(self, opening: str) -> Tree:
        bars, self._bars = self._bars, 0
        inside = self.sum()
        self.expect(_CLOSING[opening])
        self._bars = bars
        if opening == "{" and inside[0] == "symbol" and self.next == "_" and "_" not in inside[1]:  # {x}_1
            return ("symbol", inside[1] + self.subscript())
        return ("call", _ROUNDING[opening], inside) if opening in _ROUNDING else inside

    def symbol(self, token: str) -> Tree:
        name = token + self.subscript()
        while self.take("'"):
            name += "'"
        if (
            self.next == "("
            and self._tokens[self._position + 1][:1].isdigit()
            and self._tokens[self._position + 2] == ")"
        ):
            name += f"({self._tokens[self._position + 1]})"  # a value of a function: I(0) is not 0
            self._position += 3
        elif name in self._functions and self.next == "(":
            return ("call", f"unknown {name}", self.atom())
        return ("symbol", name)

    def subscript(self) -> str:
        """The subscript that stands next, with its `_`; an empty text where none does."""
        if not self.take("_"):
            return ""
        if not self.take("{"):
            self._position += bool(self.next)
            return "_" + self._tokens[self._position - 1]
        start = self._position
        while self.next not in ("}", ""):
            self._position += 1
        self.expect("}")
        return "_" + "".join(self._tokens[start : self._position - 1])

    def call(self, name: str) -> Tree:
        base = self.argument() if name == "log" and self.take("_") else None
        exponent = None
        if self.take("^"):
            if len(self.next) > 1 and self.next.isdigit() and name in TRIGONOMETRIC:  # \sin^22x
                self._tokens[self._position : self._position + 1] = [self.next[0], self.next[1:]]
            exponent = self.argument()
        if self.next in ("(", "[", "{"):
            argument = self.atom()
            if self.take("!"):
                argument = ("call", "double factorial" if self.take("!") else "factorial", argument)
        else:
            argument = self.bare_argument()
        result: Tree = ("call", name, argument) if base is None else ("call", "logarithm", argument, base)
        if name in ("exp", "cis"):
            result = ("^", ("constant", "e"), argument if name == "exp" else ("*", ("constant", "i"), argument))
        if exponent is None:
            return result
        if exponent == ("-", ("number", Fraction(1))) and name in TRIGONOMETRIC:
            return ("call", f"arc{name}" if not name.endswith("h") else f"ar{name}", argument)
        return ("^", result, exponent)

    def bare_argument(self) -> Tree:
        r"""The argument without brackets: `\sin 2x` takes both factors, `\sin x \cos x` and `\ln 2 (x+1)` one."""
        negative = self.take("-")
        factors = [self.power()]
        while self.starts_factor() and self.next not in ("(", "[") and self.next.lstrip("\\") not in FUNCTIONS:
            factors.append(self.power())
        argument: Tree = factors[0] if len(factors) == 1 else ("*", *factors)
        if self.take("/"):
            argument = ("/", argument, self.power())
        return ("-", argument) if negative else argument
