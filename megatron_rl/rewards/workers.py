"""The processes that verifiers run in: started ahead, given one case at a time, killed and replaced when one hangs.

A process has one case at a time, so that nothing waits behind a slow one while another process is idle. Only answers
that are judged together are handed over together; where one costs the process its life, the others are another's.

A case may take `timeout_seconds` of a process's own computing. An answer that uses them up is wrong, as a program that
is too slow is: the next would be as hopeless, and one that is not judged would cost the policy nothing. A process that
the machine keeps from computing gets `PATIENCE` times as long by the clock; then there is no verdict.
Covered: a verifier that never returns, ends its process, prints, takes 4 GiB, or is made to execute code (what a worker
gives up before its first case is in worker.py); a parent that is killed.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from megatron_rl.rewards import published
from megatron_rl.rewards.sandbox.layers import Level
from megatron_rl.rewards.sandbox.run import ANSWER_SECONDS, source_root
from megatron_rl.rewards.verdicts import wrong
from megatron_rl.types import Outcome, Verdict

LOAD_SECONDS = 300.0  # imports from a cold shared file system
MAX_FAILED_STARTS = 3  # in a row
OWN = "own"  # the domain that all rewards of one's own have here
PATIENCE = 6.0  # chosen: by the clock, times the time limit; beyond it the machine is not merely busy
COMPUTED_SHARE = 0.9  # of the time limit, spent computing: the clock and the kernel's accounts are not read at once
_TICKS = os.sysconf("SC_CLK_TCK")
_ACCOUNT_BYTES = 4096  # /proc/PID/stat has a few hundred
PUBLISHED = "logic_as_published"  # the judge that answers to one item may share
IN_SANDBOX = ("code", PUBLISHED)  # judges that run programs, which have time limits of their own
_ENVIRONMENT_KEPT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "LANG", "SYSTEMROOT")

Case = tuple[str, str, Mapping[str, Any]]  # domain, answer, item
Ticket = tuple[int, int]  # a call of judge, and the index of a case in it


class Workers:
    """Owns `num_processes` verifier processes; loading goes on in the background after construction.

    It belongs to the thread that makes it, which calls everything but `stop` and outlives it: the kernel kills a
    worker when the *thread* that started it ends.
    """

    def __init__(
        self, num_processes: int, timeout_seconds: float, *, allows_unsafe_sandbox: bool, has_published: bool = False
    ) -> None:
        self.timeout_seconds = timeout_seconds
        self.allows_unsafe_sandbox, self.has_published = allows_unsafe_sandbox, has_published
        self._is_stopped = False
        self._num_calls = 0
        self._selector = selectors.DefaultSelector()  # of what the processes say
        self._workers = [self._start() for _ in range(num_processes)]

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The processes alive, loading or ready."""
        return tuple(worker.process.pid for worker in self._workers)

    @property
    def levels(self) -> Mapping[str, Level]:
        """How the processes (`verifiers`) and the programs they run (`code`) are confined; empty until one is ready."""
        return next((worker.levels for worker in self._workers if worker.is_ready), {})

    def judge(self, cases: Sequence[Case]) -> list[Verdict]:
        """One verdict per (domain, answer, item), in order; equal answers to one item are judged once.

        Raises RuntimeError when the processes cannot be started, lack a package, or were stopped.
        """
        self._num_calls += 1
        # The samples of a prompt share its item, so that its identity will do; its text may be megabytes.
        firsts: dict[tuple[str, str, int], int] = {}
        first = [firsts.setdefault((case[0], case[1], id(case[2])), index) for index, case in enumerate(cases)]
        waiting, unknown = deque(_together(cases, firsts.values())), set(firsts.values())
        verdicts: dict[int, Verdict] = {}
        failed_starts = 0
        while unknown:
            for slot, worker in enumerate(self._workers):
                if worker.is_ready and not worker.in_hand and waiting:
                    if worker.give(self._num_calls, waiting[0], cases):
                        waiting.popleft()
                    else:  # it died idle: nobody's fault
                        self._replace(slot)
            self._wait()
            if self._is_stopped:
                raise RuntimeError("the verifier processes were stopped")
            for slot, worker in enumerate(self._workers):
                for (call, index), verdict in worker.read():
                    if call == self._num_calls:  # and not one that was interrupted
                        verdicts[index] = verdict
                        unknown.discard(index)
                if not worker.is_of_use and not worker.is_ready:
                    failed_starts += 1
                    if failed_starts >= MAX_FAILED_STARTS:
                        raise RuntimeError(f"the verifier processes do not start: {worker.last_words()}")
                if not worker.is_of_use:
                    if rest := [index for call, index in worker.in_hand if call == self._num_calls]:
                        waiting.appendleft(rest)
                    self._replace(slot)
        return [verdicts[index] for index in first]

    def stop(self) -> None:
        """Kills the processes, which ends a call of `judge` that is under way; may be called from any thread."""
        self._is_stopped = True
        for worker in self._workers:
            worker.process.kill()

    def close(self) -> None:
        """Kills the processes and waits for their end."""
        for worker in self._workers:
            worker.kill()
        self._workers = []
        self._selector.close()

    def _start(self) -> _Worker:
        worker = _Worker(self.timeout_seconds, self.allows_unsafe_sandbox, self.has_published)
        self._selector.register(worker.output, selectors.EVENT_READ)
        return worker

    def _replace(self, slot: int) -> None:
        self._selector.unregister(self._workers[slot].output)
        self._workers[slot].kill()
        self._workers[slot] = self._start()

    def _wait(self) -> None:
        """Until a worker has something to say, or has been silent for too long."""
        soonest = min(worker.deadline for worker in self._workers)
        self._selector.select(max(0.0, soonest - time.monotonic()))


