"""The processes that verifiers run in: started ahead, given cases in batches, killed and replaced when one hangs.

Covered: a verifier that never returns, ends its process, prints, or takes 4 GiB; a parent that is killed.
Not covered: a verifier that is made to execute code, which no verifier here does; see the refusals in logic.py.
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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from megatron_rl.types import Outcome, Verdict

LOAD_SECONDS = 300.0  # imports from a cold shared file system
MAX_FAILED_STARTS = 3  # in a row
MAX_CASES_PER_BATCH = 32
_ENVIRONMENT_KEPT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "LANG", "SYSTEMROOT")


class Workers:
    """Owns `num_processes` verifier processes; loading goes on in the background after construction."""

    def __init__(self, num_processes: int, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        # A worker asks the kernel to be killed when the *thread* that started it ends: that thread is this one,
        # whichever threads judge() is called from.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="verifier-starter")
        self._workers = [self._start() for _ in range(num_processes)]

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The processes alive, loading or ready."""
        return tuple(worker.process.pid for worker in self._workers)

    def judge(self, cases: Sequence[tuple[str, str, Mapping[str, Any]]]) -> list[Verdict]:
        """One verdict per (domain, answer, item), in order; equal cases are judged once.

        Raises RuntimeError when the processes can not be started or lack a package.
        """
        for slot, worker in enumerate(self._workers):
            if worker.in_hand:  # left by a call that was interrupted: its verdicts would be taken for this call's
                self._replace(slot)
        texts = [json.dumps(case) for case in cases]
        waiting = deque(dict.fromkeys(texts))
        verdicts: dict[str, Verdict] = {}
        num_cases, failed_starts = len(waiting), 0
        batch_size = max(1, min(MAX_CASES_PER_BATCH, -(-num_cases // (2 * len(self._workers)))))
        while len(verdicts) < num_cases:
            for slot, worker in enumerate(self._workers):
                if worker.is_ready and not worker.in_hand and waiting:
                    batch = [waiting.popleft() for _ in range(min(batch_size, len(waiting)))]
                    if not worker.give(batch, self.timeout_seconds):  # it died idle: nobody's fault
                        waiting.extendleft(reversed(batch))
                        self._replace(slot)
            self._wait()
            for slot, worker in enumerate(self._workers):
                verdicts.update(worker.read(self.timeout_seconds))
                outcome = worker.failure()
                if outcome is None:
                    continue
                if not worker.is_ready:
                    failed_starts += 1
                    if failed_starts >= MAX_FAILED_STARTS:
                        raise RuntimeError(f"the verifier processes do not start: {worker.last_words()}")
                elif worker.in_hand:
                    verdicts[worker.in_hand.popleft()] = self._not_judged(outcome, worker)
                    waiting.extendleft(reversed(worker.in_hand))
                self._replace(slot)
        return [verdicts[text] for text in texts]

    def close(self) -> None:
        """Kills the processes and waits for their end."""
        for worker in self._workers:
            worker.kill()
        self._workers = []
        self._starter.shutdown()

    def _start(self) -> _Worker:
        return self._starter.submit(_Worker).result()

    def _replace(self, slot: int) -> None:
        self._workers[slot].kill()
        self._workers[slot] = self._start()

    def _wait(self) -> None:
        """Until a worker has something to say, or has been silent for too long."""
        soonest = min(worker.deadline for worker in self._workers)
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker.process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
            selector.select(max(0.0, soonest - time.monotonic()))

    def _not_judged(self, outcome: Outcome, worker: _Worker) -> Verdict:
        if outcome == "timeout":
            detail = f"no verdict within {self.timeout_seconds:g} s"
        else:
            detail = f"the verifier process ended with status {worker.process.wait()}"
        return Verdict(score=0.0, outcome=outcome, detail=detail)


class _Worker:
    """One process, and the cases it was given and has not answered, the one in hand first."""

    def __init__(self) -> None:
        environment = {name: os.environ[name] for name in _ENVIRONMENT_KEPT if name in os.environ}
        source_root = str(Path(__file__).resolve().parents[2])
        inherited = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([source_root, inherited] if inherited else [source_root])
        environment["PYTHONHASHSEED"] = "0"  # some reasoning-gym scorers depend on it
        environment.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
        # A program of its own: forking this process would copy its threads' locks, and multiprocessing's spawn
        # would import the main script, with torch and vLLM, again.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "megatron_rl.rewards.worker", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,
            bufsize=0,
        )
        assert self.process.stdout is not None, "the process was given a pipe"
        os.set_blocking(self.process.stdout.fileno(), False)
        self.is_ready, self.has_ended = False, False
        self.in_hand: deque[str] = deque()
        self.deadline = time.monotonic() + LOAD_SECONDS
        self._received = b""
        self._missing: Mapping[str, str] = {}

    def give(self, batch: list[str], timeout_seconds: float) -> bool:
        """Whether the cases could be handed over; the process is idle, so it reads them at once."""
        for text in batch:
            domain = json.loads(text)[0] if self._missing else ""
            if domain in self._missing:
                raise RuntimeError(f"the {domain} verifier can not be loaded: {self._missing[domain]}; install it")
        body = f"[{','.join(batch)}]".encode()
        message = memoryview(len(body).to_bytes(4, "big") + body)
        assert self.process.stdin is not None, "the process was given a pipe"
        try:
            while message:
                message = message[self.process.stdin.write(message) or 0 :]
        except BrokenPipeError:
            return False
        self.in_hand.extend(batch)
        self.deadline = time.monotonic() + timeout_seconds
        return True

    def read(self, timeout_seconds: float) -> dict[str, Verdict]:
        """The verdicts that have arrived; each gives the next case its full time."""
        verdicts: dict[str, Verdict] = {}
        for frame in self._frames():
            if not self.is_ready:
                self.is_ready, self._missing = True, frame
            else:
                score, outcome, detail = frame
                verdicts[self.in_hand.popleft()] = Verdict(score=score, outcome=outcome, detail=detail)
            self.deadline = time.monotonic() + timeout_seconds if self.in_hand else float("inf")
        return verdicts

    def failure(self) -> Outcome | None:
        """Why this process is of no more use, if it is not."""
        if self.has_ended:
            return "crashed"
        return "timeout" if time.monotonic() >= self.deadline else None

    def last_words(self) -> str:
        """The end of what it wrote to its standard error while loading."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"no message, status {self.process.poll()}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def _frames(self) -> list[Any]:
        assert self.process.stdout is not None, "the process was given a pipe"
        while not self.has_ended and (chunk := self.process.stdout.read(1 << 16)) is not None:
            self._received += chunk
            self.has_ended = not chunk
        frames = []
        while len(self._received) >= 4 and len(self._received) >= (end := 4 + self._frame_length()):
            frames.append(json.loads(self._received[4:end]))
            self._received = self._received[end:]
        return frames

    def _frame_length(self) -> int:
        return int.from_bytes(self._received[:4], "big")
