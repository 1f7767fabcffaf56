"""Where the answer of a response may stand: after the thinking."""

from __future__ import annotations

OPENING, CLOSING = "<think>", "</think>"


def as_read(response: str, *, opens_thought: bool) -> str:
    """The response with the `<think>` that its prompt ended in, if it did: the model has gone on from there.

    Without it a thought that is cut off would hold neither tag, and be read as the answer.

    >>> after_thinking(as_read("It is 9, or", opens_thought=True)), after_thinking(as_read("9", opens_thought=False))
    ('', '9')
    """
    return OPENING + response if opens_thought else response


def after_thinking(response: str) -> str:
    """The part of a response that a verifier may read.

    What stands before the last `</think>` is thinking, and so is what follows a `<think>` that was never closed.

    >>> after_thinking("<think>9?</think>So 5. <think>or 6")
    'So 5. '
    """
    return response.rpartition(CLOSING)[2].partition(OPENING)[0]
