"""Counter-based seeds: what is sampled depends on where in the run it is, never on what was drawn before."""

from __future__ import annotations

import hashlib

SAMPLES_PER_REQUEST = 1 << 16  # vLLM gives the samples of one request the seeds s, s + 1, ...


def request_seed(run_seed: int, step: int | str, serial: int | str) -> int:
    """The seed of a prompt's first sample; seeds of different prompts lie at least 65,536 apart.

    An evaluation has the names of benchmark and problem in place of the numbers of step and prompt.

    >>> request_seed(1, 0, 5) % SAMPLES_PER_REQUEST
    0
    >>> len({request_seed(1, step, serial) for step in range(30) for serial in range(30)})
    900
    """
    digest = hashlib.blake2b(f"{run_seed}/{step}/{serial}".encode(), digest_size=6).digest()
    return (int.from_bytes(digest, "little") >> 2) * SAMPLES_PER_REQUEST
