"""Marks that a response must carry: placeholders, bullets, highlights, sections, a title, a postscript, JSON.

A mark does not count with nothing in or behind it, or signs alone.
"""

from __future__ import annotations

import json
import re

from megatron_rl.rewards.instructions.counting import says_something

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")

_PLACEHOLDER = re.compile(r"\[([^\[\]\n]*)\]")
_BULLET = re.compile(r"\s*(?:-|\*(?!\*))")
_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL | re.IGNORECASE)
_POSTSCRIPTS = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}


def number_placeholders(text: str, num_placeholders: int) -> bool:
    """Whether there are at least `num_placeholders` texts in square brackets, such as [address]."""
    return sum(map(says_something, _PLACEHOLDER.findall(text))) >= num_placeholders


def postscript(text: str, postscript_marker: str) -> bool:
    """Whether the marker appears, large or small, and text behind it."""
    marker = postscript_marker.strip()
    found = re.search(_POSTSCRIPTS.get(marker, re.escape(marker.lower())), text.lower())
    return found is not None and says_something(text[found.end() :])


def number_bullet_lists(text: str, num_bullets: int) -> bool:
    """Whether exactly `num_bullets` lines begin with `*` or `-` and go on.

    >>> number_bullet_lists("* one\\n  - two\\n---\\n**three**", 2)
    True
    """
    return sum(_is_bullet(line) for line in text.split("\n")) == num_bullets


def constrained_response(text: str) -> bool:
    """Whether the text holds one of the three allowed answers, and not several."""
    return sum(option in text for option in OPTIONS) == 1


def number_highlighted_sections(text: str, num_highlights: int) -> bool:
    """Whether at least `num_highlights` pieces within a line stand in asterisks, `*so*` or `**so**`.

    >>> number_highlighted_sections("* one *bullet*\\n* **Two** more", 2)
    True
    """
    return sum(_num_highlights(line) for line in text.split("\n") if "*" in line) >= num_highlights


def multiple_sections(text: str, section_spliter: str, num_sections: int) -> bool:
    """Whether at least `num_sections` sections begin with the word and a number, such as `SECTION 1`."""
    parts = re.split(rf"(?<!\w){re.escape(section_spliter.strip())}\s?\d+", text)
    return sum(says_something(part) for part in parts[1:]) >= num_sections


def json_format(text: str) -> bool:
    """Whether the text is JSON, bare or in a Markdown code fence."""
    fenced = _FENCE.fullmatch(text.strip())
    try:
        json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str) -> bool:
    """Whether a line holds a title in double angular brackets, such as <<poem of joy>>."""
    for line in text.split("\n"):
        _, opening, rest = line.partition("<<")
        content, closing, _ = rest.rpartition(">>")
        if opening and closing and says_something(content):
            return True
    return False


def _is_bullet(line: str) -> bool:
    mark = _BULLET.match(line)
    return mark is not None and says_something(line[mark.end() :])


def _num_highlights(line: str) -> int:
    """The number of pieces between runs of the same one to three asterisks, the marker of a list entry apart."""
    count, opening = 0, ""
    entry = line.lstrip()
    parts = re.split(r"(\*+)", entry.removeprefix("* ") if entry.startswith("* ") else entry)
    for content, mark in zip(parts[0::2], [*parts[1::2], ""], strict=True):
        if opening and mark == opening and says_something(content):
            count, opening = count + 1, ""
        else:
            opening = mark if len(mark) <= 3 else ""
    return count
