import dataclasses
import io
import json
import math
import random
import re
import statistics
import tokenize
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import recipes
import recipes.mixtures
from megatron_rl.algorithms.reference import reset_reason
from megatron_rl.commands.check import leaves
from megatron_rl.commands.choose import find_recipe as recipe
from megatron_rl.commands.choose import recipe_files
from megatron_rl.config.fit import fitted
from megatron_rl.config.recipe_checks import check_parent
from megatron_rl.config.records import Recipe, Scale, differences
from megatron_rl.config.run import Run, batch_algebra
from megatron_rl.estimate.memory import estimate
from megatron_rl.types import Scores, State
from recipes.mixtures.justrl import MIXTURE as JUSTRL_PROMPTS
from recipes.mixtures.prorl import MIXTURE as PRORL_PROMPTS
from recipes.scales import SCALES

FOLDER = Path(recipes.__file__).parent
FILES = recipe_files()
PUBLISHED = [name for name, path in FILES.items() if path.parent == FOLDER]
VARIANTS = [name for name in FILES if name not in PUBLISHED]
RELEASED = json.loads((FOLDER / "released.json").read_text())
TAGS = re.findall(r"^([A-Z][A-Z0-9]+) {2,}", recipes.__doc__ or "", re.MULTILINE)


def run_at(scale: Scale, published: Recipe) -> Run:
    folders = {name: Path("x") for name in ("directory", "model_folder", "data_folder")}
    return Run(recipe=fitted(published, published.model, scale), published=published, scale=scale, **folders)


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


@pytest.mark.parametrize("name", FILES)
def test_every_number_of_a_recipe_has_a_source(name: str) -> None:
    assert untagged_numbers(FILES[name].read_text(), TAGS) == []


def test_every_number_of_a_scale_has_a_reason() -> None:
    assert untagged_numbers((FOLDER / "scales.py").read_text(), []) == []


def test_a_number_without_a_source_is_found() -> None:
    source = "a = 1  # B2\nb = 2\nc = 3  # because\nd = 4  # chosen: it is even\ne = 'none'\n"
    assert untagged_numbers(source, TAGS) == [2, 3]
    assert untagged_numbers(source, []) == [2]


def test_the_tags_have_a_legend() -> None:
    assert len(TAGS) == len(set(TAGS))
    used = "".join(path.read_text() for path in [*FILES.values(), FOLDER / "models.py", FOLDER / "domains.py"])
    for tag in TAGS:
        assert re.search(rf"\b{tag}\b", used), f"{tag} is explained and used nowhere"
        assert "https://" in re.search(rf"^{tag} {{2,}}(.+)$", recipes.__doc__ or "", re.MULTILINE)[1], tag


@pytest.mark.parametrize("release", RELEASED)
def test_a_released_recipe_never_changes(release: str) -> None:
    name, version = release.split()
    if recipe(name).version == version:
        assert recipe(name).fingerprint == RELEASED[release]


@pytest.mark.parametrize("name", FILES)
def test_every_recipe_is_released_under_its_own_name(name: str) -> None:
    assert recipe(name).name == name
    assert recipe(name).release in RELEASED


def base_of(variant: str) -> str:
    """The recipe that a variant is named after."""
    return max((name for name in PUBLISHED if variant.startswith(f"{name}_")), key=len)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_named_after_the_recipe_it_changes_and_changes_little(name: str) -> None:
    base = base_of(name)
    lines = differences(dataclasses.asdict(recipe(base)), dataclasses.asdict(recipe(name)))
    changed = {line.split(":")[0] for line in lines} - {"name", "version"}
    assert 1 <= len(changed) <= 3, changed


@pytest.mark.parametrize("name", [name for name in PUBLISHED if recipe(name).algorithm.kl is not None])
def test_every_recipe_with_a_reference_has_a_form_without_one(name: str) -> None:
    old, new = recipe(name), recipe(f"{name}_reference_free")
    assert new.algorithm == replace(old.algorithm, kl=None, reference_reset=None)
    assert new.stages == tuple(replace(stage, resets_reference=False) for stage in old.stages)
    assert estimate(run_at(SCALES["h100x64"], old)).reference > 0
    memory = estimate(run_at(SCALES["h100x64"], new))
    assert memory.reference == memory.set_aside == 0


def test_a_changed_value_changes_the_fingerprint() -> None:
    old = recipe("prorl_v2")
    new = dataclasses.replace(old, optimizer=dataclasses.replace(old.optimizer, learning_rate=2e-6))
    assert new.fingerprint != old.fingerprint


