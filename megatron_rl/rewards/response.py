"""Where the answer of a response may stand: after the thinking."""

from __future__ import annotations


def after_thinking(response: str) -> str:
    """The part of a response that a verifier may read.

    What stands before the last `</think>` is thinking, and so is what follows a `<think>` that was never closed.

    >>> after_thinking("<think>9?</think>So 5. <think>or 6")
    'So 5. '
    """
    return response.rpartition("</think>")[2].partition("<think>")[0]
