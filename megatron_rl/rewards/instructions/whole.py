"""What the response as a whole must be: two responses, the prompt again, an ending, a quotation, a case, no comma."""

from __future__ import annotations

import re

from megatron_rl.rewards.instructions.counting import holds, says_something
from megatron_rl.rewards.instructions.language import is_language

_COMMAS = re.compile("[,\u060c\u3001\ufe10\ufe11\ufe50\ufe51\uff0c\uff64]")
_WORD = re.compile(r"[^\W_]+(?:[-'\u2019./&_][^\W_]+)*")
_CLITIC = re.compile(r"['\u2019](?:s|t|re|ve|ll|d|m)$", re.IGNORECASE)


def two_responses(text: str) -> bool:
    """Whether two different responses stand on the two sides of `******`."""
    first, *middle, last = parts if len(parts := text.split("******")) > 1 else [*parts, ""]
    if not all(map(says_something, middle)):
        return False
    responses = [part.strip() for part in (first, *middle, last) if says_something(part)]
    return len(responses) == 2 and responses[0] != responses[1]


def repeat_prompt(text: str, prompt_to_repeat: str) -> bool:
    """Whether the text begins with the prompt, word for word, and goes on."""
    prompt, said = prompt_to_repeat.strip().lower(), text.strip().lower()
    return said.startswith(prompt) and says_something(said[len(prompt) :])


def end_checker(text: str, end_phrase: str) -> bool:
    """Whether the text ends with the phrase; quotation marks may follow it."""
    said, phrase = text.strip().lower(), end_phrase.strip().lower()
    return said.endswith(phrase) or said.strip('"').endswith(phrase)


def quotation(text: str) -> bool:
    """Whether the whole text stands in double quotation marks."""
    said = text.strip()
    return len(said) > 1 and said[0] == said[-1] == '"'


def capital_word_frequency(text: str, capital_frequency: int, capital_relation: str) -> bool:
    """Whether less than, or at least, `capital_frequency` words are in capital letters alone; "WELL-KNOWN" is one."""
    count = sum(_CLITIC.sub("", word).isupper() for word in _WORD.findall(text))
    return holds(count, capital_relation, capital_frequency)


def english_capital(text: str) -> bool:
    """Whether the text is English in capital letters."""
    return text.isupper() and is_language(text, "en")


def english_lowercase(text: str) -> bool:
    """Whether the text is English in small letters."""
    return text.islower() and is_language(text, "en")


def no_comma(text: str) -> bool:
    """Whether the text has no comma of any script."""
    return _COMMAS.search(text) is None
