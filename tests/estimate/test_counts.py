"""The estimate of memory beside what Megatron and vLLM themselves allocate on a CPU, and what a pass really keeps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_rl import device
from megatron_rl.estimate.memory import estimate
from megatron_rl.runtime import parallel
from tests.actor.test_layouts import RECIPE_CHANGES, some_groups
from tests.models import make_folder, make_run
from tests.ranks import run_ranks

LAYOUTS: dict[str, dict[str, Any]] = {
    "dp4": {},
    "tp2": {"tensor_parallel": 2, "sequence_parallel": True},
    "pp2": {"pipeline_parallel": 2},
    "tp2_pp2": {"tensor_parallel": 2, "pipeline_parallel": 2},
    "tp2_pp2_fp32": {"tensor_parallel": 2, "pipeline_parallel": 2, "precision": "fp32"},
    "pp2_fp16": {"pipeline_parallel": 2, "precision": "fp16"},
}
WITHIN = 0.1


def counts(folders: dict[str, str]) -> dict[str, Any]:
    """Runs on every rank: bytes that Megatron allocated, on each layout, after an update."""
    return {
        f"{name} {layout}": allocated(folder, {"precision": "bf16", "devices_per_node": 4} | scale)
        for name, folder in folders.items()
        for layout, scale in LAYOUTS.items()
    }


def allocated(folder: str, scale: dict[str, Any]) -> dict[str, int]:
    from megatron.core import parallel_state

    from megatron_rl.actor.actor import Actor
    from megatron_rl.actor.pack import pack

    run = make_run(folder, recipe=RECIPE_CHANGES, **scale)
    hardware = device.select(run.scale)
    ranks = parallel.start(run.scale, hardware, 60)
    actor = Actor(run, ranks, hardware)
    groups = some_groups(num_groups=4, num_samples=2, num_engines=4, engine=ranks.rank)
    batch = pack(groups, ranks, run.recipe.algorithm, actor.limits)
    view = actor.logprobs(batch, run.recipe)
    batch = batch.with_logprobs(old=view.logprobs, reference=actor.reference_logprobs(batch, run.recipe))
    batch = batch.with_advantages(torch.ones(batch.groups.rewards.shape))
    actor.update(batch.updates[0], run.recipe, 0)
    weights = [parameter for chunk in actor.chunks for parameter in chunk.parameters()]
    assert actor.reference is not None
    parts = [part.optimizer for part in getattr(actor.optimizer, "chained_optimizers", [actor.optimizer])]
    moments = [t for part in parts for state in part.state.values() for t in state.values() if t.dim()]
    copies = [p for part in parts for group in part.param_groups for p in group["params"]]
    is_copied = run.scale.precision != "fp32"  # there the optimizer works on the weights
    found = {
        "weights": num_bytes(weights),
        "gradients": sum(buffer.grad_data.nbytes for chunk in actor.chunks for buffer in chunk.buffers),
        "optimizer": num_bytes([*moments, *(copies if is_copied else ())]),
        "reference": num_bytes(actor.reference),
    }
    expected = dataclasses.asdict(estimate(run))
    parallel_state.destroy_model_parallel()
    return found | {f"estimated_{name}": expected[name] for name in found}


def num_bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    # Layers outweigh the embeddings, as in a model of some size.
    folders = {
        str(tied): str(make_folder(tmp_path_factory.mktemp(f"tied_{tied}"), tied=tied, num_hidden_layers=4))
        for tied in (False, True)
    }
    return run_ranks("tests.estimate.test_counts:counts", 4, folders=folders)


@pytest.mark.ranks
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tied", [False, True])
def test_what_rests_on_the_fullest_rank_is_within_a_tenth_of_megatrons_own(
    found: list[dict[str, Any]], layout: str, tied: bool
) -> None:
    ranks = [rank[f"{tied} {layout}"] for rank in found]
    for part in ("weights", "gradients", "optimizer", "reference"):
        fullest, guess = max(rank[part] for rank in ranks), ranks[0][f"estimated_{part}"]
        assert guess == pytest.approx(fullest, rel=WITHIN), f"{part}: estimated {guess}, allocated {fullest}"


def kept(folder: str, ways: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Runs on one rank: bytes that the layers of a pass keep for its backward pass, each storage once."""
    from megatron.core import parallel_state

    from megatron_rl.actor import model as models
    from megatron_rl.actor.schedule import _sequences
    from megatron_rl.types import Pack

    found = {}
    for name, scale in ways.items():
        run = make_run(folder, **scale)
        hardware = device.select(run.scale)
        parallel.start(run.scale, hardware, 60)
        config = models.transformer_config(run.recipe.model, run.scale, hardware)
        (chunk,) = models.build(run.recipe.model, run.scale, config, hardware)
        tokens = run.scale.max_tokens_per_microbatch
        starts = torch.tensor([0, tokens], dtype=torch.int32)
        zeros = torch.zeros(tokens)
        pack = Pack(
            token_ids=zeros.long(), targets=zeros.long(), position_ids=torch.arange(tokens), cumulative_lengths=starts,
            longest=tokens, sequences=zeros.long(), response_mask=zeros, loss_weights=zeros, rollout_logprobs=zeros,
        )  # fmt: skip
        weights = {parameter.untyped_storage().data_ptr() for parameter in chunk.parameters()}
        storages: dict[int, int] = {}

        def keep(tensor: Any, storages: dict[int, int] = storages, weights: set[int] = weights) -> Any:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = chunk(pack.token_ids[None], pack.position_ids[None], None, packed_seq_params=_sequences(pack))
        found[name] = {"kept": sum(storages.values()), "estimated": estimate(run).activations}
        del output
        parallel_state.destroy_model_parallel()
    return found


WAYS: dict[str, dict[str, Any]] = {
    "plain": {"max_tokens_per_microbatch": 512},
    "layers": {"max_tokens_per_microbatch": 512, "recomputes_activations": True},
    "mlp": {"max_tokens_per_microbatch": 512, "recomputes_mlp": True},
}


@pytest.mark.ranks
def test_activations_beside_what_the_passes_of_a_cpu_keep(tmp_path: Path) -> None:
    num_layers = 16
    sizes = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": num_layers}
    folder = make_folder(tmp_path / "model", **sizes)
    (ways,) = run_ranks("tests.estimate.test_counts:kept", 1, folder=str(folder), ways=WAYS)
    # One input of each layer; the whole layer that the estimate adds comes to life in the backward pass alone.
    assert ways["layers"]["kept"] == pytest.approx(4 * 512 * 128 * num_layers, rel=WITHIN)
    # The norms and the attention of a CPU keep copies that a GPU's kernels do not, and never less.
    assert ways["plain"]["estimated"] < ways["plain"]["kept"] < 1.5 * ways["plain"]["estimated"]
    saved = {what: ways["plain"][what] - ways["mlp"][what] for what in ("kept", "estimated")}
    assert saved["kept"] > (1 - WITHIN) * saved["estimated"] > 0.5 * ways["plain"]["estimated"]
