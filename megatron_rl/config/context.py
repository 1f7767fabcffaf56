"""What context parallelism makes of the lengths of sequences, before torch is imported."""

from __future__ import annotations


def sequence_multiple(degree: int) -> int:
    """What the tokens of each sequence are padded to a multiple of: each of `degree` ranks has two chunks of it.

    >>> [sequence_multiple(degree) for degree in (1, 2, 4)]
    [1, 4, 8]
    """
    return 2 * degree if degree > 1 else 1


def padded_length(length: int, degree: int) -> int:
    """Tokens of a sequence with its padding.

    >>> [padded_length(length, 2) for length in (1, 4, 5)], padded_length(5, 1)
    ([4, 4, 8], 5)
    """
    multiple = sequence_multiple(degree)
    return -(-length // multiple) * multiple