# Its two heads of keys divide over two ranks at most; tests/estimate holds the scales of larger models.
FOR_1_5B = [scale for scale in SCALES.values() if scale.tensor_parallel <= 2]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("scale", FOR_1_5B, ids=lambda scale: scale.name)
def test_every_recipe_is_a_run_at_every_scale(name: str, scale: Scale) -> None:
    run = run_at(scale, recipe(name))  # raises where it is not
    assert run.at_step(run.recipe.num_steps - 1).sampling.samples_per_prompt >= 2


@pytest.mark.parametrize("name", FILES)
def test_every_recipe_can_be_shown_field_by_field(name: str) -> None:
    shown = dict(leaves(dataclasses.asdict(recipe(name))))
    assert shown["sampling.prompts_per_step"] == recipe(name).sampling.prompts_per_step
    assert not any(isinstance(value, dict) for value in shown.values())


def test_the_batches_are_the_papers() -> None:
    expected = {
        "prorl_v1": ("h100x32", "256 prompts x 16 samples = 4096 sequences per step; 4 updates of 1024 sequences"),
        "prorl_v2": ("h100x32", "512 prompts x 16 samples = 8192 sequences per step; 8 updates of 1024 sequences"),
        "brorl": ("h100x64", "128 prompts x 512 samples = 65536 sequences per step; 8 updates of 8192 sequences"),
        "brorl_control_n16": (
            "h100x64",
            "512 prompts x 16 samples = 8192 sequences per step; 8 updates of 1024 sequences",
        ),
        "dler": ("h100x32", "512 prompts x 16 samples = 8192 sequences per step; 8 updates of 1024 sequences"),
        "justrl": ("h100x32", "256 prompts x 8 samples = 2048 sequences per step; 4 updates of 512 sequences"),
        "olmo3_rl_zero": ("h100x32", "32 prompts x 8 samples = 256 sequences per step; 1 update of 256 sequences"),
        "grpo_control": ("h100x32", "256 prompts x 8 samples = 2048 sequences per step; 4 updates of 512 sequences"),
    }
    assert set(expected) == set(PUBLISHED)
    for name, (scale, text) in expected.items():
        assert batch_algebra(run_at(SCALES[scale], recipe(name))).startswith(text)


def test_a_cluster_scale_leaves_the_published_algorithm_as_it_is() -> None:
    for published in map(recipe, FILES):
        for name in ("h100x8", "h100x32", "h100x64"):
            assert fitted(published, published.model, SCALES[name]).fingerprint == published.fingerprint


def test_the_laptop_scale_shrinks_every_span_of_steps_alike() -> None:
    shortened = fitted(recipe("prorl_v2"), recipe("prorl_v2").model, SCALES["cpu"])
    length = shortened.algorithm.length
    assert length is not None
    spans = (shortened.num_steps, shortened.algorithm.reference_reset.period_steps, length.steps_on, length.steps_off)
    assert spans == (150, 15, 5, 25)
    assert shortened == fitted(recipe("prorl_v2"), shortened.model, SCALES["cpu_tp2_pp2"])


def test_prorl_v2_is_the_published_one() -> None:
    # Restated from the blog (clip, clamp, cycle, context), BroRL's Table 1 (batch) and the model card (parameters).
    algorithm, sampling = recipe("prorl_v2").algorithm, recipe("prorl_v2").sampling
    assert (algorithm.clip_low, algorithm.clip_high, algorithm.kl.log_ratio_clamp) == (0.2, 0.28, 10.0)
    assert algorithm.length is not None and (algorithm.length.steps_on, algorithm.length.steps_off) == (100, 500)
    assert (sampling.prompts_per_step, sampling.samples_per_prompt, sampling.max_response_tokens) == (512, 16, 8192)
    assert recipe("prorl_v2").model.num_parameters == 28 * 46_797_824 + 2 * 233_373_696 + 1536
    assert sum(domain.num_prompts for domain in recipe("prorl_v2").domains) == 136_000


def test_prorl_v1_is_the_published_one() -> None:
    # Restated from section 3.2 (optimizer, sampling, clip), section 2.3.1 (reset) and Appendix E (the eight runs).
    v1 = recipe("prorl_v1")
    algorithm, reset = v1.algorithm, v1.algorithm.reference_reset
    assert (algorithm.clip_low, algorithm.clip_high, algorithm.advantage) == (0.2, 0.4, "group_mean_and_std")
    assert (v1.optimizer.learning_rate, v1.sampling.temperature, v1.num_steps) == (2e-6, 1.2, 2000)
    assert reset is not None and reset.stall is not None
    assert (reset.period_steps, reset.kl_spike, reset.clears_optimizer) == (None, None, True)
    runs = [v1.at_step(stage.from_step) for stage in v1.stages]
    assert [run.sampling.samples_per_prompt for run in runs] == [16] * 5 + [32, 32, 16]
    assert [run.sampling.max_response_tokens for run in runs] == [8192] * 7 + [16384]
    assert [len(run.domains) for run in runs] == [4, 4, 5, 5, 5, 5, 5, 5]
    assert [run.algorithm.truncation is not None for run in runs] == [False] * 3 + [True] * 5
    assert [stage.resets_reference for stage in v1.stages] == [number in (2, 6, 7) for number in range(1, 9)]
    assert v1.num_steps - v1.stages[-1].from_step == 200


