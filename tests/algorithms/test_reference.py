"""When the reference is reset."""

from megatron_rl.algorithms.reference import reset_is_due
from megatron_rl.config import ReferenceReset


def test_a_reset_is_due_at_every_period_and_never_before_training() -> None:
    reset = ReferenceReset(period_steps=300, clears_optimizer=False)
    assert [step for step in range(1000) if reset_is_due(step, reset)] == [300, 600, 900]
