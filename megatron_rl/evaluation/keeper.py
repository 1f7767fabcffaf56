"""The process that keeps what an engine makes: it writes samples and judges them, so that the engine's only generates.

Samples are written as they come, and judged after, in another thread: a verifier that lags behind delays no file. The
process heeds no signal to leave, and ends with its parent.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import NamedTuple, Self

from megatron_rl.config.checks import UserError
from megatron_rl.config.suites import Scorer as ScorerName
from megatron_rl.config.tokenizer import stop_tokens
from megatron_rl.data.items import Item
from megatron_rl.data.prompts import load_tokenizer
from megatron_rl.evaluation import store
from megatron_rl.evaluation.benchmarks import problems
from megatron_rl.evaluation.judge import judge
from megatron_rl.evaluation.plan import Ask, Evaluation
from megatron_rl.evaluation.store import SAMPLES, Line, Wave
from megatron_rl.rewards.sandbox.run import source_root
from megatron_rl.rewards.score import Scorer
from megatron_rl.runtime.orphans import die_with_parent
from megatron_rl.runtime.preempt import SIGNALS
from megatron_rl.types import Sample

LEAVE_SECONDS = 60.0  # chosen: for the samples that are on their way to the disk
LOOK_SECONDS = 1.0


class Part(NamedTuple):
    """The samples of one request."""

    id: str  # of the problem
    first: int  # number of the first one among the problem's samples
    seed: int  # of the first one
    opens_thought: bool
    samples: tuple[Sample, ...]


class Job(NamedTuple):
    """A wave to be written where it comes with its samples, and then to be judged."""

    ask: str
    wave: Wave
    parts: tuple[Part, ...]
    scorers: tuple[ScorerName, ...]


class Keeper:
    """Owns the process, and knows how many verdict files it still owes."""

    def __init__(self, evaluation: Evaluation) -> None:
        ours, theirs = Pipe()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([source_root(), os.environ.get("PYTHONPATH", "")])}
        environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        words = [str(os.getpid()), str(theirs.fileno())]
        # Slurm tells all processes of a job to leave; this one leaves when told by its parent. Held until it listens.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "megatron_rl.evaluation.keeper", *words],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        theirs.close()
        self._connection = ours
        self.num_owed = 0  # waves that were handed over and are not judged
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="keeper")  # a pipe may be full
        self._send(evaluation)

    @property
    def process_id(self) -> int:
        return self._process.pid

    def take(self, job: Job) -> None:
        """Has a job done in the background. Raises RuntimeError or OSError where one before failed."""
        self.num_owed += 1
        self._send(job)
        self._receive(0.0)

    def keep(self, ask: Ask, wave: Wave, parts: tuple[Part, ...]) -> None:
        """Has a wave written and judged. Raises as `take` does."""
        self.take(Job(ask.name, wave, parts, tuple(name for name in ask.benchmark.scorers if not wave.has(name))))

    def judge(self, ask: Ask, wave: Wave) -> None:
        """Has a wave that is written judged by the scorers that have not yet. Raises as `take` does."""
        self.take(Job(ask.name, wave, (), tuple(name for name in ask.benchmark.scorers if not wave.has(name))))

    def wait(self, has_to_leave: Callable[[], bool]) -> None:
        """Until everything is written and judged, or it is time to leave. Raises as `take` does."""
        while self.num_owed and not has_to_leave():
            self._receive(LOOK_SECONDS)

    def close(self) -> None:
        """Ends the process: samples that it has are written, and judging is broken off."""
        with suppress(OSError):  # it has ended, and said why
            self._send(None)
        self._sender.shutdown()
        try:
            self._process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _send(self, what: Evaluation | Job | None) -> None:
        self._sender.submit(self._connection.send, what)

    def _receive(self, seconds: float) -> None:
        while self.num_owed and self._connection.poll(seconds):
            try:
                error = self._connection.recv()
            except (EOFError, ConnectionError):
                raise RuntimeError(
                    f"the process that keeps samples ended with status {self._process.wait()}; what it wrote is whole: "
                    "start again"
                ) from None
            if error is not None:
                raise error
            self.num_owed -= 1
            seconds = 0.0


class _Work:
    """What the process does: two threads and the queue between them."""

    def __init__(self, evaluation: Evaluation, connection: Connection) -> None:
        self.evaluation, self.connection = evaluation, connection
        self.asks = {ask.name: ask for ask in evaluation.asks}
        self.items: dict[str, dict[str, Item]] = {}
        self.jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self.tokenizer = load_tokenizer(evaluation.model_folder)
        self.stop = set(stop_tokens(evaluation.model_folder, evaluation.model.vocab_size))
        self.is_leaving = False
        self.lock = threading.Lock()  # of the connection

    def run(self) -> None:
        """Until the parent says so or is gone."""
        evaluation = self.evaluation
        scorer = Scorer(
            evaluation.scale.verifier_processes,
            evaluation.verifier_timeout_seconds,
            allows_unsafe_sandbox=evaluation.allows_unsafe_sandbox,
            has_published=any("as_published" in ask.benchmark.scorers for ask in evaluation.asks),
        )
        threading.Thread(target=self._judge, args=[scorer], daemon=True).start()
        with suppress(EOFError, ConnectionError):
            while (job := self.connection.recv()) is not None:
                try:
                    if job.parts:
                        store.write_lines(job.wave.path(SAMPLES), self._lines(job.parts))
                    self.jobs.put(job)
                except OSError as error:
                    self._say(error)
        self.is_leaving = True
        scorer.close()

    def _judge(self, scorer: Scorer) -> None:
        while not self.is_leaving:
            job = self.jobs.get()
            try:
                if job.ask not in self.items:
                    folder = store.problems_folder(self.evaluation.directory)
                    known = problems.stored(self.asks[job.ask].benchmark, folder, self.evaluation.mirror).items
                    self.items[job.ask] = {item.id: item for item in known}
                for name in job.scorers:
                    judge(job.wave, name, self.items[job.ask], scorer)
            except (OSError, RuntimeError, UserError) as error:
                if not self.is_leaving:  # else the verifiers were stopped
                    self._say(error)
            else:
                self._say(None)

    def _say(self, error: Exception | None) -> None:
        with self.lock, suppress(OSError):  # nobody listens
            self.connection.send(error)

    def _lines(self, parts: tuple[Part, ...]) -> list[Line]:
        samples = [sample for part in parts for sample in part.samples]
        texts = iter(self.tokenizer.batch_decode([without_stop(sample, self.stop) for sample in samples]))
        return [
            {
                "id": part.id,
                "sample": part.first + place,
                "seed": part.seed + place,
                "finish": sample.finish_reason,
                "tokens": len(sample.token_ids),
                "opens_thought": part.opens_thought,
                "response": next(texts),
            }
            for part in parts
            for place, sample in enumerate(part.samples)
        ]


def without_stop(sample: Sample, stop: set[int]) -> list[int]:
    """The tokens of a response without the one that ended it."""
    ids = list(sample.token_ids)
    return ids[:-1] if ids and ids[-1] in stop else ids


def main() -> None:
    """The process: its arguments are its parent, and the connection to it."""
    die_with_parent(int(sys.argv[1]))
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)  # a handler, for what is ignored stays so in the verifiers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    connection = Connection(int(sys.argv[2]))
    _Work(connection.recv(), connection).run()
    os._exit(0)  # threads that judge may still be waiting


if __name__ == "__main__":
    main()
