"""The mismatch and its corrections against plain Python."""

import math
import random

import pytest
import torch
from torch import Tensor

from megatron_rl.algorithms.mismatch import correction_weights, held_by_correction, mismatch
from megatron_rl.config.records import Correction


def test_sums_equal_the_formulas_over_the_weighted_tokens() -> None:
    rollout, actor, weights = [-1.0, -2.0, -3.0, 0.0], [-1.1, -2.0, -2.5, -50.0], [1.0, 1.0, 1.0, 0.0]
    tensors = [torch.tensor(values, dtype=torch.float64) for values in (rollout, actor, weights)]
    found = mismatch(*tensors)
    gaps = [a - r for r, a, w in zip(rollout, actor, weights, strict=True) if w]
    assert found.gap_sum.item() == pytest.approx(sum(map(abs, gaps)))
    assert found.gap_max.item() == pytest.approx(max(map(abs, gaps)))
    assert found.kl_sum.item() == pytest.approx(sum(math.exp(gap) - 1 - gap for gap in gaps))


def test_a_token_without_weight_may_hold_anything() -> None:
    weights = torch.tensor([1.0, 0.0])
    found = mismatch(torch.zeros(2), torch.tensor([0.0, torch.nan]), weights)
    assert [value.item() for value in found] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("method", ["truncate", "icepop", "sequence_mask"])
def test_a_ratio_beyond_all_numbers_leaves_weights_and_sums_numbers(method) -> None:
    actor, rollout = torch.tensor([0.0, -200.0]), torch.tensor([-200.0, 0.0])  # whose mean over the sequence is 1
    correction = Correction(method=method, low=0.0, high=2.0)
    found = correction_weights(actor, rollout, torch.ones(2), torch.zeros(2, dtype=torch.long), correction)
    assert found.isfinite().all() and found[1] == 0
    assert found[0] == {"truncate": 2.0, "icepop": 0.0}.get(method, found[0])
    assert all(value.isfinite() for value in mismatch(rollout, actor, torch.ones(2)))


def test_nothing_weighted_is_no_mismatch() -> None:
    empty = torch.zeros(0)
    assert [value.item() for value in mismatch(empty, empty, empty)] == [0.0, 0.0, 0.0]


def test_the_estimate_averages_to_the_divergence_of_the_rollout_from_the_actor() -> None:
    # Over a whole vocabulary the expectation under the rollout's distribution is a sum.
    torch.manual_seed(0)
    rollout, actor = (torch.randn(13, dtype=torch.float64).log_softmax(0) for _ in range(2))
    found = mismatch(rollout, actor, rollout.exp())
    torch.testing.assert_close(found.kl_sum, (rollout.exp() * (rollout - actor)).sum())


CORRECTIONS = [
    Correction(method="truncate", low=0.0, high=2.0),
    Correction(method="truncate", low=0.7, high=1.3),
    Correction(method="icepop", low=0.5, high=5.0),
    Correction(method="icepop", low=0.9, high=1.1),
    Correction(method="sequence_mask", low=0.999, high=1.002),
    Correction(method="sequence_mask", low=0.8, high=1.1),
]
by_name = pytest.mark.parametrize("correction", CORRECTIONS, ids=lambda c: f"{c.method}-{c.low}-{c.high}")


def some_tokens(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Actor's and rollout's log-probabilities, weights and rows [T] of four sequences."""
    rng = random.Random(seed)
    rows, weights = [], []
    for row in (5, 2, 9, 0):
        length = rng.randint(2, 9)
        rows += [row] * length
        weights += [0.0] * rng.randint(0, length - 1)
        weights += [1.0] * (len(rows) - len(weights))
    rollout = [-3 * rng.random() for _ in rows]
    actor = [value + rng.gauss(0, 0.5) for value in rollout]
    parts = [torch.tensor(values, dtype=torch.float64) for values in (actor, rollout, weights)]
    return parts[0], parts[1], parts[2], torch.tensor(rows)


def corrected(
    actor: list[float], rollout: list[float], weights: list[float], rows: list[int], correction: Correction
) -> list[float]:
    """The three definitions, a token at a time."""
    found = []
    for t, row in enumerate(rows):
        ratio, low, high = math.exp(actor[t] - rollout[t]), correction.low, correction.high
        if not weights[t]:
            found.append(0.0)
        elif correction.method == "truncate":
            found.append(min(max(ratio, low), high))
        elif correction.method == "icepop":
            found.append(ratio if low <= ratio <= high else 0.0)
        else:
            gaps = [actor[i] - rollout[i] for i in range(len(rows)) if rows[i] == row and weights[i]]
            found.append(ratio if low <= math.exp(sum(gaps) / len(gaps)) <= high else 0.0)
    return found


@by_name
@pytest.mark.parametrize("seed", range(10))
def test_correction_weights_equal_the_formulas(correction: Correction, seed: int) -> None:
    actor, rollout, weights, rows = some_tokens(seed)
    found = correction_weights(actor, rollout, weights, rows, correction)
    expected = corrected(actor.tolist(), rollout.tolist(), weights.tolist(), rows.tolist(), correction)
    assert found.tolist() == pytest.approx(expected)
    assert not correction_weights(actor.clone().requires_grad_(), rollout, weights, rows, correction).requires_grad


@by_name
def test_held_tokens_are_those_that_a_correction_changed(correction: Correction) -> None:
    found = 0
    for seed in range(10):
        actor, rollout, weights, rows = some_tokens(seed)
        held = held_by_correction(actor, rollout, weights, rows, correction)
        raw = torch.where(weights > 0, (actor - rollout).exp(), 0)
        changed = ~torch.isclose(correction_weights(actor, rollout, weights, rows, correction), raw)
        assert torch.equal((held.low + held.high) > 0, changed)
        assert (held.low * held.high).sum() == 0
        found += int(changed.sum())
    assert found > 0


@by_name
def test_a_correction_does_not_depend_on_the_packs(correction: Correction) -> None:
    actor, rollout, weights, rows = some_tokens(3)
    whole = correction_weights(actor, rollout, weights, rows, correction)
    for row in rows.unique():
        part = rows == row
        alone = correction_weights(actor[part], rollout[part], weights[part], rows[part], correction)
        torch.testing.assert_close(alone, whole[part])


@by_name
def test_equal_engines_need_no_correction(correction: Correction) -> None:
    _, rollout, weights, rows = some_tokens(4)
    assert torch.equal(correction_weights(rollout, rollout, weights, rows, correction), weights)


@by_name
def test_a_token_without_weight_reaches_no_correction(correction: Correction) -> None:
    actor, rollout, weights, rows = some_tokens(5)
    clean = correction_weights(actor, rollout, weights, rows, correction)
    dirty = correction_weights(actor.masked_fill(weights == 0, torch.nan), rollout, weights, rows, correction)
    assert torch.equal(clean, dirty)


def test_no_tokens_need_no_correction() -> None:
    empty, rows = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    for correction in CORRECTIONS:
        assert correction_weights(empty, empty, empty, rows, correction).shape == (0,)
