import dataclasses
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.config.fit import fitted
from megatron_rl.config.recipe_checks import check_parent
from megatron_rl.config.records import (
    Correction,
    FormatReward,
    KlSpike,
    Overlong,
    Scale,
    Stage,
    Stall,
    Truncation,
    WrongLength,
    canonical_json,
    differences,
)
from megatron_rl.config.run import Run, batch_algebra
from recipes import brorl, prorl_v1
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


def with_stages(*stages: Stage) -> Any:
    return dataclasses.replace(RECIPE, stages=stages)


def test_batch_algebra_reads_like_the_papers() -> None:
    assert batch_algebra(make_run()) == (
        "512 prompts x 16 samples = 8192 sequences per step; 8 updates of 1024 sequences; 32 data-parallel ranks x 32 "
        "sequences, in microbatches of at most 17408 tokens"
    )


@pytest.mark.parametrize(
    ("part", "changes", "pattern"),
    [
        ("algorithm", {"clip_low": 1.0}, r"algorithm.clip_low=1.0: must lie in \(0, 1\)"),
        ("algorithm", {"clip_high": 0.0}, "algorithm.clip_high=0.0: must be above 0"),
        ("algorithm", {"updates_per_step": 7}, "prompts_per_step=512 does not divide into .*=7"),
        ("algorithm.kl", {"coefficient": -1e-4}, "algorithm.kl.coefficient=-0.0001: must not be below 0"),
        ("algorithm.kl", {"coefficient": float("nan")}, "algorithm.kl.coefficient=nan"),
        ("algorithm", {"dual_clip": 1.0}, "algorithm.dual_clip=1.0: must be above 1"),
        (
            "algorithm",
            {"policy_loss": "cispo", "clip_low": 1.1},
            r"algorithm.clip_low=1.1: must lie in \(0, 1\], where 1",
        ),
        ("algorithm", {"policy_loss": "cispo", "dual_clip": 3.0}, "algorithm.dual_clip=3.0: .* set dual_clip=none"),
        (
            "algorithm",
            {"format_reward": FormatReward(wrong=-1.0, unanswered=1.0)},
            "algorithm.format_reward.unanswered=1.0: must be below 1, what right pays",
        ),
        (
            "algorithm.length",
            {"wrong": WrongLength(eta_at_zero=-10.0, eta_at_limit=float("nan"), eta_beyond=-10.0)},
            "algorithm.length.wrong.eta_at_limit=nan: must be finite",
        ),
        ("algorithm", {"policy_loss": "gspo"}, "loss_aggregation='token_mean': policy_loss='gspo' .* 'sequence_mean'"),
        (
            "algorithm",
            {"loss_aggregation": "constant_length"},
            "loss_divisor_tokens=None: .*'constant_length' needs one",
        ),
        (
            "algorithm",
            {"loss_divisor_tokens": 9},
            "loss_divisor_tokens=9: .*'token_mean' divides by none; set it to none",
        ),
        (
            "algorithm",
            {"loss_aggregation": "constant_length", "loss_divisor_tokens": 0},
            "algorithm.loss_divisor_tokens=0: must be above 0",
        ),
        ("algorithm", {"advantage": "leave_one_out", "statistics_over": "tokens"}, "has no batch statistics; use 'sa"),
        ("algorithm", {"correction": Correction(method="icepop", low=2.0, high=1.0)}, "low=2.0, high=1.0 must satisfy"),
        (
            "algorithm",
            {"truncation": Truncation(how="multiply", value=-0.5)},
            r"algorithm.truncation.value=-0.5: a factor must lie in \[0, 1\]; for a reward use how='replace'",
        ),
        (
            "algorithm",
            {"truncation": Truncation(how="replace", value=0.0), "overlong": Overlong(buffer_tokens=9, factor=1.0)},
            "algorithm.truncation and algorithm.overlong both punish the same responses; set one",
        ),
        ("algorithm", {"overlong": Overlong(buffer_tokens=9000, factor=1.0)}, "buffer_tokens=9000: must lie in"),
        ("algorithm", {"overlong": Overlong(buffer_tokens=9, factor=-1.0)}, "algorithm.overlong.factor=-1.0: must be"),
        ("algorithm", {"kl": None}, "without algorithm.kl nothing is held to a reference"),
        ("algorithm.kl", {"value_clamp": 0.0}, "algorithm.kl.value_clamp=0.0: must be above 0"),
        (
            "algorithm.reference_reset",
            {"period_steps": None, "kl_spike": None, "stall": None},
            "algorithm.reference_reset: has no reason to happen",
        ),
        ("algorithm.reference_reset", {"min_steps_between": 301}, "min_steps_between=301: must not be above period_st"),
        ("algorithm.reference_reset", {"min_steps_between": 0}, "min_steps_between=0: must be above 0"),
        (
            "algorithm.reference_reset",
            {"kl_spike": KlSpike(ratio=1.0, window_steps=2, min_history_steps=2)},
            "kl_spike.ratio=1.0: must be above 1",
        ),
        (
            "algorithm.reference_reset",
            {"kl_spike": KlSpike(ratio=2.0, window_steps=2, min_history_steps=3)},
            r"min_history_steps=3: must lie in \[1, window_steps=2\]",
        ),
        (
            "algorithm.reference_reset",
            {"stall": Stall(patience_validations=0, min_gain=0.0, drop=0.1)},
            "stall.patience_validations=0: must be above 0",
        ),
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
    with pytest.raises(ValueError, match=pattern) as caught:
        make_run(altered(part, **changes))
    assert "\n" not in str(caught.value)


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
        ({"max_tokens_per_microbatch": 9215}, "cannot hold one sequence of 9216 tokens"),
        ({"sequences_per_wave": 0}, "sequences_per_wave=0 must be at least 1"),
    ],
)
def test_a_layout_that_does_not_divide_is_rejected(changes: dict[str, Any], pattern: str) -> None:
    with pytest.raises(ValueError, match=f"scale 'h100x32': .*{pattern}"):
        make_run(scale=dataclasses.replace(H100X32, **changes))