def test_brorl_is_prorl_v2_with_more_samples() -> None:
    # Restated from its experiments and Table 1: 16 -> 512 samples, 512 -> 128 prompts, as many updates, 16,384 tokens.
    old, new = recipe("prorl_v2"), recipe("brorl")
    changed = {line.split(":")[0] for line in differences(dataclasses.asdict(old), dataclasses.asdict(new))}
    assert changed == {
        "name",
        "version",
        "starts_from",
        "num_steps",
        "algorithm.correction",
        "algorithm.length",
        "algorithm.reference_reset.kl_spike",
        "algorithm.reference_reset.min_steps_between",
        "algorithm.reference_reset.period_steps",
        "algorithm.reference_reset.stall",
        "optimizer.learning_rate",
        "sampling.max_response_tokens",
        "sampling.prompts_per_step",
        "sampling.samples_per_prompt",
    }
    sizes = [found.sampling.prompts_per_step * found.sampling.samples_per_prompt for found in (old, new)]
    assert new.optimizer.learning_rate == pytest.approx(
        old.optimizer.learning_rate * math.sqrt(sizes[1] / sizes[0]), rel=1e-3
    )


def test_brorl_and_its_control_differ_in_what_is_compared_alone() -> None:
    old, new = recipe("brorl_control_n16"), recipe("brorl")
    changed = {line.split(":")[0] for line in differences(dataclasses.asdict(old), dataclasses.asdict(new))}
    assert changed == {
        "name",
        "version",
        "num_steps",
        "algorithm.reference_reset.min_steps_between",
        "algorithm.reference_reset.period_steps",
        "optimizer.learning_rate",
        "sampling.prompts_per_step",
        "sampling.samples_per_prompt",
    }
    check_parent(old, recipe("prorl_v2").release)


@pytest.mark.parametrize("gain", [0.0, 0.0025, 0.005, 0.0085, 0.013])  # of the mean accuracy in a hundred steps
def test_the_rule_of_prorl_v1_adds_at_most_one_hard_reset_to_the_papers_three(gain: float) -> None:
    """By simulation: validation every 10 steps, accuracy rising steadily, a noise of 0.004; the median of nine runs."""
    v1, found = recipe("prorl_v1"), []
    for seed in range(9):
        draw, state, extra = random.Random(seed), State.fresh(), 0
        for step in range(0, v1.num_steps, 10):
            state = dataclasses.replace(state, step=step)
            accuracy = {"math": 0.4 + gain * step / 100 + draw.gauss(0, 0.004)}
            state = state.with_scores(Scores(step=step, accuracy=accuracy))
            staged = [stage for stage in v1.stages if stage.resets_reference and step - 10 < stage.from_step <= step]
            if staged:
                state = state.with_reset("stage")
            elif reason := reset_reason(state, v1):
                state, extra = state.with_reset(reason), extra + 1
        assert sum(reset.reason == "stage" for reset in state.reference_resets) == 3
        found.append(extra)
    assert statistics.median(found) <= 1, found


def test_the_lineage_is_v1_v2_brorl() -> None:
    check_parent(recipe("brorl"), recipe("prorl_v2").release)
    check_parent(recipe("brorl"), recipe("prorl_v2_after_v1").release)
    check_parent(recipe("prorl_v2_after_v1"), recipe("prorl_v1").release)
    assert recipe("prorl_v2_after_v1").num_steps + recipe("prorl_v1").num_steps == recipe("prorl_v2").num_steps
    assert (
        recipe("prorl_v1").starts_from is recipe("prorl_v2").starts_from is recipe("grpo_control").starts_from is None
    )


def test_all_recipes_train_one_model_and_all_but_two_on_the_same_problems() -> None:
    assert len({recipe(name).model for name in FILES}) == 1
    same = {name for name in FILES if recipe(name).domains == recipe("prorl_v1").domains}
    assert set(FILES) - same == {"justrl", "olmo3_rl_zero"}
    assert recipe("olmo3_rl_zero").domains == recipe("prorl_v1").domains[:1]


