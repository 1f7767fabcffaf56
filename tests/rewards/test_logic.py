"""What the logic verifier calls right and wrong, and which tasks it will not touch."""

from __future__ import annotations

from typing import Any

import pytest
import reasoning_gym
from reasoning_gym.factory import DATASETS

from megatron_rl.rewards import logic

ITEM = {
    "task": "spell_backward",
    "entry": {
        "question": "Spell this word backward (example: sun -> nus): hello",
        "answer": "olleh",
        "metadata": {"source_dataset": "spell_backward", "source_index": 0, "word": "hello", "word_len": 5},
    },
}

TABLE = [  # response, score, why
    ("<answer>olleh</answer>", 1.0, "the plain case"),
    ("<think>hm</think><answer> olleh\n</answer>", 1.0, "spaces are no part of the answer"),
    ("<answer>hello</answer> no <answer>olleh</answer>", 1.0, "the last answer counts"),
    ("<answer>olleh</answer> no <answer>hello</answer>", 0.0, "the last answer counts"),
    ("<think><answer>olleh</answer></think>", 0.0, "the answer stands only in the thinking"),
    ("<think><answer>olleh</answer>", 0.0, "the thinking never ended"),
    ("olleh", 0.0, "no answer tags"),
    ("<answer>olleh", 0.0, "an answer cut off"),
    ("<answer></answer>", 0.0, "an empty answer"),
    ("", 0.0, "an empty response"),
    ("<answer>ollex</answer>", 0.0, "reasoning-gym would give 0.8"),
    ("<answer>olleh hello</answer>", 0.0, "reasoning-gym would give 0.8 for padding"),
    (f"<answer>{'x' * 5000}</answer>", 0.0, "too long to be judged"),
]


@pytest.mark.parametrize(("response", "score", "why"), TABLE, ids=[f"{row[2]}: {row[0][:30]}" for row in TABLE])
def test_logic_verdicts(response: str, score: float, why: str) -> None:
    verdict = logic.verify(response, ITEM)
    assert (verdict.score, verdict.outcome) == (score, "judged"), f"{why}: {verdict.detail}"


def test_every_task_of_reasoning_gym_is_either_accepted_or_refused_with_a_reason() -> None:
    assert set(DATASETS) == logic.ACCEPTED | set(logic.REFUSED)
    assert not logic.ACCEPTED & set(logic.REFUSED)


@pytest.mark.parametrize(
    "task", sorted(logic.ACCEPTED - {"knight_swap", "futoshiki", "zebra_puzzles", "group_anagrams"})
)
def test_an_accepted_scorer_gives_1_to_its_reference_answer_and_0_to_nonsense(task: str) -> None:
    entry = reasoning_gym.create_dataset(task, seed=3, size=3)[1]
    item = {"task": task, "entry": {key: entry[key] for key in ("question", "answer", "metadata")}}
    assert logic.judge(str(entry["answer"]).strip(), item).score == 1.0
    assert logic.judge("no idea, sorry", item).score == 0.0


@pytest.mark.parametrize("task", sorted(logic.REFUSED))
def test_a_refused_task_is_neither_read_nor_judged(task: str) -> None:
    item: dict[str, Any] = ITEM | {"task": task}
    with pytest.raises(ValueError, match="refused"):
        logic.check_item(item)
    with pytest.raises(ValueError, match="not accepted"):
        logic.judge("1", item)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "spell_backwards"}, "not one of reasoning-gym's"),
        ({"task": 3}, "is a name"),
        ({"entry": {}}, "has the keys"),
        ({"entry": ITEM["entry"] | {"answer": None}}, "is a text"),
        ({"entry": ITEM["entry"] | {"metadata": None}}, "is an object"),
        ({"more": 1}, "has the keys"),
    ],
)
def test_items_that_can_not_be_meant_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        logic.check_item(ITEM | change)
