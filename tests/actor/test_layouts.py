"""The actor computes the same thing on every layout, and what transformers computes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_rl import device
from megatron_rl.runtime import parallel
from megatron_rl.types import Groups, Prompt
from tests.models import make_folder, make_run
from tests.ranks import run_ranks
from tests.samples import by_row, groups_of, sample_of

LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "small_microbatches": (1, {"max_tokens_per_microbatch": 96}),
    "recompute": (1, {"recomputes_activations": True}),
    "recompute_mlp": (1, {"recomputes_mlp": True}),
    "dp2": (2, {}),
    "tp2": (2, {"tensor_parallel": 2}),
    "tp2_sequence_parallel": (2, {"tensor_parallel": 2, "sequence_parallel": True}),
    "pp2": (2, {"pipeline_parallel": 2}),
    "pp2_virtual2": (2, {"pipeline_parallel": 2, "virtual_pipeline": 2, "max_tokens_per_microbatch": 300}),
    "tp2_pp2": (4, {"tensor_parallel": 2, "pipeline_parallel": 2}),
    "tp2_dp2_sequence_parallel": (4, {"tensor_parallel": 2, "sequence_parallel": True}),
    "pp2_dp2": (4, {"pipeline_parallel": 2, "max_tokens_per_microbatch": 200}),
    "cp2": (2, {"context_parallel": 2, "max_tokens_per_microbatch": 200}),
    "cp2_recompute": (2, {"context_parallel": 2, "recomputes_activations": True}),
    "cp4": (4, {"context_parallel": 4, "max_tokens_per_microbatch": 200}),
    "cp2_dp2": (4, {"context_parallel": 2}),
    "cp2_tp2_sequence_parallel": (4, {"context_parallel": 2, "tensor_parallel": 2, "sequence_parallel": True}),
    "cp2_pp2_virtual2": (
        4,
        {"context_parallel": 2, "pipeline_parallel": 2, "virtual_pipeline": 2, "max_tokens_per_microbatch": 300},
    ),
}
TEMPERATURE = 0.8
RECIPE_CHANGES = {
    "sampling.temperature": TEMPERATURE,
    "optimizer.learning_rate": 1e-3,
    # Adam's first step is all but the gradient's sign: with its usual 1e-8, rounding decides where a gradient vanishes.
    "optimizer.epsilon": 1e-5,
    "algorithm.updates_per_step": 2,
}


def some_groups(num_groups: int = 8, num_samples: int = 6, num_engines: int = 1, engine: int = 0) -> Groups:
    """Random prompts and answers, the same in every process; each engine holds the tokens of its own groups."""
    draw = random.Random(3)
    prompts, samples = [], {}
    for group in range(num_groups):
        prompt = tuple(draw.randrange(3, 128) for _ in range(draw.randrange(3, 20)))
        prompts.append(
            Prompt(serial=group, id=str(group), domain="math", token_ids=prompt, opens_thought=False, item={})
        )
        samples[group] = tuple(
            sample_of(
                tokens := tuple(draw.randrange(3, 128) for _ in range(draw.randrange(1, 30))),
                [-draw.random() * 4 for _ in tokens],
            )
            for _ in range(num_samples)
        )
    rows, size = by_row(samples), num_groups * num_samples
    owners = [row // num_samples % num_engines for row in range(size)]
    return groups_of(
        prompts,
        {row: sample for row, sample in rows.items() if owners[row] == engine},
        num_samples,
        rewards=[float(draw.random() < 0.4) for _ in range(size)],
        outcomes=[int(row == 2 * num_samples + 1) for row in range(size)],
        lengths=[len(rows[row].token_ids) for row in range(size)],
        owners=owners,
    )


def steps(cases: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Runs on every rank: `two_updates` of each case, a model folder and changes of the scale, in turn."""
    from megatron.core import parallel_state

    results = {}
    for name, (folder, scale) in cases.items():
        results[name] = two_updates(folder, **scale)
        parallel_state.destroy_model_parallel()
    return results


