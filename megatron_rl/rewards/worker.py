"""One verifier process: reads batches of cases from its input, writes one verdict per case, dies with its parent.

Both ways a frame is four bytes of length, most significant first, and that many bytes of JSON.
The first frame out maps the domains that could not be loaded to the reason.
Run as `python -m megatron_rl.rewards.worker PARENT_PID` by workers.py, which is where time limits are kept.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any, BinaryIO

from megatron_rl.rewards.score import VERIFIERS

MAX_ADDRESS_BYTES = 4 << 30
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Judges cases until the input ends."""
    _die_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_BYTES, MAX_ADDRESS_BYTES))
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    failures = {}
    for domain, verifier in VERIFIERS.items():
        try:
            verifier.load()
        except ImportError as error:
            failures[domain] = str(error)
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # nothing a verifier prints may look like a verdict, or fill a disk
        os.dup2(silence, descriptor)
    _send(sink, failures)
    while (cases := _receive(source)) is not None:
        for domain, answer, item in cases:
            _send(sink, _judged(domain, answer, item))


def _judged(domain: str, answer: str, item: Any) -> list[Any]:
    try:
        verdict = VERIFIERS[domain].judge(answer, item)
    # Any failure of a verifier is reported as one, under its own name; it never becomes a score.
    except Exception as error:
        return [0.0, "crashed", f"{type(error).__name__}: {error}"[:300]]
    return [verdict.score, verdict.outcome, verdict.detail]


def _receive(source: BinaryIO) -> Any:
    head = source.read(4)
    return json.loads(source.read(int.from_bytes(head, "big"))) if len(head) == 4 else None


def _send(sink: BinaryIO, value: Any) -> None:
    body = json.dumps(value).encode()
    sink.write(len(body).to_bytes(4, "big") + body)
    sink.flush()


def _die_with_parent(parent: int) -> None:
    """Even from within a C call that never returns, where the end of the input would go unnoticed."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    main()
