"""Verdicts on responses: each domain's verifier, at once where the case is plain, else in a killable process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from megatron_rl.rewards import logic, math
from megatron_rl.rewards.workers import Workers
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


VERIFIERS: Mapping[str, Verifier] = {"math": math, "logic": logic}


class Scorer:
    """Owns the worker processes that judge what can not be judged safely in this one."""

    def __init__(self, num_processes: int, timeout_seconds: float) -> None:
        self.workers = Workers(num_processes, timeout_seconds)

    def score(self, cases: Sequence[tuple[str, str, Mapping[str, Any]]]) -> list[Verdict]:
        """One verdict per (domain, response, item), in order.

        Raises RuntimeError when the verifiers can not be started, which says nothing about the responses.
        """
        found = [VERIFIERS[domain].prepare(response, item) for domain, response, item in cases]
        hard = [index for index, verdict in enumerate(found) if isinstance(verdict, str)]
        judged = self.workers.judge([(cases[index][0], str(found[index]), cases[index][2]) for index in hard])
        by_index = dict(zip(hard, judged, strict=True))
        return [verdict if isinstance(verdict, Verdict) else by_index[i] for i, verdict in enumerate(found)]

    def close(self) -> None:
        """Ends the worker processes."""
        self.workers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
