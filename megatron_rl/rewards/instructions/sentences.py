"""Where an English sentence ends.

Not covered: a heading or list entry without a full stop, which belongs to the sentence after it, as in IFEval.
"""

from __future__ import annotations

import re

from megatron_rl.rewards.instructions.counting import says_something

# A full stop after one of these ends no sentence,
_TITLES = """
    mr mrs ms mx dr prof st mt gen col sgt capt lt rev hon pres gov sen rep vs viz cf approx e.g i.e eg ie
"""
# after one of these only where no figure follows,
_NUMBERED = """
    no nos fig figs vol vols p pp ch sec eq eqs ca jan feb mar apr jun jul aug sep sept oct nov dec art
"""
# and after one of these only before a capital letter.
_UNITS_AND_DEGREES = """
    etc al inc ltd co corp bros jr sr a.m p.m am pm b.c a.d ph.d m.d b.a m.a b.sc m.sc d.c dept est ave blvd rd ft in
    oz lb lbs hr hrs min
"""
# After an initial or an acronym a capital letter proves nothing, but these begin a sentence.
_OPENINGS = """
    the a an i he she it we you they this that these those there here my our your his her its their in on at for from
    with by as if when while after before since because although however but and so then what who why how where which
    is are was do does did can let please not no yes
"""
_NEVER_LAST, _BEFORE_FIGURES, _RARELY_LAST, _FIRST_WORDS = (
    frozenset(words.split()) for words in (_TITLES, _NUMBERED, _UNITS_AND_DEGREES, _OPENINGS)
)
_STOP = re.compile(  # from the first mark of several, so that a million of them are read once
    r"(?<![.!?\u2026])[.!?\u2026]++[\"'\u201d\u2019)\]*_\u00bb]*+(?=\s|$)|[\u3002\uff01\uff1f\u0964\u06d4\u061f]+"
)
_LAST_WORD = re.compile(r"[^\s\"'\u201c\u2018(\[*_]+$")
_NEXT_WORD = re.compile(r"[\s\"'\u201c\u2018(\[*_#-]*([^\W_]+)")
_MAX_WORD_CHARACTERS = 30


def num_sentences(text: str) -> int:
    """The number of sentences of `text`.

    >>> num_sentences("Dr. J. Smith paid $3.50, i.e. nothing... or so. Really? It was 5 p.m. He left")
    4
    """
    count = start = 0
    for stop in _STOP.finditer(text):
        if _ends_sentence(text, stop):
            count, start = count + says_something(text[start : stop.start()]), stop.end()
    return count + says_something(text[start:])


def _ends_sentence(text: str, stop: re.Match[str]) -> bool:
    before = text[max(0, stop.start() - _MAX_WORD_CHARACTERS) : stop.start()]
    following = _NEXT_WORD.match(text, stop.end(), stop.end() + _MAX_WORD_CHARACTERS)
    next_word = following[1] if following else ""
    if stop[0].rstrip("*_") != stop[0].rstrip("*_\"'\u201d\u2019") and next_word[:1].islower():
        return False  # "Really?" he said.
    if stop[0].startswith(("..", "\u2026")):
        return not next_word[:1].islower()
    if not stop[0].startswith("."):
        return True
    last = _LAST_WORD.search(before)
    word = last[0] if last else ""
    if word.isdigit() and (before[: -len(word)].rstrip(" *_#>-") or "\n").endswith("\n"):
        return False  # the number of a list entry
    if word.lower() in _NEVER_LAST or word.lower() in _BEFORE_FIGURES and next_word[:1].isdigit():
        return False
    if word.lower() in _RARELY_LAST:
        return not next_word[:1].islower() and not next_word[:1].isdigit()
    is_initial = len(word) == 1 and word.isupper() or re.fullmatch(r"(?:[A-Za-z]\.)+[A-Za-z]", word) is not None
    return not is_initial or not next_word or next_word[:1].isupper() and next_word.lower() in _FIRST_WORDS
