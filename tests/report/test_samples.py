"""What the model said: which samples are kept, in what form, and how large the file can get."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.report import samples
from megatron_rl.report.samples import MAX_FILE_BYTES, PAGE_BYTES, Samples, clipped, reference_answer, shown_of
from megatron_rl.types import Collected, Example
from tests.report.records import batch, collected
from tests.report.runs import make_run

FIELDS = {
    *("step", "domain", "prompt_id", "prompt", "response", "answer", "reward", "outcome", "detail", "advantage"),
    *("length", "truncated", "policy_version"),
}


def with_examples(step: int, response: str = "so \\boxed{5}") -> Collected:
    """`collected` with one example of a group that is trained on and one of a group that was dropped."""
    found = collected()
    examples = [
        Example(
            order=(0, i),
            prompt=dataclasses.replace(found.tried.prompts[i], item={"answer": "5"}),
            prompt_text="2 + 3 = ?",
            sample=0,
            response=response,
            detail="equal",
            reward=1.0,
            outcome="judged",
            num_tokens=4,
            is_truncated=False,
            policy_version=step - 1,
        )
        for i in (0, 1)
    ]
    return dataclasses.replace(found, examples=tuple(examples))


def rows_of(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "samples.jsonl").read_text().splitlines()]


def test_a_row_holds_all_that_a_reader_needs(tmp_path: Path) -> None:
    Samples(make_run(tmp_path)).add(1, with_examples(1), batch())
    trained, dropped = rows_of(tmp_path)
    assert trained.keys() == dropped.keys() == FIELDS
    assert (trained["prompt"], trained["response"], trained["answer"]) == ("2 + 3 = ?", "so \\boxed{5}", "5")
    assert (trained["reward"], trained["outcome"], trained["policy_version"]) == (1.0, "judged", 0)
    assert trained["advantage"] == 0.5 and dropped["advantage"] is None


@pytest.mark.parametrize(("saved_at", "killed_after"), [(0, 3), (2, 2), (2, 5), (4, 5)])
def test_a_resumed_file_equals_an_uninterrupted_one(tmp_path: Path, saved_at: int, killed_after: int) -> None:
    whole, broken = make_run(tmp_path / "whole"), make_run(tmp_path / "broken")
    for run, steps in ((whole, range(1, 7)), (broken, range(1, killed_after + 1))):
        run.directory.mkdir()
        kept = Samples(run)
        for step in steps:
            kept.add(step, with_examples(step), batch())
    with (broken.directory / "samples.jsonl").open("a") as file:
        file.write('{"step": 6, "dom')
    kept = Samples(broken)
    kept.resume(saved_at)
    for step in range(saved_at + 1, 7):
        kept.add(step, with_examples(step), batch())
    assert rows_of(broken.directory) == rows_of(whole.directory)


@pytest.mark.parametrize("num_steps", [10, 3_000, 10_000])
def test_the_file_is_bounded_before_the_run_begins(tmp_path: Path, num_steps: int) -> None:
    run = make_run(tmp_path)
    run = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, num_steps=num_steps))
    kept = Samples(run)
    kept.add(1, with_examples(1, response="x" * 100_000), batch())
    row = max((tmp_path / "samples.jsonl").read_text().splitlines(), key=len)
    num_rows = num_steps * len(run.recipe.domains) * run.samples_per_domain
    assert len(row) * num_rows <= MAX_FILE_BYTES
    assert len(json.loads(row)["response"]) <= kept.characters


def test_a_text_loses_its_middle_and_says_how_much() -> None:
    text = "begin" + "x" * 1000 + "end"
    assert clipped(text, 100).startswith("begin") and clipped(text, 100).endswith("end")
    assert len(clipped(text, 100)) <= 100 and "characters left out" in clipped(text, 100)
    assert clipped(text, len(text)) == text


def test_a_page_shows_the_newest_and_what_an_earlier_policy_did() -> None:
    row = {"prompt_id": "a", "prompt": "p", "response": "r", "reward": 0.0}
    found = shown_of([row | {"step": 1}, row | {"step": 4, "reward": 1.0}, row | {"step": 9, "reward": 1.0}])
    assert [one["earlier"] for one in found] == [None, [1, 0.0], None]
    many = shown_of(row | {"step": step, "response": "r" * 9000} for step in range(2000))
    assert many[-1]["step"] == 1999 and len(json.dumps(many)) < PAGE_BYTES * 1.1


def test_the_reference_answer_is_the_one_the_verifier_holds_against() -> None:
    assert reference_answer({"answer": "5"}) == "5"
    assert reference_answer({"task": "t", "entry": {"answer": "7", "question": "q"}}) == "7"
    assert reference_answer({"tests": [1, 2]}) == '{"tests": [1, 2]}'
    assert samples.FILE_NAME == "samples.jsonl"


def test_samples_of_validations_stand_beside_and_a_resume_takes_back_those_of_its_own_step(tmp_path: Path) -> None:
    file = Samples(make_run(tmp_path))
    examples = with_examples(3).examples
    for step in (0, 2):
        file.add_validation(step, examples)
    file.add(3, with_examples(3), batch())
    assert [row.get("held_out", False) for row in rows_of(tmp_path)] == [True] * 4 + [False] * 2
    assert all(row["advantage"] is None for row in rows_of(tmp_path) if "held_out" in row)
    assert len(file.shown) == 6
    file.resume(2)  # the validation after step 2 is made again
    assert [(row["step"], row.get("held_out", False)) for row in rows_of(tmp_path)] == [(0, True)] * 2


def test_validations_count_in_the_bound_of_the_file(tmp_path: Path) -> None:
    often = dataclasses.replace(make_run(tmp_path), validate_every_steps=1)
    assert Samples(often).characters < Samples(make_run(tmp_path)).characters
