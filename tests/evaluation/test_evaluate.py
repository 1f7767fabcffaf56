"""A validation's accuracy, by domain, is what the papers report: strictly right or wrong where they say so."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megatron_rl.algorithms.reference import stall
from megatron_rl.config.records import Recipe, Stage, Stall
from megatron_rl.config.run import Run
from megatron_rl.evaluation.evaluate import VALIDATION_STEP, evaluate
from megatron_rl.types import Prompt, Scores, State
from recipes.prorl_v2 import RECIPE
from tests.models import make_run, replaced
from tests.report.records import groups

DOMAINS = ("math", "code", "stem", "logic", "instruct")
PROMPTS = [
    Prompt(serial=i, id=domain, domain=domain, token_ids=(1,), opens_thought=False, item={})
    for i, domain in enumerate(DOMAINS)
]


def run_of(recipe: Recipe) -> Run:
    """The recipe as published, without a scale's caps."""
    tokens = recipe.sampling.max_prompt_tokens + recipe.sampling.max_response_tokens
    run = make_run(Path(__file__).parents[2] / "demo" / "model", max_tokens_per_microbatch=tokens, kv_cache_bytes=2**30)
    return dataclasses.replace(run, recipe=recipe)


class Answers:
    """Stands for the rollouts: the same verdicts for every domain, and what was asked."""

    def __init__(self, rewards: list[float], judged: list[bool]) -> None:
        self.rewards, self.judged = rewards, judged
        self.asked: dict[str, Any] = {}
        self.tokenizer = SimpleNamespace(decode=lambda ids: f"prompt of {len(ids)} tokens")

    def answer(self, prompts: Any, step: int, **options: Any) -> Any:
        readable = options.pop("readable")
        self.asked = {"step": step, **options}
        many, N = len(prompts), options["samples_per_prompt"]
        rewards, judged = (
            (row * N)[:N] if len(row) > N else row * (N // len(row)) for row in (self.rewards, self.judged)
        )
        found = groups(rewards=[rewards] * many, judged=[judged] * many, domains=[p.domain for p in prompts])
        return dataclasses.replace(found, texts={row: (f"response {row}", "") for row in readable})


def test_fractions_count_for_logic_and_instructions_alone() -> None:
    answers: Any = Answers([1.0, 0.9, 0.5, 0.0], [True] * 4)
    accuracy = evaluate(answers, PROMPTS, run_of(RECIPE), 5).scores.accuracy
    assert accuracy == pytest.approx({"math": 0.25, "code": 0.25, "stem": 0.25, "logic": 0.6, "instruct": 0.6})


def test_a_domain_counts_as_the_recipe_says_whatever_stage_is_on() -> None:
    answers: Any = Answers([1.0, 0.9, 0.5, 0.0], [True] * 4)
    domains = tuple(dataclasses.replace(one, accuracy="fraction") for one in RECIPE.domains)
    stage = Stage(from_step=0, why="Run 1", domains=("math",))
    run = run_of(dataclasses.replace(RECIPE, domains=domains, stages=(stage,)))
    assert evaluate(answers, PROMPTS, run, 5).scores.accuracy == pytest.approx(dict.fromkeys(DOMAINS, 0.6))


def test_what_could_not_be_judged_is_not_counted_as_wrong() -> None:
    answers: Any = Answers([1.0, 0.0], [True, False])
    found = evaluate(answers, PROMPTS, dataclasses.replace(run_of(RECIPE), max_unjudged_share=0.5), 5).scores
    assert (set(found.accuracy.values()), found.is_complete) == ({1.0}, True)


def test_without_verdicts_there_is_no_accuracy_and_nothing_is_decided() -> None:
    for judged in ([False, False], [True, False]):  # none, and fewer than run.max_unjudged_share asks for
        found = evaluate(Answers([0.0, 0.0], judged), PROMPTS, run_of(RECIPE), 5).scores  # type: ignore[arg-type]
        assert (found.accuracy, found.is_complete) == ({}, False)
        assert set(found.unjudged.values()) == {1 - sum(judged) / 2}
        before = [Scores(step=step, accuracy={"math": 0.5}) for step in (1, 2)]
        state = dataclasses.replace(State.fresh(), step=5, scores=(*before, found))
        assert not state.newest_is_best
        limits = Stall(patience_validations=3, min_gain=0.01, drop=0.02)
        assert stall(state.scores, 0, limits) is None, "it is neither a drop nor one more validation without a gain"


def test_several_samples_are_drawn_as_the_recipe_says_and_one_is_taken_greedily() -> None:
    answers: Any = Answers([1.0, 0.0], [True, True])
    evaluate(answers, PROMPTS, run_of(RECIPE), 5)
    options = {"step": VALIDATION_STEP, "max_response_tokens": RECIPE.sampling.max_response_tokens}
    assert answers.asked == options | {"samples_per_prompt": 16, "temperature": 0.6, "top_p": 0.95}
    evaluate(answers, PROMPTS, run_of(replaced(RECIPE, ["validation", "samples_per_prompt"], 1)), 5)
    assert answers.asked == options | {"samples_per_prompt": 1, "temperature": 0.0, "top_p": 1.0}


def test_the_samples_to_read_are_of_the_same_prompts_each_time_two_of_a_domain() -> None:
    prompts = [
        dataclasses.replace(prompt, serial=10 * i + prompt.serial, id=f"{prompt.id}-{i}")
        for i in range(4)
        for prompt in PROMPTS
    ]
    answers: Any = Answers([1.0, 0.0], [True, True])
    found = [evaluate(answers, prompts, run_of(RECIPE), step).examples for step in (0, 10)]
    chosen = [[(one.prompt.id, one.sample) for one in examples] for examples in found]
    assert chosen[0] == chosen[1] and len(set(chosen[0])) == 2 * len(DOMAINS)
    assert {one.prompt.domain for one in found[0]} == set(DOMAINS)
    assert all(one.response.startswith("response ") for one in found[0])
