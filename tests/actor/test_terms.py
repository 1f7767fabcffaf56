"""The terms that some recipes add to the loss are the papers', on every layout: against float64 by transformers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron_rl import device
from megatron_rl.config.records import Algorithm, Correction, Kl
from megatron_rl.runtime import parallel
from tests.actor.test_layouts import some_groups
from tests.models import make_folder, make_run
from tests.ranks import run_ranks

TEMPERATURE = 0.8
# The samples' own log-probabilities are drawn at random: of the ratios, about a third lie below, within and above.
LOW, HIGH = 0.03, 0.12
COMMON = {"sampling.temperature": TEMPERATURE, "algorithm.updates_per_step": 1}
CASES: dict[str, dict[str, Any]] = {
    "sequence_mean_truncate": {
        "algorithm.loss_aggregation": "sequence_mean",
        "algorithm.dual_clip": 1.2,
        "algorithm.correction": Correction(method="truncate", low=LOW, high=HIGH),
        "algorithm.kl": Kl(estimator="k3", coefficient=0.2, log_ratio_clamp=20.0, value_clamp=0.1, place="loss"),
    },
    "icepop_kl_in_reward": {
        "algorithm.correction": Correction(method="icepop", low=LOW, high=HIGH),
        "algorithm.kl": Kl(estimator="k1", coefficient=0.2, log_ratio_clamp=0.4, value_clamp=None, place="reward"),
    },
    "cispo_prompt_mean_reference_free": {
        "algorithm.policy_loss": "cispo",
        "algorithm.loss_aggregation": "prompt_mean",
        "algorithm.kl": None,
        "algorithm.reference_reset": None,
    },
    "gspo": {
        "algorithm.policy_loss": "gspo",
        "algorithm.loss_aggregation": "sequence_mean",
        "algorithm.clip_low": 0.03,
        "algorithm.clip_high": 0.04,
    },
    "constant_length": {"algorithm.loss_aggregation": "constant_length", "algorithm.loss_divisor_tokens": 30},
    "sequence_mask": {"algorithm.correction": Correction(method="sequence_mask", low=0.05, high=0.09)},
}
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one_process": (1, {}),
    "small_microbatches": (1, {"max_tokens_per_microbatch": 96}),
    "dp2": (2, {}),
    "tp2": (2, {"tensor_parallel": 2}),
    "pp2": (2, {"pipeline_parallel": 2}),
}


def noise(targets: Tensor, positions: Tensor, size: float) -> Tensor:
    """What old and reference log-probabilities differ by: the same for a token wherever it lies."""
    return size * torch.sin(7.0 * targets + positions)


def some_advantages() -> Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(1))


def steps(folder: str, layouts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Runs on every rank: an update of each case on each layout, in turn."""
    from megatron.core import parallel_state

    from megatron_rl.actor.actor import Actor
    from megatron_rl.actor.pack import pack

    found: dict[str, Any] = {}
    for layout, scale in layouts.items():
        for case, changes in CASES.items():
            run = make_run(folder, recipe=COMMON | changes, **scale)
            hardware = device.select(run.scale)
            ranks = parallel.start(run.scale, hardware, 60)
            actor, algorithm = Actor(run, ranks, hardware), run.recipe.algorithm
            batch = pack(
                some_groups(num_engines=ranks.world, engine=ranks.rank), ranks, algorithm, actor.limits
            ).with_advantages(some_advantages())
            pairs = list(zip(batch.packs, actor.logprobs(batch, run.recipe).logprobs, strict=True))
            old, reference = (
                [None if view is None else view + noise(p.targets, p.position_ids, size) for p, view in pairs]
                for size in (0.3, 0.6)
            )
            if algorithm.kl is None:
                assert actor.reference is actor.state()["reference"] is None
                reference = actor.reference_logprobs(batch, run.recipe)
                assert reference == [None] * len(pairs)
            batch = batch.with_logprobs(old=old, reference=reference)
            # In the reward, whatever the case's place: the sums of the responses.
            in_reward = algorithm.kl and dataclasses.replace(algorithm.kl, place="reward", coefficient=1.0)
            kl = actor.kl_in_reward(
                batch, dataclasses.replace(run.recipe, algorithm=dataclasses.replace(algorithm, kl=in_reward))
            )
            update = actor.update(batch.updates[0], run.recipe, 0)
            names = ("loss", "gradient_norm", "correction_fraction", "kl_reference", "num_tokens")
            found[f"{layout} {case}"] = {name: getattr(update, name) for name in names} | {
                "kl": torch.as_tensor(kl).tolist()
            }
            parallel_state.destroy_model_parallel()
    return found


