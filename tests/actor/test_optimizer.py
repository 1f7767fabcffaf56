"""The actor's optimizer is AdamW that spares norms and biases; it can be cleared, saved and restored to the bit."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron_rl import device
from megatron_rl.actor.optimizer import learning_rate
from megatron_rl.config.records import Optimizer, Recipe
from megatron_rl.config.run import Run
from megatron_rl.runtime import parallel
from megatron_rl.types import Batch
from tests.actor.test_layouts import some_groups
from tests.models import make_folder, make_run
from tests.ranks import run_ranks

RECIPE = {
    "algorithm.updates_per_step": 1,
    "sampling.temperature": 0.8,
    "algorithm.kl.coefficient": 0.2,
    "optimizer.learning_rate": 1e-2,
    "optimizer.warmup_steps": 3,
    "optimizer.weight_decay": 0.5,  # so large that it shows in a step
    "optimizer.epsilon": 1e-3,  # so large that rounding in a gradient near zero does not make a whole step
    "optimizer.max_grad_norm": 0.1,  # below the norm
}
NUM_STEPS = 3


def facts(folder: str) -> dict[str, Any]:
    """Runs on one rank: a few updates of an Actor, against the oracle and against an Actor that went another way."""
    from megatron_rl.actor.actor import Actor
    from megatron_rl.actor.pack import pack

    run = make_run(folder, recipe=RECIPE, max_tokens_per_microbatch=200)
    hardware = device.select(run.scale)
    ranks = parallel.start(run.scale, hardware, 60)
    actor = Actor(run, ranks, hardware)
    batch = off_policy(actor, pack(some_groups(), ranks, run.recipe.algorithm, actor.limits), run.recipe)

    def train(which: Any, steps: range) -> list[Any]:
        return [which.update(batch.updates[0], run.recipe, step) for step in steps]

    updates = train(actor, range(NUM_STEPS))
    weights = {name: tensor.clone() for name, tensor in actor.stream()}
    expected, oracle_updates = oracle(run, batch)
    found: dict[str, Any] = {
        "updates": [dataclasses.asdict(update) for update in updates],
        "oracle_updates": oracle_updates,
        "gaps": {name: float((weights[name] - value).abs().max()) for name, value in expected.items()},
    }
    saved = copied(actor.state())
    train(actor, range(NUM_STEPS, NUM_STEPS + 1))
    onward = copied(actor.state())
    resumed = Actor(run, ranks, hardware)
    resumed.load_state(copied(saved))
    train(resumed, range(NUM_STEPS, NUM_STEPS + 1))
    found["resumed_differs"] = differing(onward, copied(resumed.state()))

    cleared, fresh = Actor(run, ranks, hardware), Actor(run, ranks, hardware)
    cleared.load_state(copied(saved))
    resets = {
        clears: make_run(folder, recipe=RECIPE | {"algorithm.reference_reset.clears_optimizer": clears}).recipe
        for clears in (True, False)
    }
    cleared.reset_reference(resets[True])
    only_weights(fresh, saved)
    fresh.reset_reference(resets[False])
    for one in (cleared, fresh):
        train(one, range(NUM_STEPS, NUM_STEPS + 1))
    found["cleared_differs"] = differing(copied(cleared.state()), copied(fresh.state()))
    found["moments_matter"] = differing(onward, copied(fresh.state()))
    return found


def off_policy(actor: Any, batch: Batch, recipe: Recipe) -> Batch:
    """The batch with old and reference log-probabilities other than the policy's, so that every term has a gradient."""
    generator = torch.Generator().manual_seed(1)
    logprobs = [view for view in actor.logprobs(batch, recipe).logprobs if view is not None]
    old = [view + 0.3 * torch.randn(view.shape, generator=generator) for view in logprobs]
    reference = [view + 0.5 * torch.randn(view.shape, generator=generator) for view in logprobs]
    batch = batch.with_logprobs(old=old, reference=reference)
    return batch.with_advantages(torch.randn(batch.groups.lengths.shape, generator=generator))


def only_weights(actor: Any, saved: dict[str, Any]) -> None:
    """Gives a fresh Actor the weights of a saved one, and nothing of its optimizer."""
    with torch.no_grad():
        for chunk in actor.chunks:
            for parameter, value in zip(chunk.parameters(), saved["weights"], strict=True):
                parameter.copy_(value)