def _together(cases: Sequence[Case], places: Iterable[int]) -> Iterator[list[int]]:
    """The places of cases by what is handed over at once: mostly each by itself."""
    shared: dict[int, list[int]] = {}  # by the item
    for place in places:
        domain, _, item = cases[place]
        if domain != PUBLISHED or published.sharing(item) == 1:
            yield [place]
        else:
            shared.setdefault(id(item), []).append(place)
    for group in shared.values():
        size = published.sharing(cases[group[0]][2])
        yield from (group[first : first + size] for first in range(0, len(group), size))


class _Worker:
    """One process, and the answers it was given and has not judged."""

    def __init__(self, timeout_seconds: float, allows_unsafe_sandbox: bool, has_published: bool) -> None:
        environment = {name: os.environ[name] for name in _ENVIRONMENT_KEPT if name in os.environ}
        inherited = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([source_root(), inherited] if inherited else [source_root()])
        environment["PYTHONHASHSEED"] = "0"  # some reasoning-gym scorers depend on it
        environment.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
        program = [sys.executable, "-P", "-m", "megatron_rl.rewards.worker"]
        words = [str(os.getpid()), str(timeout_seconds), "unsafe" if allows_unsafe_sandbox else "safe"]
        # A program of its own: forking this process would copy its threads' locks, and multiprocessing's spawn
        # would import the main script, with torch and vLLM, again.
        self.process = subprocess.Popen(
            [*program, *words, *(["published"] if has_published else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,
            bufsize=0,
        )
        assert self.process.stdout is not None, "the process was given a pipe"
        self.output: IO[bytes] = self.process.stdout
        os.set_blocking(self.output.fileno(), False)
        self._account = _opened(Path(f"/proc/{self.process.pid}/stat"))
        self.timeout_seconds = timeout_seconds
        self.is_ready, self.is_of_use = False, True
        self.levels: Mapping[str, Level] = {}
        self.in_hand: deque[Ticket] = deque()
        self.deadline = time.monotonic() + LOAD_SECONDS
        self._domain = ""  # of the case in hand
        self._given, self._computed = 0.0, 0.0  # when the first of it was begun, and what the process had computed
        self._received = b""
        self._missing: Mapping[str, str] = {}

    def give(self, call: int, places: Sequence[int], cases: Sequence[Case]) -> bool:
        """Whether cases of one item could be handed over; the process is idle, so it reads them at once.

        Raises RuntimeError where the process cannot judge the domain.
        """
        domain, _, item = cases[places[0]]
        if domain in self._missing:
            raise RuntimeError(f"the {domain} verifier cannot be loaded: {self._missing[domain]}")
        body = json.dumps([domain, [cases[place][1] for place in places], item]).encode()
        message = memoryview(len(body).to_bytes(4, "big") + body)
        assert self.process.stdin is not None, "the process was given a pipe"
        try:
            while message:
                message = message[self.process.stdin.write(message) or 0 :]
        except BrokenPipeError:
            return False
        self.in_hand, self._domain = deque((call, place) for place in places), domain
        self._begin()
        return True

    def _begin(self) -> None:
        """Sets the time limit of the first in hand."""
        self._given = time.monotonic()
        if self._domain in IN_SANDBOX:
            # Programs are stopped at the limit by their supervisor, which may need a while on a busy machine; an
            # answer that is judged with others may be judged again alone.
            seconds = (self.timeout_seconds + 2 * ANSWER_SECONDS) * min(2, len(self.in_hand))
        else:
            seconds, self._computed = self.timeout_seconds, self._seconds_computed()
        self.deadline = self._given + seconds

    def read(self) -> list[tuple[Ticket, Verdict]]:
        """The tickets in hand that have verdicts; where the process failed, the first has one of its own making."""
        found, has_ended = self._frames()
        verdicts: list[tuple[Ticket, Verdict]] = []
        for frame in found:
            if not self.is_ready:
                self.is_ready, self._missing = True, frame[0]
                self.levels = {name: Level(missing=missing) for name, missing in frame[1].items()}
            else:
                score, outcome, detail, seconds = frame
                verdicts += self._done(Verdict(score=score, outcome=outcome, detail=detail, seconds=seconds))
                if outcome == "sandbox_failed":  # a confined process cannot start another; its successor will
                    self.is_of_use = False
                    return verdicts
            if self.in_hand:
                self._begin()
            else:
                self.deadline = float("inf")
        if has_ended:
            verdicts += self._done(self._failed("crashed", f"the process ended with status {self.process.wait()}"))
        elif time.monotonic() >= self.deadline and (overdue := self._overdue()) is not None:
            verdicts += self._done(overdue)
        else:
            return verdicts
        self.is_of_use = False
        return verdicts

    def last_words(self) -> str:
        """The end of what it wrote to its standard error while loading."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"no message, status {self.process.poll()}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.output, self._errors, self._account):
            if stream is not None:
                stream.close()

    def _done(self, verdict: Verdict) -> list[tuple[Ticket, Verdict]]:
        return [(self.in_hand.popleft(), verdict)] if self.in_hand else []

    def _overdue(self) -> Verdict | None:
        """What the time limit makes of the case in hand; None where it may go on, as the machine was busy."""
        limit, now = self.timeout_seconds, time.monotonic()
        # Or it is still loading; or the reward is one's own, and its fault, not the answer's.
        if not self.in_hand or self._domain in (*IN_SANDBOX, OWN):
            return self._failed("timeout", f"no verdict within {limit:g} s")
        spent = self._seconds_computed() - self._computed
        if spent >= COMPUTED_SHARE * limit:
            return replace(wrong(f"no verdict within {limit:g} s of computing"), seconds=now - self._given)
        if (left := self._given + PATIENCE * limit - now) > 0:
            self.deadline = now + min(left, max(limit - spent, 0.1 * limit))
            return None
        return self._failed("timeout", f"no verdict within {PATIENCE * limit:g} s, of which it computed {spent:.1f} s")

    def _failed(self, outcome: Outcome, detail: str) -> Verdict:
        is_sandbox = self._domain in IN_SANDBOX
        return Verdict(
            score=0.0,
            outcome="sandbox_failed" if is_sandbox else outcome,
            detail=f"verifier: {detail}",
            seconds=time.monotonic() - self._given if outcome == "timeout" else 0.0,
        )

    def _frames(self) -> tuple[list[Any], bool]:
        """The frames that have arrived, and whether the process has ended."""
        has_ended = False
        while not has_ended and (chunk := self.output.read(1 << 16)) is not None:
            self._received += chunk
            has_ended = not chunk
        frames = []
        while len(self._received) >= 4 and len(self._received) >= (end := 4 + self._frame_length()):
            frames.append(json.loads(self._received[4:end]))
            self._received = self._received[end:]
        return frames, has_ended

    def _frame_length(self) -> int:
        return int.from_bytes(self._received[:4], "big")

    def _seconds_computed(self) -> float:
        """CPU seconds so far; 0 where the system does not say, so that nothing is held against an answer."""
        if self._account is None:
            return 0.0
        try:
            fields = os.pread(self._account.fileno(), _ACCOUNT_BYTES, 0).rpartition(b")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / _TICKS


def _opened(path: Path) -> IO[bytes] | None:
    """A file of the system's accounts, which kill() closes, for it is read at every case; None where there is none."""
    try:
        return path.open("rb", buffering=0)
    except OSError:
        return None