def two_updates(folder: str, **scale: Any) -> dict[str, Any]:
    """Runs on every rank: log-probabilities of a batch, then a step of two updates."""
    from megatron_rl.actor.actor import Actor
    from megatron_rl.actor.pack import pack
    from megatron_rl.algorithms.advantages import advantages

    run = make_run(folder, recipe=RECIPE_CHANGES, **scale)
    hardware = device.select(run.scale)
    ranks = parallel.start(run.scale, hardware, 60)
    actor = Actor(run, ranks, hardware)
    groups = some_groups(num_engines=ranks.world, engine=ranks.rank)
    batch = pack(groups, ranks, run.recipe.algorithm, actor.limits)
    view = actor.logprobs(batch, run.recipe)
    batch = batch.with_logprobs(old=view.logprobs, reference=actor.reference_logprobs(batch, run.recipe))
    batch = batch.with_advantages(advantages(groups.rewards, groups, run.recipe.algorithm))
    updates = [actor.update(packs, run.recipe, 0) for packs in batch.updates]
    rows: dict[int, list[float]] = {}
    for part, logprobs in zip(batch.packs, view.logprobs, strict=True):
        if logprobs is not None:
            for row in part.sequences[part.response_mask > 0].unique().tolist():
                rows[row] = logprobs[(part.sequences == row) & (part.response_mask > 0)].tolist()
    return {
        "logprobs": rows,
        "entropy": view.entropy_nats,
        "mismatch": [view.mismatch_mean_nats, view.mismatch_max_nats],
        "losses": [update.loss for update in updates],
        "norms": [update.gradient_norm for update in updates],
        "tokens": [update.num_tokens for update in updates],
        "weights": {name: [float(t.double().sum()), float(t.double().norm())] for name, t in actor.stream()},
    }


FAMILIES = {"qwen2": False, "qwen2_tied": True, "qwen3_tied": True, "llama": False}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: make_folder(tmp_path_factory.mktemp(name), name.removesuffix("_tied"), tied)
        for name, tied in FAMILIES.items()
    }


@pytest.fixture(scope="module")
def results(folders: dict[str, Path]) -> dict[str, list[dict[str, Any]]]:
    """Every case on as many ranks as it needs; the cases of one number of ranks share their processes."""
    layouts = {"one_process": (1, {}), **LAYOUTS}
    cases = {name: (ranks, str(folders["qwen2"]), scale) for name, (ranks, scale) in layouts.items()}
    cases |= {name: (2, str(folder), {"tensor_parallel": 2}) for name, folder in folders.items()}
    found = {}
    for num_ranks in (1, 2, 4):
        mine = {
            name: (folder, {"devices_per_node": num_ranks, **scale})
            for name, (ranks, folder, scale) in cases.items()
            if ranks == num_ranks
        }
        everyone = run_ranks("tests.actor.test_layouts:steps", num_ranks, cases=mine)
        found |= {name: [rank[name] for rank in everyone] for name in mine}
    return found


def transformers_logprobs(folder: Path, groups: Groups) -> dict[str, list[float]]:
    """The oracle: one sequence at a time through transformers, keyed by row."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected = {}
    num_samples = groups.lengths.shape[1]
    for row, sample in groups.samples.items():
        prompt = list(groups.prompts[row // num_samples].token_ids)
        tokens = torch.tensor([prompt + list(sample.token_ids)])
        with torch.no_grad():
            logits = model(tokens).logits[0, len(prompt) - 1 : -1].double() / TEMPERATURE
        chosen = logits.log_softmax(-1).gather(-1, tokens[0, len(prompt) :, None])
        expected[str(row)] = chosen[:, 0].tolist()
    return expected


def merged(results: list[dict[str, Any]]) -> dict[str, list[float]]:
    return {row: values for result in results for row, values in result["logprobs"].items()}


def largest_gap(a: dict[str, list[float]], b: dict[str, list[float]]) -> float:
    return max(abs(x - y) for row in a for x, y in zip(a[row], b[row], strict=True))


@pytest.mark.ranks
@pytest.mark.parametrize("name", FAMILIES)
def test_logprobs_equal_those_of_transformers(
    folders: dict[str, Path], results: dict[str, list[dict[str, Any]]], name: str
) -> None:
    expected = transformers_logprobs(folders[name], some_groups())
    found = merged(results[name])
    unjudged = {str(2 * 6 + 1)}
    assert set(expected) - set(found) == unjudged
    assert largest_gap(found, expected) < 1e-5


@pytest.mark.ranks
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_step_is_the_same_on_every_layout(results: dict[str, list[dict[str, Any]]], name: str) -> None:
    one_process = results["one_process"][0]
    assert largest_gap(merged(results[name]), one_process["logprobs"]) < 1e-5
    for result in results[name]:
        assert result["losses"] == pytest.approx(one_process["losses"], rel=1e-5, abs=1e-7)
        assert result["norms"] == pytest.approx(one_process["norms"], rel=1e-5)
        assert result["tokens"] == one_process["tokens"]
        assert result["entropy"] == pytest.approx(one_process["entropy"], rel=1e-5)
        assert result["mismatch"] == pytest.approx(one_process["mismatch"], rel=1e-5)
        for tensor, numbers in one_process["weights"].items():
            if "k_proj.bias" not in tensor:  # its gradient is noise, which Adam turns into whole steps
                assert result["weights"][tensor] == pytest.approx(numbers, rel=1e-4, abs=1e-3), tensor
