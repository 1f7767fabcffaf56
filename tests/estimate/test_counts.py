"""The estimate of memory beside what Megatron and vLLM themselves allocate on a CPU, and what a pass really keeps."""

from __future__ import annotations

import dataclasses
import math
import weakref
from collections import Counter
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from megatron_rl import device
from megatron_rl.actor import vocabulary
from megatron_rl.actor.slices import parameters_of, shard_shape
from megatron_rl.config.records import Model
from megatron_rl.estimate.activations import activation_bytes_per_token
from megatron_rl.estimate.memory import VOCABULARY_AT_ONCE, estimate, logits_bytes, rollout_bytes, stage_parameters
from megatron_rl.refit.plan import Layout, Stages, targets_of
from megatron_rl.runtime import parallel
from recipes.models import MODELS, R1_DISTILL_QWEN_1_5B
from recipes.scales import H100X8
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


class Kept:
    """The bytes of what autograd keeps, each storage once, while it keeps them; and their peak."""

    def __init__(self, not_counted: set[int]) -> None:
        self.not_counted = not_counted
        self.holders: Counter[int] = Counter()
        self.now = self.peak = 0

    def pack(self, tensor: Tensor) -> Kept.Held:
        return Kept.Held(self, tensor)

    def unpack(self, held: Kept.Held) -> Tensor:
        return held.tensor

    class Held:
        """One tensor in the graph, for as long as its node needs it."""

        def __init__(self, kept: Kept, tensor: Tensor) -> None:
            self.kept, self.tensor, self.place = kept, tensor, tensor.untyped_storage().data_ptr()
            if self.place not in kept.not_counted:
                kept.now += 0 if kept.holders[self.place] else tensor.untyped_storage().nbytes()
                kept.holders[self.place] += 1
                kept.peak = max(kept.peak, kept.now)

        def __del__(self) -> None:
            if self.place not in self.kept.not_counted:
                self.kept.holders[self.place] -= 1
                self.kept.now -= 0 if self.kept.holders[self.place] else self.tensor.untyped_storage().nbytes()


def kept(folders: dict[str, str], ways: dict[str, dict[str, Any]]) -> dict[str, list[int]]:
    """Runs on every rank: bytes that the layers keep at the worst moment of a pass there and back, and the estimate."""
    from megatron.core import parallel_state

    from megatron_rl.actor import model as models
    from megatron_rl.actor.context import share
    from megatron_rl.types import Pack

    found = {}
    for name, scale in ways.items():
        run = make_run(folders[scale.pop("family", "qwen2")], devices_per_node=2, **scale)
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
        kept = Kept({parameter.untyped_storage().data_ptr() for parameter in chunk.parameters()})
        part = share(pack, parallel_state.get_context_parallel_group(), hardware.torch_device)
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
            hidden = chunk(part.token_ids[None], part.position_ids[None], None, packed_seq_params=part.sequences)
            hidden.sum().backward()
        assert kept.now == 0, "the backward pass has let go of everything"
        found[name] = [kept.peak, estimate(run).activations]
        parallel_state.destroy_model_parallel()
    return found


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bf16": {"precision": "bf16"},
    "normed": {"family": "qwen3"},
    "normed bf16": {"family": "qwen3", "precision": "bf16"},
    "layers": {"recomputes_activations": True},
    "mlp": {"recomputes_mlp": True},
    "tp2": {"tensor_parallel": 2},
    "tp2 sequence": {"tensor_parallel": 2, "sequence_parallel": True},
    "tp2 sequence layers": {"tensor_parallel": 2, "sequence_parallel": True, "recomputes_activations": True},
    "tp2 sequence mlp": {"tensor_parallel": 2, "sequence_parallel": True, "recomputes_mlp": True},
}


@pytest.fixture(scope="module")
def passes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    sizes = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 12}
    folders = {
        family: str(make_folder(tmp_path_factory.mktemp(family), family, **sizes)) for family in ("qwen2", "qwen3")
    }
    ways = {name: {"max_tokens_per_microbatch": 256} | way for name, way in WAYS.items()}
    first, second = run_ranks("tests.estimate.test_counts:kept", 2, folders=folders, ways=ways)
    assert first == second
    return first


