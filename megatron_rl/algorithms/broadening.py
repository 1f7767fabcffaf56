"""BroRL's mass balance: what one step does to the probability of all correct tokens, and what more samples do to it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class MassChange(NamedTuple):
    """The change of the correct mass in first order, by the tokens it comes from: scalars that add up to it."""

    sampled_correct: Tensor  # (Rc - S_R) Q_neg A2, never negative
    sampled_incorrect: Tensor  # (S_R - Rw) Q_pos B2, never negative
    unsampled: Tensor  # S_R (Q_pos U_neg2 - Q_neg U_pos2), of either sign


def logit_change(probabilities: Tensor, rewards: Tensor, num_samples: int, step_size: float) -> Tensor:
    """The change [V] of the logits in one gradient step: step_size / num_samples * p (R - sum p R).

    It descends the surrogate -(1/N) sum of R p over the tokens. `rewards` [V] are 0 for unsampled tokens; all logits
    move nevertheless, since softmax couples them.

    Source: BroRL arXiv 2510.01180, section 2 and appendix C.1.

    p = (1/2, 1/4, 1/4), rewards 1, -1 and 0 (unsampled): sum p R = 1/4, so 1/2 * 3/4, 1/4 * -5/4 and 1/4 * -1/4, each
    by 2 / 2.

    >>> import torch
    >>> logit_change(torch.tensor([0.5, 0.25, 0.25]), torch.tensor([1.0, -1.0, 0.0]), 2, 2.0).tolist()
    [0.375, -0.3125, -0.0625]
    """
    return step_size / num_samples * probabilities * (rewards - probabilities @ rewards)


def mass_change(
    probabilities: Tensor,
    is_correct: Tensor,
    is_sampled: Tensor,
    *,
    reward_correct: float,
    reward_incorrect: float,
    num_samples: int,
    step_size: float,
) -> MassChange:
    """Theorem 1: the terms of dQ_pos after `logit_change`, for tokens [V] that are correct or not, sampled or not.

    dQ_pos = step_size / N * [(Rc - S_R) Q_neg A2 + (S_R - Rw) Q_pos B2 + S_R (Q_pos U_neg2 - Q_neg U_pos2)]

    Q_pos and Q_neg are the sums of p over all correct and all incorrect tokens, P_pos and P_neg over the sampled ones
    of each; A2 and B2 the sums of p^2 over the sampled ones, U_pos2 and U_neg2 over the others; S_R = Rc P_pos +
    Rw P_neg. A token that was drawn twice counts once, and rewards have no baseline. Exact in the first order
    of the step; the first two terms are not negative because Rw <= S_R <= Rc.

    Source: BroRL arXiv 2510.01180, theorem 1.

    p = (1/2, 1/4, 1/8, 1/8), the first two correct, the second and the fourth unsampled, rewards 1 and -1:
    S_R = 1/2 - 1/8 = 3/8, so 5/8 * 1/4 * 1/4, 11/8 * 3/4 * 1/64 and 3/8 * (3/4 * 1/64 - 1/4 * 1/16).

    >>> import torch
    >>> p = torch.tensor([0.5, 0.25, 0.125, 0.125])
    >>> correct, sampled = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    >>> terms = mass_change(
    ...     p, correct, sampled, reward_correct=1.0, reward_incorrect=-1.0, num_samples=2, step_size=2.0
    ... )
    >>> [term.item() for term in terms] == [5 / 128, 33 / 2048, -3 / 2048]
    True
    """
    assert reward_correct >= 0 >= reward_incorrect, f"{reward_correct} and {reward_incorrect} are not Rc >= 0 >= Rw"
    squares = probabilities.square()
    q_pos, q_neg = probabilities[is_correct].sum(), probabilities[~is_correct].sum()
    p_pos, p_neg = probabilities[is_correct & is_sampled].sum(), probabilities[~is_correct & is_sampled].sum()
    a2, b2 = squares[is_correct & is_sampled].sum(), squares[~is_correct & is_sampled].sum()
    u_pos2, u_neg2 = squares[is_correct & ~is_sampled].sum(), squares[~is_correct & ~is_sampled].sum()
    s_r = reward_correct * p_pos + reward_incorrect * p_neg
    scale = step_size / num_samples
    return MassChange(
        sampled_correct=scale * (reward_correct - s_r) * q_neg * a2,
        sampled_incorrect=scale * (s_r - reward_incorrect) * q_pos * b2,
        unsampled=scale * s_r * (q_pos * u_neg2 - q_neg * u_pos2),
    )


def expected_unsampled_squares(probabilities: Tensor, num_samples: int) -> Tensor:
    """Lemma 2: p^2 (1 - p)^N [V], what each token is expected to add to the sum of p^2 over the unsampled ones.

    Corollary 3 is the sum over the tokens. It falls as N grows, and with it all that theorem 1's third term can be.

    Source: BroRL arXiv 2510.01180, lemma 2 and corollary 3.

    1/4 * (1/2)^2 and 1/16 * (3/4)^2.

    >>> import torch
    >>> expected_unsampled_squares(torch.tensor([0.5, 0.25]), 2).tolist()
    [0.0625, 0.03515625]
    """
    return probabilities.square() * (1 - probabilities) ** num_samples
