"""Before the first step actor and rollout engine agree, for every kind of model; else the run ends."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron_rl import device
from megatron_rl.actor import schedule, slices
from megatron_rl.actor.precision import SETTLING_PASSES
from megatron_rl.config.checks import UserError
from megatron_rl.refit import agreement, plan, transfer
from megatron_rl.refit.transfer import Transfer
from megatron_rl.runtime import parallel
from megatron_rl.runtime.log import get_logger
from megatron_rl.types import Prompt
from tests.config.test_positions import KINDS
from tests.models import make_folder, make_run
from tests.ranks import run_ranks
from tests.report.records import POLICY

FAMILIES = ("qwen2", "qwen3", "llama")
# Long enough for every scaling to show: more positions than the 64 of the original contexts.
PROMPTS = [
    Prompt(
        serial=i,
        id=str(i),
        domain="math",
        token_ids=tuple(3 + (7 * i + 11 * j + j * j) % 120 for j in range(length)),
        opens_thought=False,
        item={},
    )
    for i, length in enumerate((5, 80, 12, 9))
]
LIMITS = {"sampling.max_prompt_tokens": 100, "sampling.max_response_tokens": 24, "optimizer.learning_rate": 1e-4}


def pair(folder: str, **scale: Any) -> tuple[Any, Any, Any]:
    """An engine and an actor of the folder, and the recipe."""
    from megatron_rl.actor.actor import Actor
    from megatron_rl.rollout.engine import Engine

    run = make_run(folder, recipe=LIMITS, **scale)
    hardware = device.select(run.scale)
    ranks = parallel.start(run.scale, hardware, 120)
    return Engine(run, ranks, hardware), Actor(run, ranks, hardware), run.recipe


@contextmanager
def said() -> Iterator[list[str]]:
    """What the package's logger is told meanwhile."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(f"{record.levelname} {record.getMessage()}")  # type: ignore[method-assign]
    logger = get_logger()
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


def verdict(engine: Any, actor: Any, recipe: Any, step: int = 0) -> str:
    """What the check says: its line in the log, or its error."""
    engine.version = None  # so that the engine's weights are filled anew
    with said() as lines:
        try:
            agreement.check_start(actor, engine, PROMPTS, recipe, step)
        except UserError as error:
            return f"ERROR {error}"
    return "; ".join(lines)


def faults(folder: str, scale: dict[str, Any]) -> dict[str, Any]:
    """Runs on every rank: what the check says of a healthy pair, and of each planted fault."""
    engine, actor, recipe = pair(folder, **scale)
    views: list[Any] = []
    look = actor.logprobs

    def looked(*arguments: Any) -> Any:
        views.append(look(*arguments))
        return views[-1]

    actor.logprobs = looked

    def both() -> list[str]:
        """What the start says, and what the first step would."""
        at_start = verdict(engine, actor, recipe)
        try:
            agreement.check_step(actor, views[-1], 0)
        except RuntimeError as error:
            return [at_start, str(error)]
        return [at_start, ""]

    found: dict[str, Any] = {"healthy": both()}
    before = torch.get_rng_state()
    found["again"] = both()
    found["random_state_stays"] = torch.equal(before, torch.get_rng_state())
    found["settling"], found["settled"] = both_settling(actor, both, views)
    for name, planted in PLANS.items():
        with planted():
            found[name] = both()

    own = [layer.self_attn.rotary_emb.cos_sin_cache.clone() for layer in engine.network.model.layers]
    for layer in engine.network.model.layers:
        rotary = layer.self_attn.rotary_emb
        rotary.base = 20000.0
        rotary.cos_sin_cache.copy_(rotary._compute_cos_sin_cache())
    found["wrong_base"] = both()
    for layer, table in zip(engine.network.model.layers, own, strict=True):
        layer.self_attn.rotary_emb.cos_sin_cache.copy_(table)
    found["mended"] = both()

    move_weights(actor, 6e-5)  # as far as two steps of the demo's learning rate
    run, Transfer.run = Transfer.run, lambda _: None  # type: ignore[method-assign]
    found["stale"] = both()
    Transfer.run = run  # type: ignore[method-assign]
    found["fresh"] = both()

    move_weights(actor, 3e-3)
    reset = engine.llm.reset_prefix_cache
    engine.llm.reset_prefix_cache = lambda: True
    found["stale_cache"] = both()
    engine.llm.reset_prefix_cache = reset
    found["fresh_cache"] = both()

    next(iter(engine.network.parameters())).data[5] = torch.nan
    Transfer.run = lambda _: None  # type: ignore[method-assign]
    found["not_finite"] = both()
    engine.close()
    return found