def test_justrl_is_the_control_on_its_own_problems() -> None:
    # Restated from its training script: DAPO-Math-17k, 32 samples at 0.7 and 0.9 to validate with.
    old, new = recipe("grpo_control"), recipe("justrl")
    changed = {line.split(":")[0] for line in differences(dataclasses.asdict(old), dataclasses.asdict(new))}
    validation = {f"validation.{name}" for name in ("samples_per_prompt", "temperature", "top_p")}
    assert changed == {"name", "version", "num_steps", "domains"} | validation
    (domain,), (source,) = new.domains, JUSTRL_PROMPTS.train
    assert (domain.source, domain.num_prompts) == (source.repository, source.published_prompts)
    assert source.repository == "BytedTsinghua-SIA/DAPO-Math-17k" and source.domain == domain.name
    assert JUSTRL_PROMPTS.rules.max_prompt_tokens == new.sampling.max_prompt_tokens


def test_dler_is_its_table_4() -> None:
    # Restated: n 16, 512 prompts, mini-batch 64, LR 1e-6, T 1.0, clip 0.2/0.28, KL 5e-4 (mse), nothing beyond 4,000.
    found = recipe("dler")
    algorithm, sampling = found.algorithm, found.sampling
    assert (sampling.samples_per_prompt, sampling.prompts_per_step, sampling.max_response_tokens) == (16, 512, 4000)
    assert sampling.prompts_per_step // algorithm.updates_per_step == 64
    assert (found.optimizer.learning_rate, sampling.temperature, sampling.max_prompt_tokens) == (1e-6, 1.0, 1024)
    assert (algorithm.clip_low, algorithm.clip_high, algorithm.advantage) == (0.2, 0.28, "group_mean_then_batch")
    assert algorithm.kl is not None and algorithm.truncation is not None
    assert (algorithm.kl.estimator, algorithm.kl.coefficient, algorithm.truncation.value) == ("k2", 5e-4, 0.0)
    check_parent(found, recipe("prorl_v2_after_v1").release)


def test_olmo3_rl_zero_has_no_kl_and_no_deviation() -> None:
    # Restated: LR 1e-6, 2,000 steps, 32 x 8, 16,384 tokens, clip 0.2 / 0.272, TIS cap 2, no KL, no std, token mean.
    found = recipe("olmo3_rl_zero")
    algorithm, sampling = found.algorithm, found.sampling
    assert (algorithm.kl, algorithm.advantage, algorithm.loss_aggregation) == (None, "group_mean", "token_mean")
    assert (algorithm.clip_low, algorithm.clip_high) == (0.2, 0.272)
    assert algorithm.correction is not None
    assert (algorithm.correction.method, algorithm.correction.high) == ("truncate", 2.0)
    assert (found.num_steps, found.optimizer.learning_rate) == (2000, 1e-6)
    assert (sampling.prompts_per_step, sampling.samples_per_prompt, sampling.max_response_tokens) == (32, 8, 16384)


def test_every_number_of_a_mixture_has_a_source_and_its_prompts_are_counted_as_the_recipes_count_them() -> None:
    tags = TAGS + re.findall(r"^([A-Z][A-Z0-9]+) {2,}", recipes.mixtures.__doc__ or "", re.MULTILINE)
    for path in sorted((FOLDER / "mixtures").glob("*.py")):
        assert untagged_numbers(path.read_text(), tags) == []
    published = {source.domain: source.published_prompts for source in PRORL_PROMPTS.train}
    assert published == {domain.name: domain.num_prompts for domain in recipe("prorl_v2").domains}
    asked_for = {"math": "\\boxed{}", "code": "```python", "stem": "\\boxed{}", "logic": "<answer>", "instruct": ""}
    for source in (*PRORL_PROMPTS.sources, *JUSTRL_PROMPTS.sources):
        assert asked_for[source.domain] in source.suffix


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"train": ()}, "has no train source"),
        ({"validation": PRORL_PROMPTS.train}, "source 'deepscaler' is there twice"),
        ({"train": (replace(PRORL_PROMPTS.train[0], name="a/b"),)}, "source 'a/b' names a folder"),
        ({"train": (replace(PRORL_PROMPTS.train[0], files=()),)}, "give one of them"),
        ({"train": (replace(PRORL_PROMPTS.train[0], max_prompts=0),)}, "max_prompts=0: must be above 0"),
        ({"rules": replace(PRORL_PROMPTS.rules, min_overlap=1.5)}, "rules.min_overlap=1.5: is a share"),
        ({"rules": replace(PRORL_PROMPTS.rules, max_tests=0)}, "rules.max_tests=0: must be above 0"),
        ({"rules": replace(PRORL_PROMPTS.rules, num_bands=20)}, "does not divide into num_bands=20"),
    ],
)
def test_a_mixture_that_cannot_be_meant_is_refused(changes: dict[str, Any], pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern):
        replace(PRORL_PROMPTS, **changes)
