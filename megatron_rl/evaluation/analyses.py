"""What the papers read out of pass@k: who gains where, how far a policy can go, and what an answer costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from megatron_rl.algorithms.pass_at_k import pass_at_k_bound
from megatron_rl.evaluation.table import Result, task_weights

BOUNDARY_K = 128  # ProRL v1 arXiv 2505.24864v1, section 4.1
FLAT = 0.01  # chosen: a change of pass@k below a percent is none
ROUNDING = 1e-12  # of differences of numbers in 0..1
Regime = Literal["diminish", "plateau", "sustained", "grown", "flat"]


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """How far the first policy and the last one can go on a benchmark, with many samples."""

    benchmark: str
    k: int  # 128, or the largest there is
    before: float
    after: float
    middle: float | None
    pass_at_1_gain: float
    regime: Regime

    @property
    def gain(self) -> float:
        return self.after - self.before


def boundaries(results: Sequence[Result], policies: Sequence[str]) -> list[Boundary]:
    """The boundary of every benchmark that the first and the last policy were asked, by our own scorers.

    Source: ProRL v1 arXiv 2505.24864v1, sections 4.1 and 4.2: diminish, where pass@1 rises and the boundary does not;
    plateau, where the intermediate policy has the whole gain; sustained, where the last one gains more. Here a boundary
    that falls diminishes whatever pass@1 does. Without an intermediate policy the last two cannot be told apart, and a
    gain is called grown.
    """
    ours = {(one.policy, one.benchmark.name): one for one in results if one.scorer == "ours"}
    first, *between, last = policies if len(policies) > 1 else (*policies, *policies)
    found = []
    for name in dict.fromkeys(one.benchmark.name for one in results):
        before, after = ours.get((first, name)), ours.get((last, name))
        if before is None or after is None or before is after:
            continue
        shared = sorted(set(before.pass_at_k) & set(after.pass_at_k))
        k = max(k for k in shared if k <= BOUNDARY_K)
        middle = ours.get((between[len(between) // 2], name)) if between else None
        values = (
            before.pass_at_k[k].value,
            middle.pass_at_k[k].value if middle is not None and k in middle.pass_at_k else None,
            after.pass_at_k[k].value,
        )
        gain = after.pass_at_1.value - before.pass_at_1.value
        found.append(
            Boundary(
                benchmark=name,
                k=k,
                before=values[0],
                middle=values[1],
                after=values[2],
                pass_at_1_gain=gain,
                regime=regime_of(gain, *values),
            )
        )
    return found


def regime_of(pass_at_1_gain: float, before: float, middle: float | None, after: float) -> Regime:
    """Which of the paper's regimes three boundaries show.

    >>> regime_of(0.2, 0.9, 0.9, 0.88), regime_of(0.2, 0.2, 0.6, 0.6), regime_of(0.2, 0.2, 0.4, 0.6)
    ('diminish', 'plateau', 'sustained')
    >>> regime_of(0.2, 0.2, None, 0.6), regime_of(0.0, 0.5, 0.5, 0.5)
    ('grown', 'flat')
    """
    if after - before < FLAT:
        return "diminish" if pass_at_1_gain >= FLAT or after - before <= -FLAT else "flat"
    if middle is None:
        return "grown"
    return "sustained" if after - middle >= FLAT else "plateau"


def correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Pearson's correlation; None for fewer than three pairs, or where one side is constant.

    >>> correlation([(0.0, 3.0), (1.0, 2.0), (2.0, 1.0)])
    -1.0
    """
    if len(pairs) < 3:
        return None
    means = [math.fsum(pair[side] for pair in pairs) / len(pairs) for side in (0, 1)]
    offsets = [(x - means[0], y - means[1]) for x, y in pairs]
    spread = math.fsum(x * x for x, _ in offsets) * math.fsum(y * y for _, y in offsets)
    return math.fsum(x * y for x, y in offsets) / math.sqrt(spread) if spread > 0 else None


def bounds(result: Result) -> dict[int, float]:
    """k -> the most that mean pass@k can be, by mean and variance of the problems' pass@1 as right or wrong.

    It holds for the true pass@1: near as many tries as there are samples, an unbiased pass@k may lie above it.

    Source: ProRL v1 arXiv 2505.24864v1, eq. 5.
    """
    known = {name: scores for name, scores in result.scores.items() if scores}
    right = [sum(score >= 1 for score in scores) / len(scores) for scores in known.values()]
    weights = task_weights([result.tasks[name] for name in known])
    each, weight = torch.tensor(right, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64)
    return {k: float(pass_at_k_bound(each, k, weight)) for k in result.pass_at_k if k >= 2}


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A paired t-test over problems: whether the second policy is better than the first."""

    num_problems: int
    delta: float  # mean of the problems' differences
    t: float
    p_one_tailed: float  # that the second is no better


def paired_t_test(before: Mapping[str, float], after: Mapping[str, float]) -> Paired | None:
    """The test over the problems that both answered; None for fewer than two, or differences that are all the same.

    The same but for rounding: the mean of n samples moves by steps of 1/n, far above `ROUNDING`.

    Source: BroRL arXiv 2510.01180, Appendix D: a delta of 0.0033 with t = 4.84 has p = 6.5e-7.
    """
    differences = [after[name] - before[name] for name in before if name in after]
    count = len(differences)
    if count < 2:
        return None
    delta = math.fsum(differences) / count
    variance = math.fsum((one - delta) ** 2 for one in differences) / (count - 1)
    if math.sqrt(variance) <= ROUNDING:
        return None
    t = delta / math.sqrt(variance / count)
    return Paired(num_problems=count, delta=delta, t=t, p_one_tailed=student_tail(t, count - 1))


def student_tail(t: float, degrees: int) -> float:
    """The probability that Student's t with so many degrees of freedom exceeds `t`.

    With one degree it is Cauchy's distribution, of which a quarter lies above 1.

    >>> round(student_tail(1.0, 1), 12), round(student_tail(-1.0, 1), 12)
    (0.25, 0.75)
    """
    import mpmath

    half = mpmath.betainc(degrees / 2, 0.5, 0, degrees / (degrees + t * t), regularized=True) / 2
    return float(half if t >= 0 else 1 - half)