def both_settling(actor: Any, both: Any, views: list[Any]) -> tuple[list[str], list[Any]]:
    """What `both` says where FP8's scaling is delayed: at how many views passes with gradients were, what changed."""
    passes, weights = [], [parameter.detach().clone() for parameter in actor._parameters()]
    run = schedule.forward_backward

    def counted(*arguments: Any) -> None:
        passes.append(len(views))
        run(*arguments)

    num_before = len(views)
    schedule.forward_backward, actor.keeps_scaling = counted, True
    said = both()
    schedule.forward_backward, actor.keeps_scaling = run, False
    unchanged = all(map(torch.equal, weights, actor._parameters()))
    return said, [[number - num_before for number in passes], unchanged]


def move_weights(actor: Any, distance: float) -> None:
    for parameter in actor._parameters():
        signs = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).sign()
        parameter.data.add_(distance * signs)


@contextmanager
def planned(owner: Any, name: str, broken: Any) -> Iterator[None]:
    """Plans that are made meanwhile are wrong: the function of that name is another."""
    whole = getattr(owner, name)

    def forget() -> None:
        transfer._known.clear()
        for made in (plan._template_moves, plan._streams, plan._pieces):
            made.cache_clear()

    forget()
    setattr(owner, name, lambda *arguments: broken(whole(*arguments), *arguments))
    try:
        yield
    finally:
        setattr(owner, name, whole)
        forget()


def gate_after_up(targets: Any, *_: Any) -> Any:
    """vLLM's parameters with the halves of each gated layer in the other order."""
    top, layer = targets
    (name,) = (name for name in layer if "gate_up" in name)
    gate, up = layer[name].parts
    swapped = (gate._replace(row=up.row), up._replace(row=gate.row))
    return top, layer | {name: layer[name]._replace(parts=swapped)}


def not_interleaved(parts: Any, sharding: str, *_: Any) -> Any:
    """Megatron's parameters as if q, k and v of all groups lay one after the other."""
    if sharding != "qkv":
        return parts
    ordered = sorted(parts, key=lambda part: "qkv".index(part.tensor.split("_proj")[0][-1]))
    starts = [sum(part.whole.rows for part in ordered[:i]) for i in range(len(ordered))]
    return [part._replace(row=start) for part, start in zip(ordered, starts, strict=True)]


