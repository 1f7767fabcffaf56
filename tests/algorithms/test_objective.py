"""The whole objective of every recipe against float64 arithmetic written from the papers' formulas."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from megatron_rl.algorithms.objective import TokenSums, objective
from megatron_rl.commands.choose import find_recipe, recipe_files
from megatron_rl.config.records import Algorithm, Correction, Kl
from megatron_rl.types import Pack

SEQUENCES = ((3, 5), (1, 1), (4, 7), (2, 6))  # prompt and response tokens; the third is not judged
UNJUDGED = 2
RECIPES = {name: find_recipe(name).algorithm for name in recipe_files()}
PLAIN = RECIPES["prorl_v2"]
# What no recipe combines, so that every branch meets every other.
OPTIONS: dict[str, dict[str, Any]] = {
    "sequence_mean_dual_clip": {"loss_aggregation": "sequence_mean", "dual_clip": 1.3},
    "truncate": {"correction": Correction(method="truncate", low=0.7, high=1.1)},
    "icepop_sequence_mean": {
        "correction": Correction(method="icepop", low=0.7, high=1.3),
        "loss_aggregation": "sequence_mean",
    },
    "sequence_mask": {"correction": Correction(method="sequence_mask", low=0.85, high=1.2)},
    "k1": {"kl": Kl(estimator="k1", coefficient=0.3, log_ratio_clamp=0.5, value_clamp=None, place="loss")},
    "k3_value_clamp": {"kl": Kl(estimator="k3", coefficient=0.3, log_ratio_clamp=20.0, value_clamp=0.1, place="loss")},
    "k2_in_reward": {"kl": Kl(estimator="k2", coefficient=0.3, log_ratio_clamp=10.0, value_clamp=None, place="reward")},
    "no_kl": {"kl": None},
    "cispo_prompt_mean": {"policy_loss": "cispo", "loss_aggregation": "prompt_mean"},
    "cispo_above_alone": {"policy_loss": "cispo", "clip_low": 1.0, "clip_high": 0.1},
    "cispo_truncate": {"policy_loss": "cispo", "correction": Correction(method="truncate", low=0.7, high=1.1)},
    "gspo": {"policy_loss": "gspo", "loss_aggregation": "sequence_mean", "clip_low": 3e-4, "clip_high": 4e-4},
    "gspo_wide_dual_clip": {"policy_loss": "gspo", "loss_aggregation": "sequence_mean", "dual_clip": 1.05},
    "constant_length": {"loss_aggregation": "constant_length", "loss_divisor_tokens": 9},
}
ALGORITHMS = RECIPES | {name: dataclasses.replace(PLAIN, **changes) for name, changes in OPTIONS.items()}


class Token:
    """One position of a pack, in plain numbers."""

    def __init__(self, sequence: int, is_response: bool, draw: random.Random) -> None:
        self.sequence, self.counts = sequence, is_response and sequence != UNJUDGED
        self.logprob = -3 * draw.random()
        self.old, self.rollout = self.logprob + draw.gauss(0, 0.4), self.logprob + draw.gauss(0, 0.4)
        self.reference = self.logprob + draw.gauss(0, 0.6)
        self.advantage = (1.3, -0.7, 0.4, -2.0)[sequence]


def tokens() -> list[Token]:
    """A pack whose tokens meet every bound of the algorithms above."""
    draw = random.Random(6)
    return [
        Token(sequence, prompt - 1 <= place < prompt + response - 1, draw)
        for sequence, (prompt, response) in enumerate(SEQUENCES)
        for place in range(prompt + response)
    ]


def pack_of(everyone: list[Token], algorithm: Algorithm) -> Pack:
    def column(of: Any, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.tensor([of(token) for token in everyone], dtype=dtype)

    sequences = column(lambda token: token.sequence, torch.long)
    mask = column(lambda token: float(token.counts))
    nothing = torch.zeros_like(sequences)
    return Pack(
        token_ids=nothing, targets=nothing, position_ids=nothing, cumulative_lengths=nothing, longest=0,
        sequences=sequences,
        response_mask=mask,
        loss_weights=column(lambda token: weight(token, everyone, algorithm)),
        rollout_logprobs=column(lambda token: token.rollout if token.counts else 0.0),
        old_logprobs=column(lambda token: token.old),
        reference_logprobs=column(lambda token: token.reference),
        advantages=column(lambda token: token.advantage if token.counts else 0.0),
    )  # fmt: skip


def weight(token: Token, everyone: list[Token], algorithm: Algorithm) -> float:
    """What a token weighs in the mean over the update, times the update's tokens."""
    counted = [other for other in everyone if other.counts]
    if not token.counts or algorithm.loss_aggregation == "token_mean":
        return float(token.counts)
    num_sequences = len({other.sequence for other in counted})
    if algorithm.loss_aggregation == "constant_length":
        return len(counted) / (num_sequences * (algorithm.loss_divisor_tokens or 0))
    if algorithm.loss_aggregation == "prompt_mean":  # two sequences a prompt
        own = sum(other.sequence // 2 == token.sequence // 2 for other in counted)
        return len(counted) / (own * len({other.sequence // 2 for other in counted}))
    own = sum(other.sequence == token.sequence for other in counted)
    return len(counted) / (own * num_sequences)


def oracle(everyone: list[Token], algorithm: Algorithm, weights_at: list[float] | None = None) -> dict[str, float]:
    """Loss and sums by the formulas: P1 eq. 1-4, B2, RF eq. 8, arXiv 1912.09729, BR (TIS), NR and OR (masks), CISPO
    arXiv 2506.13585 eq. 4, GSPO arXiv 2507.18071 eq. 5 and 7.

    `weights_at` are the log-probabilities that CISPO's weights are taken at, where they are not those of its logarithm:
    no gradient flows through them.
    """
    found = dict.fromkeys((field.name for field in dataclasses.fields(TokenSums)), 0.0)
    for place, token in enumerate(everyone):
        if not token.counts:
            continue
        own = [o for o in everyone if o.counts and o.sequence == token.sequence]
        ratio, A = math.exp(token.logprob - token.old), token.advantage
        if algorithm.policy_loss == "gspo":
            ratio = math.prod(math.exp(o.logprob - o.old) for o in own) ** (1 / len(own))
        low, high = 1 - algorithm.clip_low, 1 + algorithm.clip_high
        gain = min(ratio * A, min(max(ratio, low), high) * A)
        dual = math.inf if algorithm.dual_clip is None else algorithm.dual_clip
        if A < 0:
            gain = max(gain, dual * A)
        is_cispo = algorithm.policy_loss == "cispo"
        if is_cispo:
            held = ratio if weights_at is None else math.exp(weights_at[place] - token.old)
            gain = min(max(held, low), high) * A * token.logprob
        found["clip_low"] += (A < 0 or is_cispo) and ratio < low
        found["clip_high"] += (A > 0 or is_cispo) and ratio > high
        found["clip_dual"] += A < 0 and ratio > dual
        found["ratio"] += ratio
        found["tokens"] += 1
        loss = -gain
        if (bounds := algorithm.correction) is not None:
            mean = math.exp(sum(o.old - o.rollout for o in own) / len(own))
            engine_ratio = math.exp(token.old - token.rollout)
            judged_by = mean if bounds.method == "sequence_mask" else engine_ratio
            is_beyond = not bounds.low <= judged_by <= bounds.high
            found["corrected"] += is_beyond
            if bounds.method == "truncate":
                loss *= min(max(engine_ratio, bounds.low), bounds.high)
            else:
                loss *= 0.0 if is_beyond else engine_ratio
        if (kl := algorithm.kl) is not None:
            d = min(max(token.reference - token.logprob, -kl.log_ratio_clamp), kl.log_ratio_clamp)
            estimate = {"k1": -d, "k2": d * d / 2, "k3": math.exp(d) - 1 - d}[kl.estimator]
            if kl.value_clamp is not None:
                estimate = min(max(estimate, -kl.value_clamp), kl.value_clamp)
            found["kl_reference"] += estimate
            loss += kl.coefficient * estimate if kl.place == "loss" else 0.0
        found["loss"] += weight(token, everyone, algorithm) * loss
    return found


def computed(everyone: list[Token], algorithm: Algorithm) -> tuple[dict[str, float], list[float]]:
    """Sums and gradient of `objective`."""
    logprobs = torch.tensor([token.logprob for token in everyone], dtype=torch.float64, requires_grad=True)
    loss, sums = objective(logprobs, pack_of(everyone, algorithm), algorithm)
    loss.backward()
    assert logprobs.grad is not None
    values = {field.name: getattr(sums, field.name).item() for field in dataclasses.fields(sums)}
    assert values["loss"] == loss.item()
    return values, logprobs.grad.tolist()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_loss_and_sums_equal_the_formulas(name: str) -> None:
    everyone = tokens()
    assert computed(everyone, ALGORITHMS[name])[0] == pytest.approx(oracle(everyone, ALGORITHMS[name]), rel=1e-12)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_gradient_is_the_slope_of_the_formulas(name: str) -> None:
    everyone, algorithm, step = tokens(), ALGORITHMS[name], 1e-6
    here = [token.logprob for token in everyone]
    for place, slope in enumerate(computed(everyone, algorithm)[1]):
        token, value = everyone[place], everyone[place].logprob
        token.logprob = value + step
        above = oracle(everyone, algorithm, here)["loss"]
        token.logprob = value - step
        below = oracle(everyone, algorithm, here)["loss"]
        token.logprob = value
        assert slope == pytest.approx((above - below) / (2 * step), rel=1e-6, abs=1e-8), place


def test_the_tokens_meet_every_bound() -> None:
    everyone = tokens()
    for name in ("clip_low", "clip_high"):
        assert oracle(everyone, PLAIN)[name] > 0
    for case in ("truncate", "icepop_sequence_mean", "sequence_mask"):
        found = oracle(everyone, ALGORITHMS[case])
        assert 0 < found["corrected"] < found["tokens"], case
    assert oracle(everyone, ALGORITHMS["sequence_mean_dual_clip"])["clip_dual"] > 0
    for name in ("cispo_prompt_mean", "gspo", "gspo_wide_dual_clip"):
        found = oracle(everyone, ALGORITHMS[name])
        assert 0 < found["clip_low"] + found["clip_high"] + found["clip_dual"] < found["tokens"], name
    assert oracle(everyone, ALGORITHMS["cispo_above_alone"])["clip_low"] == 0


def test_sums_of_packs_add_up_to_those_of_all() -> None:
    everyone, total = tokens(), TokenSums.zero()
    for sequence in range(len(SEQUENCES)):
        part = [token for token in everyone if token.sequence == sequence]
        _, sums = objective(torch.tensor([t.logprob for t in part], dtype=torch.float64), pack_of(part, PLAIN), PLAIN)
        total += sums
    torch.testing.assert_close(total.values, torch.tensor(list(oracle(everyone, PLAIN).values()), dtype=torch.float64))


# What CUDA adds up in any order unless torch's own determinism is on, which vLLM beside the actor could not bear.
WITHOUT_ORDER = ("index_add", "scatter_add", "scatter_reduce", "index_reduce", "bincount", "cumsum", "put_", "histc")


@pytest.mark.parametrize("name", OPTIONS)
def test_no_sum_leaves_its_order_to_a_gpu(name: str) -> None:
    class Named(TorchDispatchMode):
        def __torch_dispatch__(self, operation: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
            used.append(operation.overloadpacket.__name__)
            return operation(*args, **(kwargs or {}))

    used: list[str] = []
    everyone = tokens()
    logprobs = torch.tensor([token.logprob for token in everyone], dtype=torch.float64, requires_grad=True)
    with Named():
        loss, _ = objective(logprobs, pack_of(everyone, ALGORITHMS[name]), ALGORITHMS[name])
        loss.backward()
    assert "sum" in used
    assert not [one for one in used if one.rstrip("_") in {other.rstrip("_") for other in WITHOUT_ORDER}]
