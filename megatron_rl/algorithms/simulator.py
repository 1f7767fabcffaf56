"""BroRL's token-level simulator: one softmax, trained on N draws a step, watched token by token (Figure 3).

`OPEN` lists what the paper does not state and what is chosen here. Two of these decide the figure: the weight decay,
and Adam's epsilon, since a gradient is about 1e-9 with N = 51,200 draws, below the usual epsilon of 1e-8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from megatron_rl.algorithms.broadening import logit_change

PUBLISHED_NUM_SAMPLES = (4, 8, 16, 512, 51_200)
OPEN = {
    "starting logits": "seeded, which the paper calls optional; unseeded, Q_pos would start at 0.08, and the figure's "
    "axis is 0.60 to 0.64",
    "AdamW": "torch's defaults: betas 0.9 and 0.999, epsilon 1e-8, weight decay 0.01. N = 51,200 ends at Q_pos 0.647; "
    "at 0.654 without decay, and at 0.84 with epsilon 1e-12, for gradients there are about 1e-9",
    "anchor": "a correct token; an incorrect one leaves every worst change above -1e-5, and the figure's axis goes to "
    "-1e-4. How far N = 4 falls is how late the anchor is drawn first: -1e-5 to -1.4e-4 over seeds 0 to 5",
    "repeated draws": "count each time, as the simulator's loss sums over draws; theorem 1 counts a token once",
    "baseline": "the mean reward of the batch, a draw's own included; theorem 1 has none",
    "seed": "0 unless another is given; seeds 0 to 5 end within 0.001 of each other in Q_pos",
    "precision": "float64",
}


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """One curve of the figure: what has a default is stated in section 4.1 of the paper, the rest is varied or open."""

    num_samples: int  # N, independent draws a step
    weight_decay: float
    epsilon: float  # of AdamW
    anchor_is_correct: bool
    seed: int
    num_tokens: int = 128_000
    num_correct: int = 10_000
    correct_logit: float = 3.0  # the others start at 0
    anchor_logit: float = 5.0
    learning_rate: float = 1e-3
    num_steps: int = 1000


class Curves(NamedTuple):
    """What the three panels show after 0, 1, ... num_steps steps: float64 [num_steps + 1] each."""

    correct_mass: Tensor  # Q_pos
    improved_fraction: Tensor  # of the correct tokens: those above their probability at the start
    worst_change: Tensor  # of a correct token's probability since the start; the smallest


def starting_logits(simulation: Simulation) -> tuple[Tensor, Tensor]:
    """The logits [V] float64 and which tokens [V] are correct; token 0 is the anchor.

    Source: BroRL arXiv 2510.01180, section 4.1.

    >>> logits, is_correct = starting_logits(Simulation(
    ...     num_samples=1, weight_decay=0.0, epsilon=1e-8, anchor_is_correct=False, seed=0, num_tokens=5, num_correct=2
    ... ))
    >>> logits.tolist(), is_correct.tolist()
    ([5.0, 3.0, 3.0, 0.0, 0.0], [False, True, True, False, False])
    """
    first = 0 if simulation.anchor_is_correct else 1
    is_correct = torch.zeros(simulation.num_tokens, dtype=torch.bool)
    is_correct[first : first + simulation.num_correct] = True
    logits = simulation.correct_logit * is_correct.double()
    logits[0] = simulation.anchor_logit
    return logits, is_correct


def surrogate_gradient(probabilities: Tensor, rewards: Tensor, draws: Tensor) -> Tensor:
    """The gradient [V], by the logits, of -(1/N) sum (R - b) p over `draws` [N]; b is the mean reward of the draws.

    Source: BroRL arXiv 2510.01180, section 4.1.

    p = (1/2, 1/4, 1/4), rewards (1, -1, -1), and token 0 drawn three times, token 1 once: b = 1/2, so the weights
    3 * 1/2, 1 * -3/2 and 0 take the place of theorem 1's rewards, and their mean is 3/4 - 3/8 = 3/8.
    -1/4 * (1/2 * 9/8, 1/4 * -15/8, 1/4 * -3/8).

    >>> p, rewards = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([1.0, -1.0, -1.0])
    >>> surrogate_gradient(p, rewards, torch.tensor([0, 0, 1, 0])).tolist() == [-9 / 64, 15 / 128, 3 / 128]
    True
    """
    counts = torch.bincount(draws, minlength=len(probabilities)).to(probabilities.dtype)
    weights = counts * (rewards - rewards[draws].mean())
    return -logit_change(probabilities, weights, len(draws), 1.0)


def simulate(simulation: Simulation) -> Curves:
    """The curves of one simulation: each step draws N tokens and does one AdamW step on -(1/N) sum (R - mean R) p.

    R is 1 for a correct token and -1 for another; the sum is over draws. Same seed, same curves.

    Source: BroRL arXiv 2510.01180, section 4.1 and Figure 3.

    Two tokens of logit 0, one of them correct, and draws enough to meet both: Adam's first step is the learning rate
    in the gradient's direction, up for one and down for the other. With half the log of 3 the odds become 3 to 1.

    >>> import math
    >>> curves = simulate(Simulation(
    ...     num_samples=100, weight_decay=0.0, epsilon=1e-12, anchor_is_correct=True, seed=0, num_tokens=2,
    ...     num_correct=1, correct_logit=0.0, anchor_logit=0.0, learning_rate=math.log(3) / 2, num_steps=1,
    ... ))
    >>> [[round(value, 9) for value in curve.tolist()] for curve in curves]
    [[0.5, 0.75], [0.0, 1.0], [0.0, 0.25]]
    """
    logits, is_correct = starting_logits(simulation)
    rewards = 2 * is_correct.double() - 1
    optimizer = torch.optim.AdamW(
        [logits],
        lr=simulation.learning_rate,
        eps=simulation.epsilon,
        weight_decay=simulation.weight_decay,
        fused=True,  # under half the time of the others
    )
    generator = torch.Generator().manual_seed(simulation.seed)
    probabilities = logits.softmax(0)
    correct_tokens = is_correct.nonzero().squeeze(1)  # once: a mask is searched through at every step
    at_start = probabilities[correct_tokens]
    curves = Curves(*torch.zeros(3, simulation.num_steps + 1, dtype=torch.float64))
    for step in range(simulation.num_steps + 1):
        if step > 0:
            draws = torch.multinomial(probabilities, simulation.num_samples, replacement=True, generator=generator)
            logits.grad = surrogate_gradient(probabilities, rewards, draws)
            optimizer.step()
            probabilities = logits.softmax(0)
        correct = probabilities[correct_tokens]
        curves.correct_mass[step] = correct.sum()
        curves.improved_fraction[step] = (correct > at_start).double().mean()
        curves.worst_change[step] = (correct - at_start).min()
    return curves
