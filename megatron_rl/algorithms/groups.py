"""Dynamic sampling: which groups can teach something."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Test = Literal["reward_std_above_zero", "mean_inside_zero_one", "some_but_not_all_correct"]


def counted(scores: Tensor, how: Literal["binary", "fraction"]) -> Tensor:
    """Verdict scores, 0..1, of any shape as a domain counts them: 1 for a full score and else 0, or as they are.

    Source: ProRL v1 arXiv 2505.24864v1, Table 4 (what training pays) and section 3.4 (what evaluation counts: code is
    trained on the fraction of its tests, and evaluated on whether all pass).

    >>> counted(torch.tensor([1.0, 0.9, 0.0]), "binary").tolist(), counted(torch.tensor([0.5]), "fraction").tolist()
    ([1.0, 0.0, 0.0], [0.5])
    """
    return scores if how == "fraction" else (scores >= 1).to(scores.dtype)


def tests(rewards: Tensor, judged: Tensor) -> dict[Test, Tensor]:
    """Which groups each published test keeps, [G] bool, by the raw rewards [G, N], 0..1, of the judged samples.

    reward_std_above_zero     some differ: elsewhere every advantage is 0            NeMo-RL, verl
    mean_inside_zero_one      not all are 0 and not all are 1                        OpenRLHF
    some_but_not_all_correct  some, and not all, are 1                               BroRL

    On 0/1 rewards the three agree. No test keeps a group with fewer than two judged samples. All are told by the
    extremes rather than by a computed mean or deviation: rounding gives three rewards of 0.1 a deviation above 0.

    Source: ProRL v2 blog, 2025-08-13, and DAPO arXiv 2503.14476, section 3.2, both for 0/1 rewards; BroRL arXiv
    2510.01180v1.

    All right; all half right; half right or wrong; and one right beside a sample without verdict.

    >>> rewards = torch.tensor([[1.0, 1.0], [0.5, 0.5], [0.5, 0.0], [1.0, 0.0]])
    >>> judged = torch.tensor([[True, True], [True, True], [True, True], [True, False]])
    >>> for name, kept in tests(rewards, judged).items():
    ...     print(name, kept.tolist())
    reward_std_above_zero [False, False, True, False]
    mean_inside_zero_one [False, True, True, False]
    some_but_not_all_correct [False, False, False, False]
    """
    highest = rewards.masked_fill(~judged, -torch.inf).amax(1)
    lowest = rewards.masked_fill(~judged, torch.inf).amin(1)
    comparable = judged.sum(1) >= 2
    return {
        "reward_std_above_zero": comparable & (highest > lowest),
        "mean_inside_zero_one": comparable & (highest > 0) & (lowest < 1),
        "some_but_not_all_correct": comparable & (highest >= 1) & (lowest < 1),
    }


def is_informative(rewards: Tensor, judged: Tensor, keeps: Test) -> Tensor:
    """True [G] for the groups that the test `keeps`.

    Source: as `tests`.

    All right; one of two right; a spread that only an unjudged sample makes.

    >>> rewards = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    >>> judged = torch.tensor([[True, True, True], [True, True, False], [True, True, False]])
    >>> is_informative(rewards, judged, "reward_std_above_zero").tolist()
    [False, True, False]
    """
    return tests(rewards, judged)[keeps]
