"""One verifier process: confines itself, then reads cases from its input and writes verdicts, one for each answer.

Both ways a frame is four bytes of length, most significant first, and that many bytes of JSON. The first frame out says
which domains could not be loaded, and which layers the process itself and the sandbox of programs lack, with reasons.
Run as `python -m megatron_rl.rewards.worker PARENT_PID SECONDS safe|unsafe [published]` by workers.py, which is where
time limits are kept, save the one of programs, which code.py keeps. `published`: the scorers of others are there, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from megatron_rl.rewards import code, own, published
from megatron_rl.rewards.sandbox import layers
from megatron_rl.rewards.sandbox.run import Sandbox, SandboxError, source_root
from megatron_rl.rewards.sandbox.slots import spare_users
from megatron_rl.rewards.score import AS_PUBLISHED, VERIFIERS
from megatron_rl.rewards.workers import OWN, PATIENCE
from megatron_rl.runtime.orphans import die_with_parent
from megatron_rl.types import Verdict

MAX_ADDRESS_BYTES = 4 << 30
LAST_RESORT_SECONDS = 60  # beyond all patience; then the kernel ends the process, should its parent be gone unnoticed
Judge = Callable[[str, Mapping[str, Any]], Verdict]
JudgeFirst = Callable[[Sequence[str], Mapping[str, Any]], list[Verdict]]  # of several, as many as go together


def main() -> None:
    """Judges cases until the input ends."""
    parent, max_seconds = int(sys.argv[1]), float(sys.argv[2])
    die_with_parent(parent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # sent to a whole job; the parent decides
        signal.signal(number, signal.SIG_IGN)
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    failures: dict[str, str] = {}
    # Before anything else: what programs are forked from should have seen nothing.
    sandbox = _sandbox("code", failures)
    has_published = sys.argv[4:] == ["published"]
    of_others = _sandbox(AS_PUBLISHED["logic"], failures, [published.PACKAGE]) if has_published else None
    for domain, verifier in VERIFIERS.items():
        try:
            verifier.load()
        except ImportError as error:
            failures[domain] = f"{error}; install it"
    missing = _confine(parent)
    levels = {"verifiers": missing} | ({"code": dict(sandbox.level.missing)} if sandbox else {})
    _send(sink, [failures, levels])
    judges: dict[str, Judge] = {domain: verifier.judge for domain, verifier in VERIFIERS.items()}
    judges[OWN] = own.judge
    judges["code"] = partial(code.judge, sandbox=sandbox, max_seconds=max_seconds)
    together: dict[str, JudgeFirst] = {}
    if of_others is not None:
        judges[AS_PUBLISHED["logic"]] = partial(published.judge, sandbox=of_others, max_seconds=max_seconds)
        together[AS_PUBLISHED["logic"]] = partial(published.judge_first, sandbox=of_others, max_seconds=max_seconds)
    while (case := _receive(source)) is not None:
        domain, answers, item = case
        signal.alarm(int(PATIENCE * max_seconds) + LAST_RESORT_SECONDS)
        began = time.perf_counter()
        for found in _verdicts(judges, together, domain, answers, item):
            seconds = (time.perf_counter() - began) / len(found)
            _send(sink, *([one.score, one.outcome, one.detail, seconds] for one in found))
            signal.alarm(int(PATIENCE * max_seconds) + LAST_RESORT_SECONDS)
            began = time.perf_counter()
        signal.alarm(0)


def _sandbox(name: str, failures: dict[str, str], preloads: Sequence[str] = ()) -> Sandbox | None:
    """A sandbox for the judge of that name; None, with the reason among the failures, where there is none."""
    try:
        return Sandbox(allows_unsafe=sys.argv[3] == "unsafe", preloads=preloads)
    except SandboxError as error:
        failures[name] = str(error)
        return None


def _confine(parent: int) -> dict[str, str]:
    """Leaves the process reading packages and computing; the layers that it lacks, with the reason."""
    claims: list[socket.socket] = []
    readable = [*layers.python_folders(without=[source_root()]), str(Path(source_root()) / "megatron_rl")]
    limits = {resource.RLIMIT_AS: MAX_ADDRESS_BYTES}
    missing = layers.confine(users=spare_users(claims), readable=readable, limits=limits)
    for claim in claims:
        claim.detach()  # the name stays claimed until the process ends
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # nothing a verifier prints may look like a verdict, or fill a disk
        os.dup2(silence, descriptor)
    die_with_parent(parent)  # the change of user has undone it
    if "seccomp" not in missing:
        layers.seal()
    return missing | {"bubblewrap": "only for programs"}


def _verdicts(
    judges: Mapping[str, Judge], together: Mapping[str, JudgeFirst], domain: str, answers: list[str], item: Any
) -> Iterator[list[Verdict]]:
    """The verdicts on several answers, in order; one that spoils it for those after it is judged alone."""
    while answers:
        found: list[Verdict] = []
        if len(answers) > 1:
            with contextlib.suppress(SandboxError):  # the first then fails alone, or not
                found = together[domain](answers, item)
        if found:
            yield found
        answers = answers[len(found) :]
        if answers:
            yield [_judged(judges, domain, answers.pop(0), item)]


def _judged(judges: Mapping[str, Judge], domain: str, answer: str, item: Mapping[str, Any]) -> Verdict:
    try:
        return judges[domain](answer, item)
    except SandboxError as error:
        return Verdict(score=0.0, outcome="sandbox_failed", detail=str(error)[:300])
    # Any failure of a verifier is reported as one, under its own name; it never becomes a score.
    except Exception as error:
        return Verdict(score=0.0, outcome="crashed", detail=f"{type(error).__name__}: {error}"[:300])


def _receive(source: BinaryIO) -> Any:
    head = source.read(4)
    return json.loads(source.read(int.from_bytes(head, "big"))) if len(head) == 4 else None


def _send(sink: BinaryIO, *values: Any) -> None:
    for body in (json.dumps(value).encode() for value in values):
        sink.write(len(body).to_bytes(4, "big") + body)
    sink.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        main()
