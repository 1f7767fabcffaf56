"""fp16 with its loss scale on a real actor, and FP8 as far as a CPU holds it: what Megatron is told, and padding."""

from __future__ import annotations

import dataclasses
import os
import pickle
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megatron_rl import device
from megatron_rl.actor import precision, schedule
from megatron_rl.actor.actor import Actor
from megatron_rl.config.precision import token_multiple
from megatron_rl.runtime import parallel
from recipes.prorl_v2 import RECIPE
from recipes.scales import H100X8, H100X16_TP2
from tests.actor.test_layouts import RECIPE_CHANGES, largest_gap, some_groups
from tests.actor.test_optimizer import copied, differing
from tests.models import make_folder, make_run
from tests.ranks import run_ranks

LARGE = 2.0**40  # a loss scale at which every gradient overflows


def facts(folder: str) -> dict[str, Any]:
    """Runs on one rank: the same step by actors of three precisions, and what becomes of the loss scale."""
    found = {name: Trained(folder, name).step() for name in ("fp32", "bf16", "fp16")}
    found["padded"] = Trained(folder, "fp32", multiple=128).step()
    half = Trained(folder, "fp16")
    found["first_scale"] = float(half.actor.loss_scaler.scale)
    half.actor.loss_scaler._scale.fill_(LARGE)
    found["overflowed"] = half.step()
    half.actor.loss_scaler._growth_tracker = 41  # as after many updates
    saved = copied(half.actor.state())
    found["saved_scale"] = float(saved["loss_scale"]["scale"])
    onward = half.step()
    resumed = Trained(folder, "fp16")
    resumed.actor.load_state(copied(saved))
    found["onward_differs"] = onward["updates"] != resumed.step()["updates"]
    found["resumed_differs"] = differing(copied(half.actor.state()), copied(resumed.actor.state()))
    found["resharded_scale"] = float(resumed.actor.resharded([saved])["loss_scale"]["scale"])
    before = copied(half.actor.state()["weights"])
    found["error"] = half.broken_step()
    found["broken_differs"] = differing({"weights": before}, {"weights": half.actor.state()["weights"]})
    return found


class Trained:
    """An actor in one precision beside a batch."""

    def __init__(self, folder: str, in_precision: str, multiple: int = 1) -> None:
        from megatron.core import parallel_state

        from megatron_rl.actor.pack import pack

        parallel_state.destroy_model_parallel()
        run = make_run(folder, recipe=RECIPE_CHANGES, precision=in_precision)
        hardware = device.select(run.scale)
        ranks = parallel.start(run.scale, hardware, 60)
        self.recipe, self.actor = run.recipe, Actor(run, ranks, hardware)
        limits = dataclasses.replace(self.actor.limits, multiple=multiple)
        self.batch = pack(some_groups(), ranks, self.recipe.algorithm, limits)
        generator = torch.Generator().manual_seed(1)
        view = self.actor.logprobs(self.batch, self.recipe)
        reference = self.actor.reference_logprobs(self.batch, self.recipe)
        batch = self.batch.with_logprobs(old=view.logprobs, reference=reference)
        self.batch = batch.with_advantages(torch.randn(batch.groups.rewards.shape, generator=generator))
        self.view = view

    def step(self) -> dict[str, Any]:
        updates = [self.actor.update(packs, self.recipe, 0) for packs in self.batch.updates]
        return {
            "updates": [dataclasses.asdict(update) for update in updates],
            "logprobs": by_row(self.batch.packs, self.view.logprobs),
            "tokens": [len(pack.token_ids) for pack in self.batch.packs],
        }

    def broken_step(self) -> str:
        infinite = self.batch.with_advantages(torch.full(self.batch.groups.rewards.shape, torch.inf))
        try:
            self.actor.update(infinite.updates[0], self.recipe, 5)
        except RuntimeError as error:
            return str(error)
        return "nothing"


def by_row(packs: Any, logprobs: Any) -> dict[str, list[float]]:
    rows = {}
    for pack, values in zip(packs, logprobs, strict=True):
        for row in pack.sequences[pack.response_mask > 0].unique().tolist():
            rows[str(row)] = values[(pack.sequences == row) & (pack.response_mask > 0)].tolist()
    return rows


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = make_folder(tmp_path_factory.mktemp("qwen2"))
    (result,) = run_ranks("tests.actor.test_precision:facts", 1, folder=str(folder))
    return result


