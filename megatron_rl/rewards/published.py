"""A logic answer judged by reasoning-gym's own scorer: what the papers' figures rest on, for evaluation alone.

Its scorers evaluate answers, and pay for some wrong ones: the answer is handed to them in the sandbox of model-written
programs, where an answer that takes the scorer over wins nothing but its own score. What counts as the answer is what
reasoning-gym takes for it: the last `<answer>...</answer>` anywhere.

Not covered: entries whose metadata JSON can not say, which the scorer may refuse; that counts as a failed verifier.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from megatron_rl.rewards import logic
from megatron_rl.rewards.sandbox.run import Sandbox
from megatron_rl.rewards.verdicts import judged, wrong
from megatron_rl.types import Verdict

MAX_ANSWER_CHARACTERS = 100_000
PACKAGE = "reasoning_gym"  # imported once, before the sandbox closes: that takes a second
# JSON has made lists of the grids of tuples that two scorers compare with.
SOURCE = f"""
from {PACKAGE} import get_score_answer_fn
def score(task, answer, entry):
    if task in ("arc_agi", "rearc"):
        entry["metadata"]["output"] = tuple(tuple(row) for row in entry["metadata"]["output"])
    return float(get_score_answer_fn(task)(answer, entry))
"""

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


def judge(answer: str, item: Mapping[str, Any], sandbox: Sandbox, max_seconds: float) -> Verdict:
    """The score that reasoning-gym gives an answer. Raises RuntimeError where it gives none."""
    done = sandbox.run(
        SOURCE, function="score", arguments=[item["task"], answer, dict(item["entry"])], seconds=max_seconds
    )
    if done.ended == "time":
        return wrong(f"more than {max_seconds:g} s")
    try:
        score = json.loads(done.value)
    except ValueError:
        raise RuntimeError(f"reasoning-gym's scorer of {item['task']} ended with status {done.status}") from None
    if not isinstance(score, float) or not math.isfinite(score):
        raise RuntimeError(f"reasoning-gym's scorer of {item['task']} gave {score!r}")
    return judged(min(max(score, 0.0), 1.0), f"reasoning-gym's own score {score:.2f}")
