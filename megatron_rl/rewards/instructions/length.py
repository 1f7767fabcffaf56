"""How many sentences, words and paragraphs."""

from __future__ import annotations

import re

from megatron_rl.rewards.instructions.counting import holds, says_something
from megatron_rl.rewards.instructions.sentences import num_sentences as count_sentences

_WORD = re.compile(r"(?<!\w)_*+[^\W_]\w*")
_END_OF_WORD = frozenset(".,?!'\"\u2019\u201d:;\u2026")


def number_sentences(text: str, num_sentences: int, relation: str) -> bool:
    """Whether there are less than, or at least, `num_sentences` sentences."""
    return holds(count_sentences(text), relation, num_sentences)


def number_words(text: str, num_words: int, relation: str) -> bool:
    r"""Whether there are less than, or at least, `num_words` runs of letters and digits: "well-known" has two."""
    return holds(len(_WORD.findall(text)), relation, num_words)


def number_paragraphs(text: str, num_paragraphs: int) -> bool:
    """Whether there are exactly `num_paragraphs` paragraphs with `***` between them.

    >>> number_paragraphs("one *** two", 2), number_paragraphs("one *** *** two", 2)
    (True, False)
    """
    first, *middle, last = paragraphs if len(paragraphs := text.split("***")) > 1 else [*paragraphs, ""]
    if not all(map(says_something, middle)):
        return False
    return len(middle) + says_something(first) + says_something(last) == num_paragraphs


def nth_paragraph_first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Whether an empty line parts `num_paragraphs` paragraphs, of which the n-th (from 1) begins with the word.

    >>> nth_paragraph_first_word("Well.\\n\\n\\"Now, what?", 2, 2, "now")
    True
    """
    paragraphs = [paragraph.strip() for paragraph in text.split("\n\n") if paragraph.strip()]
    if len(paragraphs) != num_paragraphs or not all(map(says_something, paragraphs)):
        return False
    begin, word = paragraphs[nth_paragraph - 1].lstrip("'\"\u2018\u201c").lower(), first_word.strip().lower()
    rest = begin.removeprefix(word)
    return begin.startswith(word) and (not rest or rest[0].isspace() or rest[0] in _END_OF_WORD)
