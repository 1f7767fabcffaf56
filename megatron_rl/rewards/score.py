"""Verdicts on responses: each domain's verifier, at once where the case is plain, else in a killable process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol, Self

from megatron_rl.rewards import code, instruct, logic, math, own, published, stem
from megatron_rl.rewards.response import as_read
from megatron_rl.rewards.workers import OWN, PUBLISHED, Workers
from megatron_rl.types import Verdict


class Verifier(Protocol):
    """What the module of a domain offers; a new domain is such a module and a line in `VERIFIERS`."""

    def check_item(self, item: Mapping[str, Any]) -> None:
        """Raises ValueError where the item of a data file is not one of this domain; imports nothing heavy."""

    def prepare(self, response: str, item: Mapping[str, Any]) -> Verdict | str:
        """The verdict where it is plain, else the answer for `judge`; fast and safe on any text."""

    def load(self) -> None:
        """Imports what `judge` needs; called once in a worker."""

    def judge(self, answer: str, item: Mapping[str, Any]) -> Verdict:
        """The verdict; called in a worker, which is killed when it takes too long."""


VERIFIERS: Mapping[str, Verifier] = {
    "math": math,
    "code": code,
    "stem": stem,
    "logic": logic,
    "instruct": instruct,
}
# The scorers of others, for evaluation alone: domain of the item -> name of the judge.
AS_PUBLISHED: Mapping[str, str] = {"logic": PUBLISHED}
_PREPARES = {domain: verifier.prepare for domain, verifier in VERIFIERS.items()} | {
    AS_PUBLISHED["logic"]: published.prepare
}


class Case(NamedTuple):
    """A response to be judged."""

    domain: str
    response: str
    item: Mapping[str, Any]
    opens_thought: bool = False  # the prompt ended within a thought


class Scorer:
    """Owns the worker processes that judge what cannot be judged safely in this one, and a thread that tends them.

    Calls of any threads are served one after the other.
    """

    def __init__(
        self,
        num_processes: int,
        timeout_seconds: float,
        *,
        allows_unsafe_sandbox: bool = False,
        has_published: bool = False,  # judges as others do, too
        own_rewards: Mapping[str, str] | None = None,  # domain -> text of its file, of those of one's own
    ) -> None:
        self._own_rewards = own_rewards or {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scorer")
        start = partial(
            Workers,
            num_processes,
            timeout_seconds,
            allows_unsafe_sandbox=allows_unsafe_sandbox,
            has_published=has_published,
        )
        self.workers = self._thread.submit(start).result()

    def score(self, cases: Sequence[Case]) -> list[Verdict]:
        """One verdict per case, in order.

        Raises RuntimeError when the verifiers cannot be started, which says nothing about the responses.
        """
        return self.submit(cases).result()

    def submit(self, cases: Sequence[Case]) -> Future[list[Verdict]]:
        """`score` in the background: what its `result()` returns or raises."""
        return self._thread.submit(self._score, cases)

    def close(self) -> None:
        """Ends the worker processes, and with an error the calls that still wait for them."""
        self.workers.stop()
        self._thread.submit(self.workers.close).result()
        self._thread.shutdown()

    def _score(self, cases: Sequence[Case]) -> list[Verdict]:
        found = [self._prepared(case) for case in cases]
        hard = [index for index, verdict in enumerate(found) if isinstance(verdict, str)]
        judged = self.workers.judge([self._hard(cases[index], str(found[index])) for index in hard])
        by_index = dict(zip(hard, judged, strict=True))
        return [verdict if isinstance(verdict, Verdict) else by_index[i] for i, verdict in enumerate(found)]

    def _prepared(self, case: Case) -> Verdict | str:
        """The verdict where it is plain; what is one's own runs in a worker alone."""
        if case.domain in self._own_rewards:
            return as_read(case.response, opens_thought=case.opens_thought)
        return _prepared(case)

    def _hard(self, case: Case, answer: str) -> tuple[str, str, Mapping[str, Any]]:
        if (source := self._own_rewards.get(case.domain)) is None:
            return case.domain, answer, case.item
        return OWN, answer, own.packed(case.domain, source, case.item)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _prepared(case: Case) -> Verdict | str:
    began = time.perf_counter()
    response = as_read(case.response, opens_thought=case.opens_thought)
    found = _PREPARES[case.domain](response, case.item)
    return replace(found, seconds=time.perf_counter() - began) if isinstance(found, Verdict) else found
