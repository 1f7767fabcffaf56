"""When the reference policy is replaced by the current one."""

from __future__ import annotations

from megatron_rl.config import ReferenceReset


def reset_is_due(step: int, reset: ReferenceReset) -> bool:
    """True when the reference becomes a copy of the policy that `step` finished steps have made.

    Source: ProRL v2 blog, 2025-08-13: every 200 to 500 steps, optimizer kept; ProRL v1 arXiv 2505.24864v1, section
    2.3.1, where validation decides and the optimizer is cleared. Not covered: resets on a KL spike or a stall.

    >>> reset = ReferenceReset(period_steps=3, clears_optimizer=False)
    >>> [step for step in range(10) if reset_is_due(step, reset)]
    [3, 6, 9]
    """
    return step > 0 and step % reset.period_steps == 0