def oracle(run: Run, batch: Batch) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Weights after the same updates by transformers, autograd and torch's AdamW with two groups; loss and norm."""
    from transformers import AutoModelForCausalLM

    values, algorithm = run.recipe.optimizer, run.recipe.algorithm
    model = AutoModelForCausalLM.from_pretrained(run.model_folder, dtype=torch.float32)
    spared = [parameter for name, parameter in model.named_parameters() if "norm" in name or name.endswith("bias")]
    decayed = [parameter for name, parameter in model.named_parameters() if "norm" not in name and "bias" not in name]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": values.weight_decay}, {"params": spared, "weight_decay": 0.0}],
        betas=(values.beta1, values.beta2),
        eps=values.epsilon,
    )
    num_tokens = sum(float(pack.response_mask.sum()) for pack in batch.packs)
    updates = []
    for step in range(NUM_STEPS):
        rate = values.learning_rate * min(1.0, (step + 1) / values.warmup_steps)
        optimizer.zero_grad()
        loss = torch.zeros((), dtype=torch.float64)
        for pack in batch.packs:
            ends = pack.cumulative_lengths.tolist()
            for start, end in zip(ends, ends[1:], strict=False):
                place = slice(start, end)
                logits = model(pack.token_ids[None, place]).logits[0].double() / run.recipe.sampling.temperature
                logprobs = logits.log_softmax(-1).gather(-1, pack.targets[place, None])[:, 0]
                assert pack.old_logprobs is not None and pack.reference_logprobs is not None
                assert pack.advantages is not None
                ratio, advantage = (logprobs - pack.old_logprobs[place]).exp(), pack.advantages[place]
                clipped = ratio.clamp(1 - algorithm.clip_low, 1 + algorithm.clip_high)
                policy = -torch.minimum(ratio * advantage, clipped * advantage)
                kl = (logprobs - pack.reference_logprobs[place]).square() / 2
                loss = loss + ((policy + algorithm.kl.coefficient * kl) * pack.response_mask[place]).sum() / num_tokens
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), values.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        updates.append({"loss": float(loss), "gradient_norm": float(norm), "learning_rate": rate})
    return {name: parameter.detach() for name, parameter in model.named_parameters()}, updates


def copied(state: dict[str, Any]) -> dict[str, Any]:
    """The state as a checkpoint would give it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    restored: dict[str, Any] = torch.load(file, weights_only=True)
    return restored


def differing(one: Any, other: Any, name: str = "state") -> list[str]:
    """Where two states are not equal to the bit."""
    if isinstance(one, Tensor):
        return [] if torch.equal(one, other) else [name]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{name}: {sorted(one)} against {sorted(other)}"]
        return [line for key in one for line in differing(one[key], other[key], f"{name}.{key}")]
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=True)
        return [line for place, pair in enumerate(pairs) for line in differing(*pair, f"{name}[{place}]")]
    return [] if one == other else [name]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = make_folder(tmp_path_factory.mktemp("qwen2"))
    (facts,) = run_ranks("tests.actor.test_optimizer:facts", 1, folder=str(folder))
    return facts


@pytest.mark.ranks
def test_updates_are_those_of_torch_s_adamw_with_norms_and_biases_spared(found: dict[str, Any]) -> None:
    assert max(found["gaps"].values()) < 2e-5, max(found["gaps"].items(), key=lambda pair: pair[1])


@pytest.mark.ranks
def test_loss_norm_and_rate_are_those_of_autograd(found: dict[str, Any]) -> None:
    for update, expected in zip(found["updates"], found["oracle_updates"], strict=True):
        assert expected["gradient_norm"] > RECIPE["optimizer.max_grad_norm"], "nothing was clipped"
        assert {name: update[name] for name in expected} == pytest.approx(expected, rel=2e-5)


@pytest.mark.ranks
def test_a_restored_actor_goes_on_to_the_bit(found: dict[str, Any]) -> None:
    assert found["resumed_differs"] == []


@pytest.mark.ranks
def test_a_cleared_optimizer_steps_like_a_fresh_one(found: dict[str, Any]) -> None:
    assert found["moments_matter"] != []
    assert found["cleared_differs"] == []


def test_the_rate_warms_up_in_a_line_and_then_stays() -> None:
    values = Optimizer(
        learning_rate=2.0, warmup_steps=4, beta1=0.9, beta2=0.9, epsilon=1.0, weight_decay=0.0, max_grad_norm=1.0
    )
    assert [learning_rate(values, step) for step in (0, 1, 2, 3, 4, 100)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    constant = dataclasses.replace(values, warmup_steps=0)
    assert [learning_rate(constant, step) for step in (0, 7)] == [2.0, 2.0]
