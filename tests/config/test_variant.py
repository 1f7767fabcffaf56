"""Variants of a recipe: another model or fewer domains, under a name of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from megatron_rl.config.checks import UserError
from megatron_rl.config.draws import Difficulty, check_draws
from megatron_rl.config.fit import fitted
from megatron_rl.config.recipe_checks import check_recipe
from megatron_rl.config.variant import domains_of, shortened, variant_of
from recipes.prorl_v1 import RECIPE as PRORL_V1
from recipes.prorl_v2 import RECIPE as PRORL_V2
from recipes.scales import SCALES

TINY = replace(PRORL_V2.model, name="tiny", max_positions=256)


def test_a_variant_has_its_own_name_and_fingerprint_and_keeps_all_other_numbers() -> None:
    variant = variant_of(PRORL_V2, TINY, {"logic": None, "math": None})
    assert variant.name == "prorl_v2_variant" and variant.fingerprint != PRORL_V2.fingerprint
    assert [domain.name for domain in variant.domains] == ["math", "logic"]
    same = replace(variant, name=PRORL_V2.name, model=PRORL_V2.model, domains=PRORL_V2.domains)
    assert same == PRORL_V2


def test_a_stage_of_none_of_the_domains_trains_on_all_of_them() -> None:
    variant = variant_of(PRORL_V1, None, {"instruct": None})
    assert [stage.domains for stage in variant.stages[:3]] == [("instruct",), None, ("instruct",)]
    check_recipe(variant)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("maths", "--domains maths: prorl_v2 has math, .*; did you mean 'math'"),
        ("math,math", "math is there twice; name each one once"),
        ("math=1,math=2", "math is there twice; name each one once"),
        ("math,,logic", "write them as math,logic"),
        ("", "write them as math,logic"),
        ("=2", "write them as math,logic"),
        ("math=much", "the weight of math is 'much'; write a number"),
        ("math=", "the weight of math is ''; write a number"),
        ("math=0,logic=1", "math has weight=0.0: must be above 0, and finite; or none"),
        ("math=nan,logic=1", "math has weight=nan: must be above 0, and finite; or none"),
        ("math=2,logic", "logic has no weight, and others have; give every domain one, or none of them"),
    ],
)
def test_domains_that_cannot_be_meant_are_refused(text: str, pattern: str) -> None:
    with pytest.raises(UserError, match=pattern):
        check_draws(variant_of(PRORL_V2, None, domains_of(text)))


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"memory": 1.0}, r"difficulty.memory=1.0: must lie in \[0, 1\)"),
        ({"easy_rate": 0.0}, r"difficulty.easy_rate=0.0: must lie in \(0, 1\]"),
        ({"min_probability": 0.0}, r"min_probability=0.0: must lie in \(0, 1\]; every prompt is to be met some time"),
        ({"min_probability": 1.5}, r"min_probability=1.5: must lie in \(0, 1\]"),
    ],
)
def test_a_rule_on_difficulty_that_cannot_be_meant_is_refused(changes: dict[str, float], pattern: str) -> None:
    fine = Difficulty(memory=0.5, easy_rate=0.9, min_probability=0.25)
    check_draws(replace(PRORL_V2, sampling=replace(PRORL_V2.sampling, difficulty=fine)))
    with pytest.raises(UserError, match=pattern):
        check_draws(replace(PRORL_V2, sampling=replace(PRORL_V2.sampling, difficulty=replace(fine, **changes))))


def test_limits_are_shortened_to_the_positions_of_a_small_model_and_else_left_alone() -> None:
    scale = SCALES["gpu1"]
    assert shortened(scale, PRORL_V1) is scale
    variant = variant_of(PRORL_V1, TINY, None)
    recipe = fitted(variant, TINY, shortened(scale, variant))
    check_recipe(recipe)
    assert (recipe.sampling.max_prompt_tokens, recipe.sampling.max_response_tokens) == (64, 192)
    assert all((stage.max_response_tokens or 0) <= 192 for stage in recipe.stages)


@pytest.mark.parametrize(("name", "is_known"), [("my_rewards.py:Sum", True), ("history", False), ("a/b.py:Sum", False)])
def test_a_domain_is_one_of_the_five_or_a_class_in_a_file(name: str, is_known: bool) -> None:
    recipe = replace(PRORL_V2, domains=(replace(PRORL_V2.domains[0], name=name),))
    if is_known:
        check_recipe(recipe)
        return
    with pytest.raises(UserError, match="must be one of math, code, .*, or a class as my_rewards.py:Sum"):
        check_recipe(recipe)