@pytest.mark.ranks
@pytest.mark.parametrize("way", WAYS)
def test_activations_are_within_a_tenth_of_what_a_pass_keeps(passes: dict[str, list[int]], way: str) -> None:
    counted, estimated = passes[way]
    assert estimated == pytest.approx(counted, rel=WITHIN)


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_a_layer_on_a_gpu_keeps_what_is_published_of_one(model: Model) -> None:
    """34 s b h bytes of a plain layer, less two masks of dropout, which is off, and 16 of its MLP of 4 h numbers."""
    plain = dataclasses.replace(model, num_kv_heads=model.num_heads, qk_norm=False, num_layers=1)
    plain = dataclasses.replace(plain, head_dim=model.hidden_size // model.num_heads)
    scale = dataclasses.replace(H100X8, recomputes_activations=False, fuses_swiglu=True)
    swiglu = 2 * 3 * model.ffn_hidden_size
    assert activation_bytes_per_token(plain, scale) - swiglu == (34 - 2 - 16) * model.hidden_size


class Allocated(TorchDispatchMode):
    """The bytes of what torch's operations make, each storage once, while it lives; and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.living: dict[int, weakref.ref[Any]] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for storage in (tensor.untyped_storage() for tensor in tree_leaves(made) if isinstance(tensor, Tensor)):
            if storage._cdata not in self.living:
                self._add(storage, storage._cdata, storage.nbytes())
        return made

    def _add(self, storage: Any, key: int, size: int) -> None:
        def end(_: Any) -> None:
            self.now -= size
            del self.living[key]

        self.living[key] = weakref.ref(storage, end)
        self.now += size
        self.peak = max(self.peak, self.now)


def product_in_fp32(left: Tensor, right: Tensor) -> Tensor:
    """As a GPU makes it: without copies of both sides in fp32."""
    with _disable_current_modes():
        product = left.float() @ right.float()
    return torch.empty_like(product).copy_(product)


@pytest.mark.parametrize(("tokens", "hidden"), [(256, 32), (64, 512)], ids=["entropy", "gradient"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_logits_are_within_a_tenth_of_what_a_pass_allocates(
    precision: Literal["bf16", "fp32"], tokens: int, hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "MAX_LOGITS_KEPT", 0)  # as with large ones
    model = dataclasses.replace(R1_DISTILL_QWEN_1_5B, hidden_size=hidden, vocab_size=4 * VOCABULARY_AT_ONCE)
    scale = dataclasses.replace(H100X8, precision=precision, max_tokens_per_microbatch=tokens)
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    states, weight = (torch.randn(rows, hidden, dtype=dtype).requires_grad_() for rows in (tokens, model.vocab_size))
    alone: Any = SimpleNamespace(size=lambda: 1, rank=lambda: 0)
    head = vocabulary.Head(hidden=states, weight=weight, product=product_in_fp32)
    with Allocated() as seen:
        targets = torch.arange(tokens)
        logprobs, _ = vocabulary.log_probabilities_and_entropy(head, targets, 1.2, alone)
        logprobs.sum().backward()
    given = states.untyped_storage().nbytes() + weight.untyped_storage().nbytes()  # which views of theirs are made of
    assert logits_bytes(model, scale) == pytest.approx(seen.peak - given, rel=WITHIN)


def elements(shapes: Iterable[tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes)


DEGREES = ((1, 1, 1), (2, 1, 2), (4, 2, 4), (8, 2, 8), (2, 4, 1))  # tensor, pipeline, tensor in rollouts


@pytest.mark.parametrize(
    ("model", "degrees"),
    [
        pytest.param(model, degrees, id=f"{model.name} {degrees}")
        for model in MODELS.values()
        for degrees in DEGREES
        if model.num_kv_heads % degrees[0] == model.num_kv_heads % degrees[2] == 0
    ],
)
def test_weights_of_real_shapes_are_within_a_tenth_of_megatrons_and_vllms(
    model: Model, degrees: tuple[int, int, int]
) -> None:
    """By the shapes that a refit goes by, which the real engines of its tests have."""
    tensor, pipeline, rollout = degrees
    layout = Layout(
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        virtual_pipeline=1,
        replicas=1,
        rollout_tensor_parallel=rollout,
    )
    stages = Stages.of(model, layout)
    held = [0] * pipeline
    for sharding, names in parameters_of(model):
        for stage in stages.holding(names[0]):
            held[stage] += math.prod(shard_shape(sharding, names, model, tensor))
    scale = dataclasses.replace(
        H100X8, tensor_parallel=tensor, pipeline_parallel=pipeline, rollout_tensor_parallel=rollout
    )
    assert stage_parameters(model, scale) == pytest.approx(max(held), rel=WITHIN)
    vllms = elements(target.shape for target in targets_of(model, rollout, 0).values())
    assert rollout_bytes(model, scale) == pytest.approx(2 * vllms, rel=WITHIN)
