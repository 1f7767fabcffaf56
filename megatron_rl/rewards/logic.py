"""The reward of a logic answer: the last `<answer>...</answer>` after the thinking, by the scorer of its task.

Items are stored reasoning-gym entries: what a generator makes depends on its version and on Python's hash seed.
The scorers are in puzzles/, one line per task in puzzles/tasks.py; reasoning-gym itself is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megatron_rl.rewards.puzzles import integrals
from megatron_rl.rewards.puzzles.reading import readings
from megatron_rl.rewards.puzzles.tasks import TASKS
from megatron_rl.rewards.puzzles.words import vocabulary
from megatron_rl.rewards.response import after_thinking
from megatron_rl.rewards.verdicts import judged, unanswered, wrong
from megatron_rl.types import Verdict

MIN_LIMIT_CHARACTERS = 4000  # a longer answer is not judged unless its reference is long, too
LIMIT_PER_REFERENCE = 2  # times its length

ACCEPTED = frozenset(TASKS)
REFUSED: Mapping[str, str] = {"composite": "it wraps other tasks; store their entries under their own names"}


def check_item(item: Mapping[str, Any]) -> None:
    """Raises ValueError unless `item` is {"task": an accepted task, "entry": a reasoning-gym entry of it}."""
    if item.keys() != {"task", "entry"}:
        raise ValueError(f"a logic item has the keys 'entry' and 'task', not {sorted(item)}; see docs/data.md")
    task, entry = item["task"], item["entry"]
    if not isinstance(task, str):
        raise ValueError(f"the task of a logic item is a name, not {task!r}; see docs/data.md")
    if task in REFUSED:
        raise ValueError(f"logic task '{task}' is refused: {REFUSED[task]}; drop its rows")
    if task not in TASKS:
        raise ValueError(f"logic task '{task}' is not one of reasoning-gym's; see TASKS in rewards/puzzles/tasks.py")
    if not isinstance(entry, Mapping) or entry.keys() != {"question", "answer", "metadata"}:
        raise ValueError("a logic entry has the keys 'answer', 'metadata' and 'question'; store reasoning-gym's own")
    if TASKS[task].has_reference and (not isinstance(entry["answer"], str) or not entry["answer"].strip()):
        raise ValueError(f"the answer of a logic entry is a text, not {entry['answer']!r}; drop the row")
    if not isinstance(entry["metadata"], Mapping):
        raise ValueError("the metadata of a logic entry is an object; store reasoning-gym's own")


def verify(response: str, item: Mapping[str, Any]) -> Verdict:
    """The verdict on a response, at once and in this process."""
    found = prepare(response, item)
    return found if isinstance(found, Verdict) else judge(found, item)


def prepare(response: str, item: Mapping[str, Any]) -> Verdict | str:
    """The verdict where there is no answer to judge, else the answer for `judge`; fast and safe on any text."""
    _, opening, rest = after_thinking(response).rpartition("<answer>")
    answer, closing, _ = rest.partition("</answer>")
    if not opening or not closing:
        return unanswered("no <answer>...</answer> after the thinking")
    answer = answer.strip()
    if not answer:
        return unanswered("the answer is empty")
    limit = max(MIN_LIMIT_CHARACTERS, LIMIT_PER_REFERENCE * len(str(item["entry"]["answer"])))
    if len(answer) > limit:
        return wrong(f"the answer has more than {limit} characters")
    return answer


def load() -> None:
    """Reads the word lists, which a confined `judge` could not, and what integrals need; else raises ImportError."""
    vocabulary()
    integrals.load()


def judge(answer: str, item: Mapping[str, Any]) -> Verdict:
    """The task's verdict on an answer: the best of its readings."""
    if item["task"] not in TASKS:
        raise ValueError(f"logic task '{item['task']}' is not accepted; see TASKS in rewards/puzzles/tasks.py")
    score = TASKS[item["task"]].score
    credit = max(score(text, item["entry"]) for text in readings(answer))
    return judged(credit, "right" if credit == 1.0 else "wrong" if credit == 0.0 else f"a share of {credit:.2f}")