@pytest.mark.parametrize(
    "field",
    ["validate_every_steps", "save_every_steps", "checkpoints_kept", "max_steps_without_update", "stall_seconds"],
)
def test_an_operational_field_of_zero_is_rejected(field: str) -> None:
    with pytest.raises(ValueError, match=f"run.{field}=0"):
        make_run(**{field: 0})


def test_only_checkpoints_that_are_made_can_be_kept_for_ever() -> None:
    assert make_run(save_every_steps=50, keep_every_steps=200).keep_every_steps == 200
    for every in (0, -50, 70):
        with pytest.raises(ValueError, match=f"run.keep_every_steps={every}: must be a multiple of .*=50; no other"):
            make_run(save_every_steps=50, keep_every_steps=every)


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
    with pytest.raises(ValueError, match=r"stages: from_step \[20, 10\] must increase"):
        make_run(dataclasses.replace(recipe, stages=stages[::-1]))


@pytest.mark.parametrize(
    ("stages", "pattern"),
    [
        ([Stage(from_step=3000, why="late")], "stage at step 3000: lies outside num_steps=3000; raise num_steps"),
        ([Stage(from_step=5, why="cold", temperature=0.0)], "stage at step 5: temperature=0.0: must be above 0"),
        ([Stage(from_step=-1, why="early")], "stage at step -1: lies outside num_steps=3000"),
        ([Stage(from_step=5, why="a"), Stage(from_step=5, why="b")], r"from_step \[5, 5\] must increase"),
        ([Stage(from_step=5, why="", domains=("maths",))], "domain 'maths' is none of the recipe's; it has math, code"),
        ([Stage(from_step=5, why="", domains=())], "leaves nothing to train on"),
        ([Stage(from_step=5, why="", samples_per_prompt=0)], "samples_per_prompt=0 must be at least 1"),
        ([Stage(from_step=5, why="", samples_per_prompt=1)], "stage at step 5: sampling.samples_per_prompt=1: a group"),
        ([Stage(from_step=5, why="", max_response_tokens=131072)], "stage at step 5: .* do not fit into the 131072"),
        (
            [Stage(from_step=5, why="", truncation=Truncation(how="multiply", value=2.0))],
            r"stage at step 5: algorithm.truncation.value=2.0: a factor must lie in \[0, 1\]",
        ),
        ([Stage(from_step=0, why="", resets_reference=True)], "the reference is the policy there"),
    ],
)
def test_a_stage_that_can_not_be_meant_is_rejected(stages: list[Stage], pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern) as caught:
        make_run(with_stages(*stages))
    assert "\n" not in str(caught.value)


