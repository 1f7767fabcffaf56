"""Whether a text is in a language, by the letter frequencies that come with langdetect.

langdetect draws n-grams at random until it believes in one language, which goes wrong on a few words and, unseeded,
differs from call to call. Here every n-gram counts once, so a text has one verdict, whatever was asked before.

Not covered: languages that share their words (Norwegian and Danish), and foreign words in between.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

# What langdetect knows, and "zh" for either way to write Chinese; written out so that a data file is checked
# without loading it.
_CODES = """
    af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr ne nl no pa pl pt ro ru
    sk sl so sq sv sw ta te th tl tr uk ur vi zh zh-cn zh-tw
"""
LANGUAGES = frozenset(_CODES.split())
PIECE_CHARACTERS = 200
NUM_PIECES = 3
# By how much (nats) another language may be the likelier one. A few words prove little, so a short text is given the
# benefit of the doubt; a piece of 200 characters in another language is off by hundreds.
MAX_DEFICIT = 10.0
MAX_PIECE_DEFICIT = 60.0

_ADDRESS = re.compile(r"https?://\S+|\S+@\S+")
_FIRST_NON_LATIN = "\u0250"
_LATIN = re.compile("[A-Za-z]+")


class _Profiles(NamedTuple):
    names: tuple[str, ...]  # L languages
    row: Mapping[str, int]  # of each n-gram
    log_frequencies: np.ndarray  # [n-grams, L] nats


def response_language(text: str, language: str) -> bool:
    """Whether the response is in the language, an ISO 639-1 code; the beginning, middle and end of a long one each."""
    return _is_language(text, language, MAX_PIECE_DEFICIT)


def is_language(text: str, language: str) -> bool:
    """Whether no other language is clearly likelier for the text, names and quotations included.

    >>> is_language("The cat sat on the mat.", "en"), is_language("El gato duerme en la casa.", "en")
    (True, False)
    """
    return _is_language(text, language, float("inf"))


def _is_language(text: str, language: str, max_piece_deficit: float) -> bool:
    pieces = [_likelihoods(piece.lower() if text.isupper() else piece) for piece in _pieces(text)]
    total = sum(pieces[1:], start=pieces[0])
    if not total.any():
        return False
    own = [index for index, name in enumerate(_profiles().names) if name.split("-")[0] == language or name == language]
    deficits = [float(scores.max() - scores[own].max()) for scores in pieces]
    return float(total.max() - total[own].max()) <= MAX_DEFICIT and max(deficits) <= max_piece_deficit


def _pieces(text: str) -> list[str]:
    """The text in one piece, or the beginning, the middle and the end of a long one."""
    if len(text) <= NUM_PIECES * PIECE_CHARACTERS:
        return [text]
    step = (len(text) - PIECE_CHARACTERS) // (NUM_PIECES - 1)
    return [text[start * step : start * step + PIECE_CHARACTERS] for start in range(NUM_PIECES)]


def _likelihoods(text: str) -> np.ndarray:
    """The logarithm of the likelihood of the text in each language, [L] nats; zeros where it has no words."""
    profiles = _profiles()
    words = [word for word in _words(text) if len(word) == 1 or not word.isupper()]  # acronyms are of no language
    grams = [
        f" {word} "[start : start + size]
        for word in words
        for size in (1, 2, 3)
        for start in range(size == 1, len(word) + 3 - size - (size == 1))
    ]
    rows = [profiles.row[gram] for gram in grams if gram in profiles.row]
    likelihoods: np.ndarray = profiles.log_frequencies[rows].sum(axis=0)
    return likelihoods


def _words(text: str) -> list[str]:
    """The words in langdetect's alphabet, without addresses, and without Latin words in a text of another script."""
    from langdetect.utils.ngram import NGram

    text = _ADDRESS.sub(" ", text)
    letters = [character for character in text if character.isalpha()]
    num_latin = sum(character < _FIRST_NON_LATIN for character in letters)
    if 2 * num_latin < len(letters) - num_latin:
        text = _LATIN.sub(" ", text)
    return "".join(map(_folded, NGram.normalize_vi(text))).split()


@cache
def _folded(character: str) -> str:
    from langdetect.utils.ngram import NGram

    folded: str = NGram.normalize(character)
    return folded


@cache
def _profiles() -> _Profiles:
    import numpy as np
    from langdetect.detector import Detector
    from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory

    factory = DetectorFactory()
    factory.load_profile(PROFILES_DIRECTORY)
    frequencies = np.array(list(factory.word_lang_prob_map.values()), dtype=np.float32)
    unseen = Detector.ALPHA_DEFAULT / Detector.BASE_FREQ
    row = {gram: index for index, gram in enumerate(factory.word_lang_prob_map)}
    return _Profiles(tuple(factory.langlist), row, np.log(frequencies + unseen))
