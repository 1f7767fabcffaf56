import dataclasses
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.config import Run, Scale, Stage, batch_algebra, canonical_json, differences
from recipes.prorl_v2 import RECIPE
from recipes.scales import CPU, H100X8, H100X32


def make_run(recipe: Any = RECIPE, scale: Scale = H100X32, **fields: Any) -> Run:
    paths = {name: Path("x") for name in ("directory", "model_folder", "data_folder")}
    return Run(recipe=recipe, published=RECIPE, scale=scale, **paths, **fields)


def altered(part: str, **changes: Any) -> Any:
    """The recipe with changes in one of its records, two levels down at most."""
    outer, _, inner = part.partition(".")
    record = getattr(RECIPE, outer)
    record = (
        dataclasses.replace(record, **{inner: dataclasses.replace(getattr(record, inner), **changes)})
        if inner
        else dataclasses.replace(record, **changes)
    )
    return dataclasses.replace(RECIPE, **{outer: record})


def test_batch_algebra_reads_like_the_papers() -> None:
    assert batch_algebra(make_run()) == (
        "512 prompts x 16 samples = 8192 sequences per step; 8 updates of 1024 sequences; 32 data-parallel ranks x 32 "
        "sequences, in microbatches of at most 12288 tokens"
    )


@pytest.mark.parametrize(
    ("part", "changes", "pattern"),
    [
        ("algorithm", {"clip_low": 1.0}, r"algorithm.clip_low=1.0: must lie in \(0, 1\)"),
        ("algorithm", {"clip_high": 0.0}, "algorithm.clip_high=0.0: must be above 0"),
        ("algorithm", {"updates_per_step": 7}, "prompts_per_step=512 does not divide into .*=7"),
        ("algorithm.kl", {"coefficient": -1e-4}, "algorithm.kl.coefficient=-0.0001: must not be below 0"),
        ("algorithm.kl", {"coefficient": float("nan")}, "algorithm.kl.coefficient=nan"),
        ("algorithm.length", {"steps_on": 0}, "algorithm.length.steps_on=0: must be at least 1"),
        ("algorithm.reference_reset", {"period_steps": 0}, "period_steps=0: must be above 0"),
        ("sampling", {"samples_per_prompt": 1}, "a group needs at least 2"),
        ("sampling", {"temperature": float("inf")}, "sampling.temperature=inf"),
        ("sampling", {"top_p": 0.95}, "use 1.0"),
        ("sampling", {"max_response_tokens": 131072}, "do not fit into the 131072 positions"),
        ("validation", {"top_p": 0.0}, "validation.top_p=0.0"),
        ("optimizer", {"beta2": 1.0}, r"optimizer.beta2=1.0: must lie in \[0, 1\)"),
        ("optimizer", {"learning_rate": 0.0}, "optimizer.learning_rate=0.0: must be above 0"),
        ("optimizer", {"weight_decay": -0.1}, "optimizer.weight_decay=-0.1: must not be below 0"),
    ],
)
def test_a_recipe_that_can_not_be_meant_is_rejected(part: str, changes: dict[str, Any], pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern):
        make_run(altered(part, **changes))


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"tensor_parallel": 3}, "32 ranks do not divide into tensor_parallel=3 x pipeline_parallel=1; use a multiple"),
        ({"tensor_parallel": 4}, "num_kv_heads=2 of model .* does not divide into tensor_parallel=4"),
        ({"pipeline_parallel": 8}, "num_layers=28 of model .* does not divide into pipeline_parallel=8 x"),
        ({"pipeline_parallel": 4, "virtual_pipeline": 2}, "num_layers=28 .* virtual_pipeline=2"),
        ({"virtual_pipeline": 2}, "virtual_pipeline=2 interleaves pipeline stages"),
        ({"sequence_parallel": True}, "use tensor_parallel of 2 or more"),
        ({"rollout_tensor_parallel": 3}, "an engine stays within its node"),
        ({"max_tokens_per_microbatch": 9215}, "can not hold one sequence of 9216 tokens"),
        ({"sequences_per_wave": 0}, "sequences_per_wave=0 must be at least 1"),
    ],
)
def test_a_layout_that_does_not_divide_is_rejected(changes: dict[str, Any], pattern: str) -> None:
    with pytest.raises(ValueError, match=f"scale 'h100x32': .*{pattern}"):
        make_run(scale=dataclasses.replace(H100X32, **changes))


@pytest.mark.parametrize("field", ["validate_every_steps", "save_every_steps", "checkpoints_kept", "stall_seconds"])
def test_an_operational_field_of_zero_is_rejected(field: str) -> None:
    with pytest.raises(ValueError, match=f"run.{field}=0"):
        make_run(**{field: 0})


def test_stages_change_the_recipe_from_their_step_on() -> None:
    stages = (
        Stage(from_step=10, why="more samples", samples_per_prompt=32),
        Stage(from_step=20, why="longer answers", samples_per_prompt=16, max_response_tokens=10240),
    )
    recipe = dataclasses.replace(RECIPE, stages=stages)
    run = make_run(recipe)

    def at(step: int) -> tuple[int, int]:
        return run.at_step(step).sampling.samples_per_prompt, run.at_step(step).sampling.max_response_tokens

    assert [at(step) for step in (0, 9, 10, 19, 20)] == [
        (16, 8192),
        (16, 8192),
        (32, 8192),
        (32, 8192),
        (16, 10240),
    ]
    with pytest.raises(ValueError, match="must not decrease"):
        make_run(dataclasses.replace(recipe, stages=stages[::-1]))


def test_a_stage_is_capped_and_its_length_is_checked() -> None:
    long = dataclasses.replace(RECIPE, stages=(Stage(from_step=2000, why="context", max_response_tokens=16384),))
    with pytest.raises(ValueError, match="can not hold one sequence of 17408 tokens"):
        make_run(long)
    fitted = CPU.fit(long, RECIPE.model)
    assert fitted.stages == (Stage(from_step=100, why="context", max_response_tokens=24),)


def test_a_scale_caps_and_never_raises() -> None:
    caps = dataclasses.replace(H100X8.caps, samples_per_prompt=8, prompts_per_step=10_000)
    fitted = dataclasses.replace(H100X8, caps=caps).fit(RECIPE, RECIPE.model)
    assert (fitted.sampling.samples_per_prompt, fitted.sampling.prompts_per_step) == (8, 512)
    unchanged = dataclasses.replace(fitted, sampling=RECIPE.sampling)
    assert unchanged == RECIPE


def test_differences_name_the_path() -> None:
    old, new = {"a": {"b": 1, "c": 2}, "d": None}, {"a": {"b": 1, "c": 3}, "d": {"e": 1}}
    assert differences(old, new) == ["a.c: 2 -> 3", "d: None -> {'e': 1}"]


def test_the_fingerprint_depends_on_nothing_but_the_values() -> None:
    assert canonical_json(RECIPE) == canonical_json(dataclasses.replace(RECIPE))
    assert RECIPE.fingerprint == dataclasses.replace(RECIPE).fingerprint
    assert len(RECIPE.fingerprint) == 16