def test_a_stage_that_resets_needs_to_know_how() -> None:
    recipe = dataclasses.replace(
        altered("algorithm", reference_reset=None), stages=(Stage(from_step=5, why="", resets_reference=True),)
    )
    with pytest.raises(ValueError, match=r"stage at step 5: resets_reference needs algorithm.reference_reset"):
        make_run(recipe)


def test_a_stage_can_bring_a_contradiction_that_the_recipe_has_not() -> None:
    recipe = altered("algorithm", overlong=Overlong(buffer_tokens=9, factor=1.0))
    make_run(recipe)
    stage = Stage(from_step=7, why="", truncation=Truncation(how="multiply", value=0.0))
    with pytest.raises(ValueError, match="stage at step 7: algorithm.truncation and algorithm.overlong both"):
        make_run(dataclasses.replace(recipe, stages=(stage,)))


def test_domains_and_truncation_follow_the_stages() -> None:
    truncation = Truncation(how="multiply", value=0.0)
    recipe = with_stages(
        Stage(from_step=0, why="two", domains=("math", "logic")),
        Stage(from_step=10, why="punished", truncation=truncation),
        Stage(from_step=20, why="one", domains=("stem",)),
    )

    def at(step: int) -> tuple[tuple[str, ...], Any]:
        found = recipe.at_step(step)
        return tuple(domain.name for domain in found.domains), found.algorithm.truncation

    assert [at(step) for step in (0, 9, 10, 20)] == [
        (("math", "logic"), None),
        (("math", "logic"), None),
        (("math", "logic"), truncation),
        (("stem",), truncation),
    ]
    assert [stage and stage.why for stage in map(recipe.stage_at, (0, 9, 10, 25))] == ["two", "two", "punished", "one"]
    assert RECIPE.stage_at(7) is None


def test_a_stage_is_capped_and_its_length_is_checked() -> None:
    long = with_stages(Stage(from_step=2000, why="context", max_response_tokens=16385))
    with pytest.raises(ValueError, match="cannot hold one sequence of 17409 tokens"):
        make_run(long)
    short = fitted(long, RECIPE.model, CPU)
    assert short.stages == (Stage(from_step=100, why="context", max_response_tokens=24),)


def test_a_miniature_divides_every_span_and_keeps_every_count() -> None:
    recipe = dataclasses.replace(
        altered(
            "algorithm",
            overlong=Overlong(buffer_tokens=4096, factor=1.0),
            reference_reset=dataclasses.replace(RECIPE.algorithm.reference_reset, min_steps_between=7),
        ),
        stages=(Stage(from_step=0, why=""), Stage(from_step=3, why=""), Stage(from_step=200, why="")),
        optimizer=dataclasses.replace(RECIPE.optimizer, warmup_steps=60),
    )
    short = fitted(recipe, RECIPE.model, CPU)
    reset, length = short.algorithm.reference_reset, short.algorithm.length
    assert (reset.period_steps, reset.min_steps_between) == (15, 1)
    assert (reset.kl_spike.window_steps, reset.kl_spike.min_history_steps) == (5, 2)
    assert reset.stall == recipe.algorithm.reference_reset.stall
    assert (length.steps_on, length.steps_off) == (5, 25)
    assert [stage.from_step for stage in short.stages] == [0, 1, 10]
    assert (short.num_steps, short.optimizer.warmup_steps) == (150, 3)
    assert short.algorithm.overlong == Overlong(buffer_tokens=12, factor=1.0)  # half of the limit, as before
    assert fitted(RECIPE, RECIPE.model, CPU).optimizer.warmup_steps == 0
    runs = fitted(prorl_v1.RECIPE, RECIPE.model, CPU).stages
    assert [stage.samples_per_prompt for stage in runs] == [None] * 5 + [16, None, 16]
    assert [stage.max_response_tokens for stage in runs] == [None] * 7 + [24]


