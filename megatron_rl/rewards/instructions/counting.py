"""What the instructions mean by a relation, and by text that says something."""

from __future__ import annotations

from unicodedata import category

RELATIONS = ("less than", "at least")


def holds(count: int, relation: str, threshold: int) -> bool:
    """Whether `count` is less than, or at least, `threshold`.

    >>> holds(3, "at least", 3), holds(3, "less than", 3)
    (True, False)
    """
    return count < threshold if relation == "less than" else count >= threshold


def says_something(text: str) -> bool:
    """Whether `text` has a letter, a digit or a pictogram: without one a response follows no instruction.

    >>> says_something(" ...* "), says_something("- a")
    (False, True)
    """
    return any(character.isalnum() or category(character) == "So" for character in text)
