"""How much of the days of a long run leads to its policy, where jobs end and machines fail."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

# 419 unexpected interruptions of 16,384 H100 in 54 days: Llama 3, arXiv 2407.21783, section 3.3.4, Table 5.
FAILURES_PER_DEVICE_HOUR = 419 / (54 * 24 * 16384)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one run on a cluster is, without its waits in the queue; all in seconds."""

    step: float
    save: float
    save_every: float  # at the end of the step under way
    start: float
    limit: float  # of the queue; inf for none
    failure_every: float  # on average, of all its devices together; inf for never


def goodput(job: Job, days: float, seed: int) -> float:
    """The share of the machines' time that led to steps which were kept, waiting in the queue not counted, 0..1.

    Before the limit a job saves at the end of its last whole step; a failure loses what was done since the last save.

    A job of 100 seconds: 10 to start, eight steps of 10, a save of 5, and 5 in which no step fits.

    >>> job = Job(step=10.0, save=5.0, save_every=1000.0, start=10.0, limit=100.0, failure_every=float("inf"))
    >>> round(goodput(job, 1.0, 0), 2)
    0.84
    """
    source, spent, kept, end = random.Random(seed), 0.0, 0.0, 86400.0 * days
    steps_per_save = max(1, math.ceil(job.save_every / job.step - 1e-9))
    cycle = steps_per_save * job.step + job.save
    if job.start + job.step + job.save > min(job.limit, end):
        return 0.0  # not one step fits
    while spent < end:
        fails = source.expovariate(1 / job.failure_every) if job.failure_every < math.inf else math.inf
        limit = min(job.limit, end)  # the last job goes on beyond the days, but not for ever
        room = min(limit, fails) - job.start
        num_cycles = max(0, math.floor(room / cycle))
        num_more = max(0, math.floor((room - num_cycles * cycle - job.save) / job.step))
        kept += num_cycles * steps_per_save * job.step
        now = job.start + num_cycles * cycle + num_more * job.step
        if fails < limit:
            now = fails
        elif num_more:
            now, kept = now + job.save, kept + num_more * job.step
        spent += now
    return kept / spent