PLANS = {
    "swapped_gate_and_up": lambda: planned(plan, "_template_targets", gate_after_up),
    "unrotated_qkv": lambda: planned(slices, "parts", not_interleaved),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    (facts,) = run_ranks("tests.refit.test_agreement:faults", 1, folder=str(folder), scale={})
    return facts


@pytest.mark.ranks
@pytest.mark.parametrize("name", ["healthy", "again", "settling", "mended", "fresh", "fresh_cache"])
def test_a_healthy_pair_agrees_and_says_so_in_one_line(found: dict[str, Any], name: str) -> None:
    at_start, of_step = found[name]
    assert at_start.startswith("INFO actor and rollout engines agree: mean |actor - rollout log-probability| ")
    assert "tokens of 2 prompts" in at_start and ";" not in at_start and not of_step


@pytest.mark.ranks
def test_the_check_leaves_the_random_state_alone_and_repeats(found: dict[str, Any]) -> None:
    assert found["random_state_stays"] and found["again"] == found["healthy"]


@pytest.mark.ranks
def test_delayed_scaling_meets_numbers_and_gradients_before_its_first_log_probabilities(found: dict[str, Any]) -> None:
    passes, leaves_weights_alone = found["settled"]
    assert passes == [0] * SETTLING_PASSES and leaves_weights_alone


@pytest.mark.ranks
@pytest.mark.parametrize("name", [*PLANS, "wrong_base", "stale", "stale_cache", "not_finite"])
def test_what_makes_the_engine_compute_something_else_ends_the_run(found: dict[str, Any], name: str) -> None:
    at_start, of_step = found[name]
    assert at_start.startswith("ERROR actor and rollout engine 0 do not agree: mean |actor - rollout"), at_start
    assert "the bound is 0.0001" in at_start and "\n" not in at_start
    assert of_step.startswith("step 0: actor and rollout engine do not agree: mean |actor - rollout"), of_step


def gaps(folders: dict[str, str]) -> dict[str, Any]:
    """Runs on one rank: what the check says of each folder, and the largest gap of the actor's to transformers."""
    from megatron.core import parallel_state

    results = {}
    for name, folder in folders.items():
        engine, actor, recipe = pair(folder)
        results[name] = {"check": verdict(engine, actor, recipe), "transformers": beside_transformers(actor, recipe)}
        del engine, actor
        parallel_state.destroy_model_parallel()
    return results


def beside_transformers(actor: Any, recipe: Any) -> float:
    """The largest difference of log-probabilities of the prompts' own tokens, actor against transformers."""
    from transformers import AutoModelForCausalLM

    from megatron_rl.actor.pack import pack
    from megatron_rl.types import Groups
    from tests.samples import sample_of

    one = replace(recipe.algorithm, updates_per_step=1)
    whole = PROMPTS[1].token_ids
    sample = sample_of(whole[4:], [0.0] * len(whole[4:]))
    groups = Groups(
        **Groups.tables(1, lengths=[len(whole) - 4]),
        prompts=(replace(PROMPTS[1], token_ids=whole[:4]),),
        samples={0: sample},
        policy_version=0,
    )
    batch = pack(groups, actor.ranks, one, actor.limits)
    (found,) = actor.logprobs(batch, recipe).logprobs
    model = AutoModelForCausalLM.from_pretrained(recipe.model.name, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([whole])).logits[0, 3:-1].double() / recipe.sampling.temperature
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(whole[4:])[:, None])[:, 0]
    mine: Tensor = found[batch.packs[0].response_mask > 0]
    return float((mine.double() - expected).abs().max())


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What was found of a model of each family with each kind of rope scaling."""
    folders = {}
    for family in FAMILIES:
        for kind, rope in KINDS.items():
            folder = make_folder(tmp_path_factory.mktemp(f"{family}_{kind}"), family, num_hidden_layers=2)
            config = json.loads((folder / "config.json").read_text()) | {"rope_parameters": {**rope, "rope_theta": 1e4}}
            (folder / "config.json").write_text(json.dumps(config))
            folders[f"{family} {kind}"] = str(folder)
    (facts,) = run_ranks("tests.refit.test_agreement:gaps", 1, folders=folders)
    return facts


@pytest.mark.ranks
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_rope_scaling_is_that_of_transformers_and_of_the_engine(scaled: dict[str, Any], family: str, kind: str) -> None:
    found = scaled[f"{family} {kind}"]
    assert found["transformers"] < 1e-5
    assert found["check"].startswith("INFO actor and rollout engines agree")
    largest = re.search(r"largest ([\d.e+-]+),", found["check"])
    assert largest is not None and float(largest[1]) < 1e-5


def prompt_of(length: int) -> Prompt:
    return replace(PROMPTS[0], id=str(length), token_ids=(5,) * length)


def test_the_longest_and_the_shortest_prompts_are_asked() -> None:
    def lengths(have: list[int], count: int) -> list[int]:
        return [len(prompt.token_ids) for prompt in agreement.extremes([prompt_of(n) for n in have], count)]

    assert lengths([4, 9, 1, 7], 3) == [9, 1, 7]
    assert lengths([4, 9, 1], 5) == [9, 1, 4, 9, 1]


def policy_with(gap: float) -> Any:
    return replace(POLICY, mismatch_mean_nats=gap)


def actor_of(dtype: torch.dtype, *, is_main: bool = True) -> Any:
    """As much of an actor as the check of a step looks at."""
    return SimpleNamespace(device=SimpleNamespace(dtype=dtype), ranks=SimpleNamespace(is_main=is_main))


@pytest.mark.parametrize(
    ("dtype", "gap", "outcome"),
    [
        (torch.float32, 1e-6, "nothing"),
        (torch.float32, 5e-5, "warning"),
        (torch.float32, 0.3, "end"),
        (torch.bfloat16, 0.03, "nothing"),
        (torch.bfloat16, 0.2, "warning"),
        (torch.bfloat16, 0.74, "end"),
        (torch.bfloat16, float("nan"), "end"),
    ],
)
def test_the_mismatch_of_a_step_warns_and_ends_by_the_precision(dtype: torch.dtype, gap: float, outcome: str) -> None:
    with said() as lines:
        if outcome == "end":
            with pytest.raises(RuntimeError, match="step 7: actor and rollout engine do not agree"):
                agreement.check_step(actor_of(dtype), policy_with(gap), 7)
        else:
            agreement.check_step(actor_of(dtype), policy_with(gap), 7)
    assert [line.partition(" ")[0] for line in lines] == (["WARNING"] if outcome == "warning" else [])


def test_only_rank_0_warns_and_every_rank_ends() -> None:
    with said() as lines:
        agreement.check_step(actor_of(torch.float32, is_main=False), policy_with(5e-5), 7)
    assert lines == []
    with pytest.raises(RuntimeError, match="do not agree"):
        agreement.check_step(actor_of(torch.float32, is_main=False), policy_with(1.0), 7)