def test_a_scale_changes_sizes_and_spans_and_nothing_else() -> None:
    allowed = {
        "algorithm.updates_per_step",
        "algorithm.length.steps_on",
        "algorithm.length.steps_off",
        "algorithm.reference_reset.period_steps",
        "algorithm.reference_reset.min_steps_between",
        "algorithm.reference_reset.kl_spike.window_steps",
        "algorithm.reference_reset.kl_spike.min_history_steps",
        "num_steps",
        "optimizer.learning_rate",
        "optimizer.warmup_steps",
        "sampling.prompts_per_step",
        "sampling.samples_per_prompt",
        "sampling.max_prompt_tokens",
        "sampling.max_response_tokens",
        "stages",
        "validation.samples_per_prompt",
    }
    for module in (brorl, prorl_v1):
        old, new = (dataclasses.asdict(r) for r in (module.RECIPE, fitted(module.RECIPE, module.RECIPE.model, CPU)))
        assert {line.partition(":")[0] for line in differences(old, new)} <= allowed


@pytest.mark.parametrize(
    ("recipe", "parent", "pattern"),
    [
        (
            brorl.RECIPE,
            None,
            "recipe 'brorl': continues a run of 'prorl_v2'; give that run's directory, or the",
        ),
        (brorl.RECIPE, "prorl_v1 1.2.0", "continues a run of 'prorl_v2', but the parent is one of 'prorl_v1 1.2.0'"),
        (brorl.RECIPE, "prorl_v22 1.0.0", "but the parent is one of 'prorl_v22 1.0.0'"),
        (RECIPE, "prorl_v1 1.2.0", "starts from model deepseek-ai/.*, not from a run of 'prorl_v1 1.2.0'; leave"),
    ],
)
def test_a_wrong_parent_is_refused(recipe: Any, parent: str | None, pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern) as caught:
        check_parent(recipe, parent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("parent", ["prorl_v2 2.1.0", "prorl_v2 2.1.0", "prorl_v2_clip27 1.1.0"])
def test_a_parent_or_its_variant_is_accepted(parent: str) -> None:
    check_parent(brorl.RECIPE, parent)
    check_parent(RECIPE, None)


def test_a_scale_caps_and_never_raises() -> None:
    caps = dataclasses.replace(H100X8.caps, samples_per_prompt=8, prompts_per_step=10_000)
    short = fitted(RECIPE, RECIPE.model, dataclasses.replace(H100X8, caps=caps))
    assert (short.sampling.samples_per_prompt, short.sampling.prompts_per_step) == (8, 512)
    unchanged = dataclasses.replace(short, sampling=RECIPE.sampling)
    assert unchanged == RECIPE


def test_differences_name_the_path() -> None:
    old, new = {"a": {"b": 1, "c": 2}, "d": None}, {"a": {"b": 1, "c": 3}, "d": {"e": 1}}
    assert differences(old, new) == ["a.c: 2 -> 3", "d: None -> {'e': 1}"]


def test_the_fingerprint_depends_on_nothing_but_the_values() -> None:
    assert canonical_json(RECIPE) == canonical_json(dataclasses.replace(RECIPE))
    assert RECIPE.fingerprint == dataclasses.replace(RECIPE).fingerprint
    assert len(RECIPE.fingerprint) == 16


def test_why_a_stage_begins_is_no_value_and_when_is() -> None:
    stage = Stage(from_step=5, why="one")
    fingerprints = [
        with_stages(changed).fingerprint
        for changed in (stage, dataclasses.replace(stage, why="two"), dataclasses.replace(stage, from_step=6))
    ]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


@pytest.mark.parametrize("seed", [-1, 2**32, 2**40])
def test_a_seed_that_numpy_does_not_take_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"run.seed={seed}: must lie in "):
        make_run(seed=seed)
    assert make_run(seed=2**32 - 1).seed == 2**32 - 1


def test_a_stage_brings_its_temperature_and_a_later_one_keeps_it() -> None:
    """Polaris raises it stage by stage."""
    stages = [
        Stage(from_step=10, why="warmer", temperature=1.3),
        Stage(from_step=20, why="more", samples_per_prompt=32),
    ]
    recipe = with_stages(*stages)
    assert [recipe.at_step(step).sampling.temperature for step in (0, 9, 10, 25)] == [1.0, 1.0, 1.3, 1.3]
    plain = with_stages(dataclasses.replace(stages[0], temperature=None, samples_per_prompt=16), stages[1])
    assert plain.fingerprint != recipe.fingerprint
