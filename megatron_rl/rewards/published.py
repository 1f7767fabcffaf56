"""A logic answer judged by reasoning-gym's own scorer: what the papers' figures rest on, for evaluation alone.

Its scorers evaluate answers, and pay for some wrong ones: the answer is handed to them in the sandbox of model-written
programs. The answers to an entry share one, as making a scorer takes longer than asking it; those of `ALONE` do not,
which are executed: an answer that takes the scorer over wins nothing but its own score. What counts as the answer is
what reasoning-gym takes for it: the last `<answer>...</answer>` anywhere.

Not covered: entries whose metadata JSON can not say, which the scorer may refuse; that counts as a failed verifier.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from megatron_rl.rewards import logic
from megatron_rl.rewards.sandbox.run import Execution, Sandbox
from megatron_rl.rewards.verdicts import judged, wrong
from megatron_rl.types import Verdict

MAX_ANSWER_CHARACTERS = 100_000
PACKAGE = "reasoning_gym"  # imported once, before the sandbox closes: that takes a second
# JSON has made lists of the grids of tuples that two scorers compare with.
SOURCE = f"""
from {PACKAGE} import get_score_answer_fn
scorers = {{}}
def score(task, answer, entry):
    if task in ("arc_agi", "rearc"):
        entry["metadata"]["output"] = tuple(tuple(row) for row in entry["metadata"]["output"])
    if task not in scorers:
        scorers[task] = get_score_answer_fn(task)
    return float(scorers[task](answer, entry))
"""
# Tasks in whose modules something is executed or parsed by sympy, be it the answer or not.
ALONE = frozenset(
    (
        "basic_arithmetic",
        "bf",
        "binary_matrix",
        "bitwise_arithmetic",
        "codeio",
        "countdown",
        "intermediate_integration",
        "n_queens",
        "number_sorting",
        "polynomial_equations",
        "polynomial_multiplication",
        "propositional_logic",
        "puzzle24",
        "simple_equations",
        "simple_integration",
        "spiral_matrix",
        "string_insertion",
    )
)
MAX_SHARING = 128  # answers in one sandbox; chosen: its start is then a tenth of what they take

_ANSWER = re.compile(r"<answer>\s?(.*?)\s?</answer>", re.DOTALL)

check_item = logic.check_item


def prepare(response: str, item: Mapping[str, Any]) -> Verdict | str:
    """The verdict where there is no answer, else the answer for `judge`; fast and safe on any text."""
    found = _ANSWER.findall(response)
    if not found:
        return wrong("no <answer>...</answer>")
    if len(found[-1]) > MAX_ANSWER_CHARACTERS:
        return wrong(f"the answer has more than {MAX_ANSWER_CHARACTERS} characters")
    return str(found[-1]).strip()


def load() -> None:
    """Nothing: the package is the sandbox's."""


def sharing(item: Mapping[str, Any]) -> int:
    """How many answers to an item may share a sandbox."""
    return 1 if item["task"] in ALONE else MAX_SHARING


def judge(answer: str, item: Mapping[str, Any], sandbox: Sandbox, max_seconds: float) -> Verdict:
    """The score that reasoning-gym gives an answer. Raises RuntimeError where it gives none."""
    done = _scored([answer], item, sandbox, max_seconds)
    if done.ended == "time":
        return wrong(f"more than {max_seconds:g} s")
    found = _verdicts(done.value)
    if not found:
        raise RuntimeError(f"reasoning-gym's scorer of {item['task']} ended with status {done.status} and no score")
    return found[0]


def judge_first(answers: Sequence[str], item: Mapping[str, Any], sandbox: Sandbox, max_seconds: float) -> list[Verdict]:
    """Verdicts on the answers up to the first that has to be judged alone: it hangs, has no score or ends the scorer.

    Raises SandboxError where the sandbox failed.
    """
    return _verdicts(_scored(answers, item, sandbox, max_seconds).value)[: len(answers)]


def _scored(answers: Sequence[str], item: Mapping[str, Any], sandbox: Sandbox, max_seconds: float) -> Execution:
    calls = [[item["task"], answer, dict(item["entry"])] for answer in answers]
    return sandbox.run(SOURCE, function="score", calls=calls, seconds=max_seconds)


def _verdicts(value: bytes) -> list[Verdict]:
    """The verdicts of the lines that are whole, up to one that is no score."""
    found = []
    for line in value.split(b"\n")[:-1]:
        try:
            score = json.loads(line)
        except ValueError:
            break
        if not isinstance(score, float) or not math.isfinite(score):
            break
        found.append(judged(min(max(score, 0.0), 1.0), f"reasoning-gym's own score {score:.2f}"))
    return found