def oracle(folder: Path, algorithm: Algorithm) -> dict[str, Any]:
    """The same update from the formulas, a sequence at a time."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    groups, advantages, kl = some_groups(), some_advantages().flatten().tolist(), algorithm.kl
    judged = [row for row in sorted(groups.samples) if groups.judged.flatten()[row]]
    num_tokens = sum(len(groups.samples[row].token_ids) for row in judged)
    loss, held, kl_sum, table = torch.zeros((), dtype=torch.float64), 0.0, 0.0, torch.zeros(48, dtype=torch.float64)
    for row in judged:
        sample, prompt = groups.samples[row], list(groups.prompts[row // 6].token_ids)
        tokens = torch.tensor(prompt + list(sample.token_ids))
        targets = tokens[len(prompt) :]
        logits = model(tokens[None]).logits[0, len(prompt) - 1 : -1].double() / TEMPERATURE
        logprobs = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
        positions = torch.arange(len(prompt) - 1, len(tokens) - 1)
        old, reference = (logprobs.detach() + noise(targets, positions, size).double() for size in (0.3, 0.6))
        terms = token_loss(logprobs, old, advantages[row], algorithm)
        if algorithm.correction is not None:
            weight, outside = correction(old, torch.tensor(list(sample.logprobs)).double(), algorithm.correction)
            terms = terms * weight
            held += float(outside.sum()) / num_tokens
        if kl is not None:
            estimate = kl_estimate(logprobs, reference, kl)
            terms = terms + (kl.coefficient * estimate if kl.place == "loss" else 0)
            kl_sum += float(estimate.detach().sum()) / num_tokens
            table[row] = kl_estimate(old, reference, kl).sum()
        prompt_tokens = sum(len(groups.samples[one].token_ids) for one in judged if one // 6 == row // 6)
        loss = (
            loss
            + {
                "token_mean": terms.sum() / num_tokens,
                "sequence_mean": terms.mean() / len(judged),
                "prompt_mean": terms.sum() / prompt_tokens / 8,
                "constant_length": terms.sum() / (algorithm.loss_divisor_tokens or 1) / len(judged),
            }[algorithm.loss_aggregation]
        )
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
    return {
        "loss": float(loss.detach()),
        "gradient_norm": float(norm),
        "correction_fraction": held,
        "kl_reference": kl_sum,
        "num_tokens": num_tokens,
        "kl": table.view(8, 6).tolist(),
    }


def token_loss(logprobs: Tensor, old: Tensor, advantage: float, algorithm: Algorithm) -> Tensor:
    """The policy loss of each token of one response."""
    ratio = (logprobs - old).exp()
    if algorithm.policy_loss == "gspo":
        ratio = (logprobs - old).mean().exp().expand_as(logprobs)
    bounded = ratio.clamp(1 - algorithm.clip_low, 1 + algorithm.clip_high)
    if algorithm.policy_loss == "cispo":
        return -bounded.detach() * advantage * logprobs
    loss = -torch.minimum(ratio * advantage, bounded * advantage)
    if algorithm.dual_clip is not None and advantage < 0:
        loss = loss.clamp(max=-algorithm.dual_clip * advantage)
    return loss


def correction(actor: Tensor, rollout: Tensor, bounds: Correction) -> tuple[Tensor, Tensor]:
    """The factor of each token, and whether it lay outside the bounds."""
    ratio = (actor - rollout).exp()
    measured = (actor - rollout).mean().exp().expand_as(ratio) if bounds.method == "sequence_mask" else ratio
    outside = (measured < bounds.low) | (measured > bounds.high)
    factor = ratio.clamp(bounds.low, bounds.high) if bounds.method == "truncate" else ratio * ~outside
    return factor, outside


def kl_estimate(logprobs: Tensor, reference: Tensor, kl: Kl) -> Tensor:
    log_ratio = (reference - logprobs).clamp(-kl.log_ratio_clamp, kl.log_ratio_clamp)
    estimate = {"k1": -log_ratio, "k2": log_ratio**2 / 2, "k3": log_ratio.exp() - 1 - log_ratio}[kl.estimator]
    return estimate if kl.value_clamp is None else estimate.clamp(-kl.value_clamp, kl.value_clamp)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        case: oracle(folder, make_run(folder, recipe=COMMON | changes).recipe.algorithm)
        for case, changes in CASES.items()
    }


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """`LAYOUT CASE` -> what each rank found."""
    results: dict[str, list[dict[str, Any]]] = {}
    for num_ranks in (1, 2):
        layouts = {
            name: {"devices_per_node": num_ranks} | scale
            for name, (ranks, scale) in LAYOUTS.items()
            if ranks == num_ranks
        }
        everyone = run_ranks("tests.actor.test_terms:steps", num_ranks, folder=str(folder), layouts=layouts)
        results |= {name: [rank[name] for rank in everyone] for name in everyone[0]}
    return results


@pytest.mark.ranks
@pytest.mark.parametrize("case", [case for case, changes in CASES.items() if "algorithm.correction" in changes])
def test_the_bounds_of_the_correction_hold_some_tokens_and_not_others(expected: dict[str, Any], case: str) -> None:
    assert 0.2 < expected[case]["correction_fraction"] < 0.9


@pytest.mark.ranks
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_update_is_that_of_the_formulas(
    expected: dict[str, Any], found: dict[str, Any], layout: str, case: str
) -> None:
    for rank in found[f"{layout} {case}"]:
        for name in ("loss", "gradient_norm", "correction_fraction", "kl_reference", "num_tokens"):
            assert rank[name] == pytest.approx(expected[case][name], rel=2e-5, abs=1e-6), name


@pytest.mark.ranks
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_kl_of_a_response_is_the_sum_over_its_tokens_on_every_rank(
    expected: dict[str, Any], found: dict[str, Any], layout: str
) -> None:
    for case in (case for case, changes in CASES.items() if changes.get("algorithm.kl")):
        wanted = torch.tensor(expected[case]["kl"])
        assert wanted[2, 1] == 0 != wanted[2, 0]  # the one that was not judged
        for rank in found[f"{layout} {case}"]:
            torch.testing.assert_close(torch.tensor(rank["kl"]), wanted, rtol=1e-4, atol=1e-4)
