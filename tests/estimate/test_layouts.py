"""Layouts are proposed by the memory they need, with the reason; and `check` says of every run whether it fits."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from megatron_rl.commands import layouts as command
from megatron_rl.commands.check import show_memory, warnings
from megatron_rl.commands.choose import build_run, recipe_files
from megatron_rl.config.checks import UserError
from megatron_rl.estimate.layouts import kv_bytes_per_token
from recipes.models import MODELS, QWEN2_5_32B
from recipes.scales import H100X64_TP8_PP2, SCALES

NAMES = {"1.5B": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "7B": "Qwen/Qwen2.5-7B", "32B": "Qwen/Qwen2.5-32B"}
BILLIONS = {  # by the models' own pages
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1.78,
    "Qwen/Qwen2.5-7B": 7.62,
    "Qwen/Qwen2.5-32B": 32.76,
    "Qwen/Qwen3-8B": 8.19,
    "Qwen/Qwen3-32B": 32.76,
    "meta-llama/Llama-3.1-8B": 8.03,
}


def proposed(name: str, gpus: int, *settings: str) -> list[Any]:
    return command.proposals("prorl_v2", gpus, [f"model={NAMES[name]}", *settings])


@pytest.mark.parametrize("name", MODELS)
def test_a_shape_has_the_published_number_of_weights(name: str) -> None:
    assert MODELS[name].num_parameters / 1e9 == pytest.approx(BILLIONS[name], abs=0.006)


@pytest.mark.parametrize(("name", "gpus", "degrees"), [("1.5B", 8, 1), ("7B", 16, 1), ("32B", 64, 8)])
def test_the_least_model_parallelism_that_fits_comes_first(name: str, gpus: int, degrees: int) -> None:
    found = proposed(name, gpus)
    best, scale = found[0], found[0].scale
    assert best.fits and scale.num_devices == gpus
    assert scale.tensor_parallel * scale.pipeline_parallel == degrees
    lesser = [one for one in found if one.scale.tensor_parallel * one.scale.pipeline_parallel < degrees]
    assert not any(one.fits for one in lesser) and all("lacks" in one.verdict for one in lesser)
    assert all(one.fits for one in found[: sum(one.fits for one in found)])


def test_what_is_too_large_is_said_to_be_so_and_by_how_much() -> None:
    found = proposed("32B", 8)
    assert not any(layout.fits for layout in found)
    assert all("GiB while training" in layout.verdict or "does not divide" in layout.verdict for layout in found)


def test_more_tokens_in_a_microbatch_change_the_proposal() -> None:
    plain, long = proposed("7B", 16), proposed("7B", 16, "scale.max_tokens_per_microbatch=139264")
    assert long[0].fits and long[0].scale.tensor_parallel > plain[0].scale.tensor_parallel


def test_sequences_are_shared_where_only_that_makes_them_fit_with_so_few_ranks() -> None:
    found = proposed("1.5B", 8, "scale.max_tokens_per_microbatch=540672")
    best = found[0]
    assert best.fits and "context" in best.name and best.scale.context_parallel > 1, best.name
    replica = best.scale.num_devices // best.scale.data_parallel
    alone = [one for one in found if one.fits and one.scale.context_parallel == 1]
    assert all(one.scale.num_devices // one.scale.data_parallel > replica for one in alone)
    assert all(one.scale.context_parallel == 1 for one in proposed("1.5B", 8)), "all of them fit without"


@pytest.mark.parametrize(("name", "gpus", "tokens"), [("32B", 64, 17408), ("1.5B", 8, 540672)])
def test_the_proposed_words_make_the_proposed_scale(name: str, gpus: int, tokens: int, tmp_path: Path) -> None:
    long = f"scale.max_tokens_per_microbatch={tokens}"
    found = proposed(name, gpus, long)
    out = io.StringIO()
    command.show_proposals(found, "prorl_v2", [f"model={NAMES[name]}"], Console(file=out, width=400))
    (line,) = (line for line in out.getvalue().splitlines() if line.startswith("proposed: "))
    words = line.removeprefix("proposed: megatron-rl check prorl_v2 --scale h100x8 ").split("--set ")
    settings = [word.strip() for word in words if word.strip()]
    run = build_run("prorl_v2", "h100x8", settings, tmp_path / "run", needs_files=False)
    changed = {field: getattr(run.scale, field) for field in vars(run.scale)}
    assert changed == vars(found[0].scale)
    assert "because no layout with less model parallelism fits: fits with" in out.getvalue()


@pytest.mark.parametrize(
    ("gpus", "settings", "pattern"),
    [
        (12, [], "--gpus 12: must be fewer than 8, or whole machines of them"),
        (8, ["model=nobody/nothing"], "--model nobody/nothing: is no folder.* known without it are .*Qwen/Qwen2.5-7B"),
    ],
)
def test_what_cannot_be_proposed_for_is_refused(gpus: int, settings: list[str], pattern: str) -> None:
    with pytest.raises(UserError, match=pattern):
        command.proposals("prorl_v2", gpus, settings)


@pytest.mark.parametrize("size", NAMES)
def test_check_says_of_every_recipe_and_scale_whether_it_fits(size: str, tmp_path: Path) -> None:
    said = {"fits": 0, "does not fit": 0, "refused": 0}
    for recipe in recipe_files():
        for scale in (name for name, scale in SCALES.items() if scale.miniature is None):
            out, lacking = io.StringIO(), list[str]()
            try:
                run = build_run(
                    recipe, scale, [f"model={NAMES[size]}"], tmp_path / "run", needs_files=False, lacking=lacking
                )
            except UserError as error:
                assert "use " in str(error), f"{recipe} at {scale}: {error}"
                said["refused"] += 1
                continue
            assert run.model.num_parameters == MODELS[NAMES[size]].num_parameters
            show_memory(run, Console(file=out, width=400))
            assert "while training" in out.getvalue() and "while generating" in out.getvalue()
            fits = "fits into the" in out.getvalue()
            assert fits is not any(line.startswith("does not fit: ") for line in warnings(run, lacking))
            said["fits" if fits else "does not fit"] += 1
    assert said["fits"] > 0 and said["does not fit" if size != "1.5B" else "refused"] > 0, said


def test_a_token_of_the_cache_takes_what_vllm_says_it_takes() -> None:
    torch = pytest.importorskip("torch")
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    for degree in (1, 8):
        scale = dataclasses.replace(H100X64_TP8_PP2, rollout_tensor_parallel=degree)
        spec = FullAttentionSpec(
            block_size=16,
            num_kv_heads=QWEN2_5_32B.num_kv_heads // degree,
            head_size=QWEN2_5_32B.head_dim,
            dtype=torch.bfloat16,
        )
        assert kv_bytes_per_token(QWEN2_5_32B, scale) == QWEN2_5_32B.num_layers * spec.page_size_bytes / 16
