"""Words and letters that must, may rarely or must not appear.

A keyword counts wherever its letters stand, also inside another word, as in IFEval; a forbidden word only on its own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from megatron_rl.rewards.instructions.counting import holds

MAX_MARKS = 30  # combining marks on one character, as in Unicode's stream-safe text; sorting more is quadratic

_WITHIN = re.compile(r"(?<=\w)\*{1,3}(?=\w)|(?<![\w*])\*{1,3}(?=\w+\*)|(?<=\w)\*{1,3}(?![\w*])")  # *t*ea
_INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200f\u2060-\u2064\ufeff]")


def existence(text: str, keywords: Sequence[str]) -> bool:
    """Whether every keyword appears."""
    plain = _plain(text)
    return all(_plain(keyword) in plain for keyword in keywords)


def frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    """Whether the keyword appears less than, or at least, `frequency` times."""
    return holds(_plain(text).count(_plain(keyword)), relation, frequency)


def forbidden_words(text: str, forbidden_words: Sequence[str]) -> bool:
    """Whether none of the words appears; markup, also within a word, and invisible characters hide none.

    >>> forbidden_words("An artist.", ["art"]), forbidden_words("_Art_ for all", ["art"])
    (True, False)
    """
    plain = _plain(text)
    plain = f"{plain}\n{_WITHIN.sub('', plain)}" if "*" in plain else plain
    words = "|".join(re.escape(_plain(word)) for word in forbidden_words)
    return re.search(rf"(?<![^\W_])(?:{words})(?![^\W_])", plain) is None


def letter_frequency(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    """Whether the letter, large or small, appears less than, or at least, `let_frequency` times."""
    return holds(text.lower().count(letter.lower()), let_relation, let_frequency)


def _plain(text: str) -> str:
    """Small letters, without invisible characters and typographic variants."""
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", _stream_safe(text))).replace("’", "'").strip().lower()


def _stream_safe(text: str) -> str:
    """The text without the combining marks that follow `MAX_MARKS` others."""
    marks = "".join(character for character in set(text) if not character.isascii() and _is_mark(character))
    if not marks:
        return text
    return re.sub(rf"([{re.escape(marks)}]{{{MAX_MARKS}}})[{re.escape(marks)}]+", r"\1", text)


def _is_mark(character: str) -> bool:
    """Whether a character becomes nothing but combining marks, as a half-width voiced sound mark does."""
    return all(unicodedata.combining(part) for part in unicodedata.normalize("NFKD", character))
