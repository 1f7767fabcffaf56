"""After a refit the rollout engine holds exactly the actor's weights, on every layout, and samples the same."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron_rl import device
from megatron_rl.refit.transfer import difference
from megatron_rl.runtime import parallel
from megatron_rl.runtime.rundir import remove_shared_memory
from megatron_rl.types import Prompt, Request
from tests.models import make_folder, make_run
from tests.ranks import run_ranks
from tests.samples import by_row, groups_of

PAIRS: dict[str, tuple[int, dict[str, Any]]] = {
    "one_process": (1, {}),
    "offloads_all": (1, {"offloads": "weights"}),
    "dp2": (2, {}),
    "tp2_to_1": (2, {"tensor_parallel": 2}),
    "tp2_to_tp2": (2, {"tensor_parallel": 2, "rollout_tensor_parallel": 2}),
    "dp2_to_tp2": (2, {"rollout_tensor_parallel": 2}),
    "pp2_to_1": (2, {"pipeline_parallel": 2}),
    "tp2_pp2_to_tp2": (4, {"tensor_parallel": 2, "pipeline_parallel": 2, "rollout_tensor_parallel": 2}),
}


def expected_shards(weights: dict[str, Tensor], degree: int, rank: int) -> dict[str, Tensor]:
    """What vLLM's rank must hold, written from the definition of its fused, sharded layers."""

    def rows(name: str) -> Tensor:
        return weights[name].chunk(degree, 0)[rank]

    shards = {}
    for name, tensor in weights.items():
        if any(part in name for part in ("k_proj", "v_proj", "up_proj")):
            continue
        if "q_proj" in name:
            parts = [rows(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
            shards[name.replace("q_proj", "qkv_proj")] = torch.cat(parts)
        elif "gate_proj" in name:
            parts = [rows(name), rows(name.replace("gate_proj", "up_proj"))]
            shards[name.replace("gate_proj", "gate_up_proj")] = torch.cat(parts)
        elif "o_proj" in name or "down_proj" in name:
            shards[name] = tensor.chunk(degree, 1)[rank]
        else:
            shards[name] = tensor if "norm" in name else rows(name)
    return shards


def colocated(folder: str, num_updates: int, scales: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs on every rank: one engine, and an actor of each scale in turn that trains beside it."""
    from megatron.core import parallel_state

    from megatron_rl.actor.actor import Actor
    from megatron_rl.refit import transfer
    from megatron_rl.rollout.engine import Engine

    transfer.BUCKET_BYTES = 1 << 18  # several rounds
    engine, found = None, []
    for number, scale in enumerate(scales):
        run = make_run(folder, recipe={"optimizer.learning_rate": 1e-3}, **scale)
        hardware = device.select(run.scale)
        ranks = parallel.start(run.scale, hardware, 120)
        engine = engine or Engine(run, ranks, hardware)
        found.append(trained_beside(engine, Actor(run, ranks, hardware), folder, num_updates, first_version=2 * number))
        parallel_state.destroy_model_parallel()
    assert engine is not None
    engine.close()
    return found


def trained_beside(engine: Any, actor: Any, folder: str, num_updates: int, first_version: int) -> dict[str, Any]:
    """Refit, sample, train, refit, sample; the gap between the engines each time."""
    from megatron_rl.actor.pack import pack
    from megatron_rl.refit.phase import rollout_phase

    ranks = actor.ranks
    prompts = [
        Prompt(serial=i, id=str(i), domain="math", token_ids=tuple(range(3 + i, 15 + i)), opens_thought=False, item={})
        for i in range(8)
    ]
    found: dict[str, Any] = {"gaps": [], "equal": [], "tokens": [], "places": []}
    for version in (first_version, first_version + 1):
        # Before the phase, in which the actor's weights may be away.
        weights = {name: tensor.clone() for name, tensor in actor.stream()}
        with rollout_phase(actor, engine, version):
            held = {name: tensor.clone() for name, tensor in engine.network.named_parameters()}
            found["places"].append([tensor.data_ptr() for _, tensor in engine.network.named_parameters()])
            expected = expected_shards(weights, engine.ranks.engine_size, engine.ranks.engine_rank)
            found["equal"].append(
                [name for name in held.keys() | expected.keys() if not torch.equal(held[name], expected[name])]
            )
            mine = list(range(ranks.engine, 8, ranks.world // ranks.engine_size))
            made = engine.generate(
                [Request(prompt=prompts[i], seed=i << 16, num_samples=4) for i in mine],
                max_response_tokens=24, temperature=1.2, top_p=1.0,
            )  # fmt: skip
        samples = dict(zip(mine, made, strict=True))
        lengths = {i: [len(s.token_ids) for s in group] for i, group in samples.items()}
        lengths = {i: row for part in parallel.gather(lengths) for i, row in part.items()}
        groups = groups_of(
            prompts,
            by_row(samples),
            4,
            version=version,
            lengths=[length for i in range(8) for length in lengths[i]],
            owners=[i % (ranks.world // ranks.engine_size) for i in range(8) for _ in range(4)],
        )
        recipe = make_run(
            folder,
            recipe={"sampling.temperature": 1.2, "optimizer.learning_rate": 1e-3, "algorithm.updates_per_step": 1},
        ).recipe
        batch = pack(groups, ranks, recipe.algorithm, actor.limits)
        view = actor.logprobs(batch, recipe)
        found["gaps"].append(view.mismatch_mean_nats)
        found["tokens"].append({i: [list(s.token_ids) for s in group] for i, group in samples.items()})
        batch = batch.with_logprobs(old=view.logprobs, reference=actor.reference_logprobs(batch, recipe))
        batch = batch.with_advantages(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
        for _ in range(num_updates):
            actor.update(batch.updates[0], recipe, 0)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What every rank found for each pair of layouts; pairs with the same engines share them, one after the other."""
    alike: dict[tuple[int, int], dict[str, dict[str, Any]]] = {}
    for name, (num_ranks, scale) in PAIRS.items():
        engines = num_ranks, scale.get("rollout_tensor_parallel", 1)
        alike.setdefault(engines, {})[name] = {"devices_per_node": num_ranks, **scale}
    found = {}
    for (num_ranks, _), scales in alike.items():
        everyone = run_ranks(
            "tests.refit.test_refit:colocated", num_ranks, folder=str(folder), num_updates=20,
            scales=list(scales.values()),
        )  # fmt: skip
        found |= {name: [rank[number] for rank in everyone] for number, name in enumerate(scales)}
        remove_shared_memory(folder / "run")  # engines over several ranks leave it to who ends them
    return found


@pytest.mark.ranks
@pytest.mark.parametrize("name", PAIRS)
def test_the_engine_holds_the_export_bit_for_bit(results: dict[str, Any], name: str) -> None:
    for result in results[name]:
        assert result["equal"] == [[], []]
        first, second = result["places"]
        assert first == second, "captured graphs read the memory that they were captured with"


@pytest.mark.ranks
@pytest.mark.parametrize("name", PAIRS)
def test_actor_and_engine_agree_on_log_probabilities_before_and_after_training(
    results: dict[str, Any], name: str
) -> None:
    for gap in results[name][0]["gaps"]:
        assert 0 < gap < 1e-5


@pytest.mark.ranks
def test_samples_are_the_same_tokens_on_every_layout(results: dict[str, Any]) -> None:
    def digest(result: list[dict[str, Any]]) -> str:
        tokens = {i: group for rank in result for i, group in rank["tokens"][0].items()}
        return hashlib.sha256(repr(sorted(tokens.items())).encode()).hexdigest()

    assert len({digest(result) for result in results.values()}) == 1


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"a": torch.zeros(2, 3)}, "vLLM lacks 1 parameters of the plan: b"),
        ({"a": torch.zeros(2, 3), "b": torch.zeros(4), "c": torch.zeros(1)}, "vLLM's parameter c is not in the plan"),
        ({"a": torch.zeros(3, 2), "b": torch.zeros(4)}, r"vLLM's parameter a is 3 x 2, the plan says \(2, 3\)"),
    ],
)
def test_a_parameter_that_is_missing_extra_or_of_another_shape_is_named(found: dict[str, Tensor], said: str) -> None:
    assert re.search(said, difference("vLLM", found.items(), {"a": (2, 3), "b": (4, 1)}) or "")


def test_a_parameter_that_comes_twice_is_named() -> None:
    twice = [("a", torch.zeros(2, 3))] * 2
    assert difference("Megatron", twice, {"a": (2, 3)}) == "refit: Megatron's parameter a is there twice"
    assert difference("Megatron", twice[:1], {"a": (2, 3)}) is None
