"""Verdicts of verifiers that could judge an answer; those on failures are made where processes are watched."""

from __future__ import annotations

from megatron_rl.types import Verdict


def judged(score: float, detail: str) -> Verdict:
    """A verdict, with its reason for a reader."""
    return Verdict(score=score, outcome="judged", detail=detail)


def right() -> Verdict:
    """The verdict on a right answer."""
    return judged(1.0, "right")


def unanswered(why: str) -> Verdict:
    """The verdict on a response without an answer in the form that was asked for, which is wrong."""
    return Verdict(score=0.0, outcome="judged", detail=why, is_unanswered=True)


def wrong(why: str) -> Verdict:
    """The verdict on a wrong answer."""
    return judged(0.0, why)