@pytest.mark.ranks
def test_fp16_is_nearer_to_fp32_than_bf16_is(found: dict[str, Any]) -> None:
    half, brain = (largest_gap(found[name]["logprobs"], found["fp32"]["logprobs"]) for name in ("fp16", "bf16"))
    assert 0 < half < 0.01
    assert half < brain / 2


@pytest.mark.ranks
def test_the_loss_scale_changes_no_gradient(found: dict[str, Any]) -> None:
    for half, whole in zip(found["fp16"]["updates"], found["fp32"]["updates"], strict=True):
        assert half["gradient_norm"] == pytest.approx(whole["gradient_norm"], rel=0.01)
        assert half["loss"] == pytest.approx(whole["loss"], rel=0.01, abs=1e-4)
        assert whole["loss_scale"] is None and whole["num_overflows"] == 0


@pytest.mark.ranks
def test_an_update_that_overflows_is_made_again_at_half_the_scale(found: dict[str, Any]) -> None:
    assert found["first_scale"] == precision.INITIAL_LOSS_SCALE
    first, second = found["overflowed"]["updates"]
    assert first["num_overflows"] >= 10
    assert first["loss_scale"] == LARGE / 2 ** first["num_overflows"]
    assert second["num_overflows"] <= 2  # the scale that was found is kept
    for update, expected in zip((first, second), found["fp16"]["updates"], strict=True):
        assert update["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-3)


@pytest.mark.ranks
def test_a_resumed_actor_goes_on_with_the_same_scale_and_the_same_bits(found: dict[str, Any]) -> None:
    assert found["saved_scale"] == found["overflowed"]["updates"][-1]["loss_scale"]
    assert not found["onward_differs"] and found["resumed_differs"] == []
    assert found["resharded_scale"] == found["saved_scale"]


@pytest.mark.ranks
def test_a_gradient_that_is_infinite_at_any_scale_ends_the_run_and_changes_no_weight(found: dict[str, Any]) -> None:
    assert found["error"] == "step 5: the gradient norm is inf; the newest checkpoint is from before it"
    assert found["broken_differs"] == []


@pytest.mark.ranks
def test_padding_to_whole_blocks_changes_no_number(found: dict[str, Any]) -> None:
    assert all(length % 128 == 0 for length in found["padded"]["tokens"])
    assert any(length % 128 for length in found["fp32"]["tokens"])
    assert largest_gap(found["padded"]["logprobs"], found["fp32"]["logprobs"]) < 1e-6
    for padded, plain in zip(found["padded"]["updates"], found["fp32"]["updates"], strict=True):
        assert padded["num_tokens"] == plain["num_tokens"]
        for name in ("loss", "gradient_norm", "ratio_mean", "kl_reference"):
            assert padded[name] == pytest.approx(plain[name], rel=1e-5, abs=1e-8), name


def config_of(scaling: Any) -> Any:
    """Megatron's TransformerConfig of a model in FP8."""
    from megatron.core.transformer import TransformerConfig

    scale = dataclasses.replace(H100X8, fp8_actor=scaling, fp8_rollout=True)
    options = precision.transformer_options(RECIPE.model, scale, torch.bfloat16)
    return TransformerConfig(num_layers=28, hidden_size=1536, num_attention_heads=12, num_query_groups=2, **options)


@pytest.mark.parametrize("scaling", ["blockwise", "tensorwise", "delayed"])
def test_megatron_takes_what_it_is_told_of_fp8(scaling: Any) -> None:
    config = config_of(scaling)
    assert (config.fp8, config.fp8_recipe, config.bf16) == (
        "e4m3" if scaling == "blockwise" else "hybrid", scaling, True,
    )  # fmt: skip
    assert not config.fp8_param  # names, refits, checkpoints and the reference know the weights in bf16
    from megatron.core.fp8_utils import is_first_last_bf16_layer

    kept = [layer for layer in range(28) if is_first_last_bf16_layer(config, layer)]
    assert kept == ([] if scaling == "delayed" else [0, 27])


def test_without_fp8_megatron_is_told_nothing_of_it() -> None:
    options = precision.transformer_options(RECIPE.model, H100X8, torch.float16)
    assert not any(name.startswith("fp8") for name in options)
    assert options["fp16"] and not options["bf16"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_megatrons_optimizer_takes_its_options(dtype: torch.dtype) -> None:
    from megatron.core.optimizer import OptimizerConfig

    config = OptimizerConfig(**precision.optimizer_options(dtype))
    assert (config.fp16, config.bf16) == (dtype == torch.float16, dtype == torch.bfloat16)
    if config.fp16:
        assert (config.initial_loss_scale, config.min_loss_scale, config.hysteresis) == (65536.0, 1.0, 1)


@pytest.mark.parametrize(("scaling", "multiple"), [("off", 1), ("blockwise", 128), ("tensorwise", 16), ("delayed", 16)])
def test_packs_are_made_of_whole_blocks_on_every_shard(scaling: Any, multiple: int) -> None:
    assert token_multiple(dataclasses.replace(H100X8, fp8_actor=scaling)) == multiple
    assert token_multiple(dataclasses.replace(H100X16_TP2, fp8_actor=scaling)) == 2 * multiple


class Remembering(torch.nn.Module):
    """A layer with a history, which it gives and takes as Transformer Engine 2.16's do under delayed scaling."""

    def __init__(self, history: float) -> None:
        super().__init__()
        self.content: dict[str, Any] = {
            "recipe": Fraction(1, 3),  # a class of its own, as Transformer Engine's are
            "amax_history_fwd": torch.tensor([history]),
            "extra_fp8_variables": {"num_gemms": 1, "local_recipes": [Fraction(1, 3)]},
        }

    def get_extra_state(self) -> torch.Tensor:
        return torch.frombuffer(bytearray(pickle.dumps(self.content)), dtype=torch.uint8)

    def set_extra_state(self, state: torch.Tensor) -> None:
        if os.getenv("NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE", "0") != "1":
            raise RuntimeError("Refusing to load pickled Transformer Engine extra state")
        self.content = pickle.loads(state.numpy().tobytes())


class Stateless(torch.nn.Module):
    """A layer of Transformer Engine, or of Megatron, that remembers nothing."""

    def __init__(self, state: torch.Tensor | None) -> None:
        super().__init__()
        self.state = state

    def get_extra_state(self) -> torch.Tensor | None:
        return self.state


@pytest.mark.parametrize("before", [None, "0"])
def test_the_history_of_delayed_scaling_is_kept_and_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv(precision.UNPICKLES, raising=False)
    if before is not None:
        monkeypatch.setenv(precision.UNPICKLES, before)

    def chunk(*histories: float) -> torch.nn.Module:
        others = Stateless(None), Stateless(torch.empty(0, dtype=torch.uint8)), torch.nn.Linear(2, 2)
        return torch.nn.Sequential(*map(Remembering, histories), *others)

    torch.save(precision.scaling_state([chunk(1.0, 2.0), chunk(3.0)]), tmp_path / "rank_00000.pt")
    saved = torch.load(tmp_path / "rank_00000.pt", weights_only=True)  # as a checkpoint is: it can run nothing
    assert [list(states) for states in saved] == [["0", "1"], ["0"]]
    others = [chunk(0.0, 0.0), chunk(0.0)]
    precision.load_scaling_state(others, saved, config_of("delayed"))
    assert precision.scaling_state(others) == saved
    assert others[0][1].content["amax_history_fwd"] == 2.0
    assert others[0][1].content["extra_fp8_variables"] == {"num_gemms": 1}
    assert os.environ.get(precision.UNPICKLES) == before


@pytest.mark.parametrize("other_remembers", [True, False])
def test_a_rank_without_fp8_layers_settles_with_the_others_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, other_remembers: bool
) -> None:
    actor: Any = object.__new__(Actor)  # of a stage whose layers are all in bf16
    actor.keeps_scaling, actor.chunks = True, []
    passes: list[Any] = []
    monkeypatch.setattr(parallel, "gather", lambda own: [own, other_remembers])
    monkeypatch.setattr(schedule, "forward_backward", lambda *arguments: passes.append(arguments))
    batch: Any = SimpleNamespace(packs=[])
    actor.settle_scaling(batch, RECIPE)
    assert len(passes) == (0 if other_remembers else precision.SETTLING_PASSES)
