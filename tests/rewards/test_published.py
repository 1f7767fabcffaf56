"""reasoning-gym's own scorers: answers that share a sandbox have the verdicts that each has by itself."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.rewards import published, worker
from megatron_rl.rewards.sandbox.run import Sandbox, SandboxError
from megatron_rl.rewards.score import Case, Scorer
from megatron_rl.rewards.workers import PUBLISHED, Workers
from megatron_rl.types import Verdict

ITEM: dict[str, Any] = {"task": "spell_backward", "entry": {"question": "", "answer": "", "metadata": {}}}
PLANTED = """
import os, random
def score(task, answer, entry):
    if answer == "hangs":
        while True: pass
    if answer == "ends": os._exit(0)
    if answer == "raises": raise ValueError
    if answer == "draws": return random.random()
    return {"nothing": None, "text": "1", "infinite": float("inf"), "much": 7.0}.get(answer, float(len(answer)))
"""
LATER = ["a", "", "hangs", "", "ends", "a", "raises", "nothing", "a", "text", "infinite", "much", "draws", "", "draws"]
ENTRIES = Path(__file__).with_name("logic_entries.jsonl")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scorer whose answers say what becomes of it."""
    monkeypatch.setattr(published, "SOURCE", PLANTED)


def verdicts(answers: list[str], sandbox: Sandbox) -> list[Verdict]:
    judge = partial(published.judge, sandbox=sandbox, max_seconds=1.0)
    together = partial(published.judge_first, sandbox=sandbox, max_seconds=1.0)
    found = worker._verdicts({PUBLISHED: judge}, {PUBLISHED: together}, PUBLISHED, answers, ITEM)
    return [one for some in found for one in some]


@pytest.mark.usefixtures("planted")
def test_an_answer_that_ends_or_hangs_the_scorer_costs_its_own_verdict_alone(sandbox: Sandbox) -> None:
    found = verdicts(LATER, sandbox)
    assert found == [one for answer in LATER for one in verdicts([answer], sandbox)]
    of = dict(zip(LATER, found, strict=True))
    assert [of[answer].score for answer in ("a", "", "much")] == [1.0, 0.0, 1.0]
    assert (of["hangs"].outcome, of["hangs"].detail) == ("judged", "more than 1 s")
    failed = [answer for answer in LATER if of[answer].outcome == "crashed"]
    assert failed == ["ends", "raises", "nothing", "text", "infinite"]


@pytest.mark.usefixtures("planted")
def test_a_broken_sandbox_gives_no_verdict() -> None:
    with Sandbox() as broken:
        os.kill(broken._process.pid, signal.SIGKILL)
        with pytest.raises(SandboxError):
            published.judge_first(["a", "b"], ITEM, broken, 1.0)
        assert {one.outcome for one in verdicts(["a", "b"], broken)} == {"sandbox_failed"}


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_every_scorer_says_the_same_of_answers_that_share_a_sandbox() -> None:
    items = {row["task"]: row for row in map(json.loads, ENTRIES.read_text(encoding="utf-8").splitlines())}
    cases = []
    for item in items.values():
        right = str(item["entry"]["answer"])
        answers = (right, "x", right.upper(), "[" * 400, f"{right} {right}", "1", "-7.5", "{}", right[::-1], "True\n1")
        cases += [Case(PUBLISHED, f"<answer>{answer}</answer>", item) for answer in answers]
    with Scorer(2, 20.0, has_published=True) as scorer:
        found = scorer.score(cases)
        # Items that are equal and not the same have sandboxes of their own.
        alone = scorer.score([case._replace(item=dict(case.item)) for case in cases])
    plain = [[(one.score, one.outcome, one.detail) for one in some] for some in (found, alone)]
    assert plain[0] == plain[1]
    assert sum(one.score for one in found) > len(items) / 2
    assert {one.outcome for one in found} <= {"judged", "crashed"}


@pytest.mark.e2e
def test_a_process_that_is_killed_with_many_answers_in_hand_costs_one_of_them() -> None:
    workers = Workers(1, 30.0, allows_unsafe_sandbox=False, has_published=True)
    item = ITEM | {"entry": {"question": "", "answer": "ab", "metadata": {"word": "ba"}}}
    workers.judge([(PUBLISHED, "ab", item)])
    (process,) = workers.process_ids
    os.kill(process, signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (process, signal.SIGKILL)).start()
    found = workers.judge([(PUBLISHED, "ab" * number, item) for number in range(1, 6)])
    workers.close()
    assert [one.outcome for one in found] == ["sandbox_failed", *["judged"] * 4]
