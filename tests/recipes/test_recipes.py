import dataclasses
import importlib
import io
import json
import pkgutil
import re
import tokenize
from pathlib import Path

import pytest

import recipes
from megatron_rl.checks import check_layout, check_recipe, check_scale
from megatron_rl.config import Recipe
from recipes.scales import SCALES

FOLDER = Path(recipes.__file__).parent
NAMES = [module.name for module in pkgutil.iter_modules([str(FOLDER)]) if module.name != "scales"]
RELEASED = json.loads((Path(__file__).parent / "released.json").read_text())
TAGS = re.findall(r"^([A-Z][A-Z0-9]+) {2,}", recipes.__doc__ or "", re.MULTILINE)


def recipe(name: str) -> Recipe:
    return importlib.import_module(f"recipes.{name}").RECIPE


def untagged_numbers(source: str, tags: list[str]) -> list[int]:
    """Lines with a number whose comment does not start with a tag or `chosen:`; no tags: with no comment."""
    numbers, comments = set(), {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NUMBER:
            numbers.add(token.start[0])
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.removeprefix("#").strip()
    pattern = rf"({'|'.join(tags)})\b|chosen: \w" if tags else r"\w"
    return sorted(line for line in numbers if not re.match(pattern, comments.get(line, "")))


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_a_recipe_has_a_source(name: str) -> None:
    assert untagged_numbers((FOLDER / f"{name}.py").read_text(), TAGS) == []


def test_every_number_of_a_scale_has_a_reason() -> None:
    assert untagged_numbers((FOLDER / "scales.py").read_text(), []) == []


def test_a_number_without_a_source_is_found() -> None:
    source = "a = 1  # B2\nb = 2\nc = 3  # because\nd = 4  # chosen: it is even\ne = 'none'\n"
    assert untagged_numbers(source, TAGS) == [2, 3]
    assert untagged_numbers(source, []) == [2]


def test_the_tags_have_a_legend() -> None:
    assert {"P1", "B2", "BR", "DL", "NR", "OR", "HF", "MC", "RF"} <= set(TAGS)


@pytest.mark.parametrize("release", RELEASED)
def test_a_released_recipe_never_changes(release: str) -> None:
    name, version = release.split()
    if recipe(name).version == version:
        assert recipe(name).fingerprint == RELEASED[release]


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_released_under_its_own_name(name: str) -> None:
    assert recipe(name).name == name
    assert recipe(name).release in RELEASED


def test_a_changed_value_changes_the_fingerprint() -> None:
    old = recipe("prorl_v2")
    new = dataclasses.replace(old, optimizer=dataclasses.replace(old.optimizer, learning_rate=2e-6))
    assert new.fingerprint != old.fingerprint


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [scale for scale in SCALES.values() if scale.miniature is None], ids=lambda s: s.name)
def test_every_recipe_fits_every_cluster_scale(name: str, scale) -> None:
    fitted = scale.fit(recipe(name), recipe(name).model)
    check_scale(scale)
    check_recipe(fitted)
    check_layout(fitted, scale)


def test_a_cluster_scale_leaves_the_published_algorithm_as_it_is() -> None:
    published = recipe("prorl_v2")
    for name in ("h100x8", "h100x32", "h100x64"):
        assert SCALES[name].fit(published, published.model).fingerprint == published.fingerprint


def test_the_laptop_scale_shrinks_every_span_of_steps_alike() -> None:
    fitted = SCALES["cpu"].fit(recipe("prorl_v2"), recipe("prorl_v2").model)
    length = fitted.algorithm.length
    assert length is not None
    spans = (fitted.num_steps, fitted.algorithm.reference_reset.period_steps, length.steps_on, length.steps_off)
    assert spans == (150, 15, 5, 25)
    assert SCALES["cpu"].fit(recipe("prorl_v2"), fitted.model) == SCALES["cpu_tp2_pp2"].fit(
        recipe("prorl_v2"), fitted.model
    )


def test_prorl_v2_is_the_published_one() -> None:
    # Restated from the blog (clip, clamp, cycle, context), BroRL's Table 1 (batch) and the model card (parameters).
    algorithm, sampling = recipe("prorl_v2").algorithm, recipe("prorl_v2").sampling
    assert (algorithm.clip_low, algorithm.clip_high, algorithm.kl.log_ratio_clamp) == (0.2, 0.28, 10.0)
    assert algorithm.length is not None and (algorithm.length.steps_on, algorithm.length.steps_off) == (100, 500)
    assert (sampling.prompts_per_step, sampling.samples_per_prompt, sampling.max_response_tokens) == (512, 16, 8192)
    assert recipe("prorl_v2").model.num_parameters == 28 * 46_797_824 + 2 * 233_373_696 + 1536
    assert sum(domain.num_prompts for domain in recipe("prorl_v2").domains) == 136_000
