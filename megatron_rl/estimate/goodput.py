"""How much of the days of a long run leads to its policy, where jobs end and machines fail."""

from __future__ import annotations

import random
from dataclasses import dataclass

# 419 unexpected interruptions of 16,384 H100 in 54 days: Llama 3, arXiv 2407.21783, section 3.3.4, Table 5.
FAILURES_PER_DEVICE_HOUR = 419 / (54 * 24 * 16384)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one run on a cluster is; all in seconds."""

    step: float
    save: float
    save_every: float  # at the end of the step under way
    start: float
    limit: float  # of the queue; inf for none
    wait: float  # in the queue before each job
    failure_every: float  # on average, of all its devices together; inf for never


def goodput(job: Job, days: float, seed: int) -> float:
    """The share of the machines' time that led to steps which were kept, waiting in the queue not counted, 0..1.

    Before the limit a job saves at the end of its last whole step; a failure loses what was done since the last save.

    A job of 100 seconds: 10 to start, eight steps of 10, a save of 5, and 5 in which no step fits.

    >>> job = Job(step=10.0, save=5.0, save_every=1000.0, start=10.0, limit=100.0, wait=0.0, failure_every=float("inf"))
    >>> round(goodput(job, 1.0, 0), 2)
    0.84
    """
    source, spent, kept, end = random.Random(seed), 0.0, 0.0, 86400.0 * days
    while spent < end:
        fails = source.expovariate(1 / job.failure_every) if job.failure_every < float("inf") else float("inf")
        now, unsaved = job.start, 0.0
        while now + job.step + job.save <= min(job.limit, fails):
            now, unsaved = now + job.step, unsaved + job.step
            if unsaved >= job.save_every:
                now, kept, unsaved = now + job.save, kept + unsaved, 0.0
        if fails < job.limit:
            now = fails
        elif unsaved:
            now, kept = now + job.save, kept + unsaved
        elif now == job.start:
            return 0.0  # not one step fits before the limit
        spent += now
    return kept / spent
