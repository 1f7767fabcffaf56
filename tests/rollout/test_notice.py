"""A notice ends a step at the next wave, also where several ranks are one engine and hear it at different times."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from megatron_rl import device
from megatron_rl.data.prompts import load_tokenizer
from megatron_rl.rewards.score import Scorer
from megatron_rl.rollout.collect import Rollouts
from megatron_rl.runtime import parallel
from megatron_rl.runtime.preempt import Preempted, Preemption
from recipes import prorl_v2
from tests.models import make_run, replaced
from tests.ranks import run_ranks
from tests.rollout.test_collect import NUM_SAMPLES, RIGHT, WRONG, ScriptedEngine, stream_of

DEMO = Path(__file__).parents[2] / "demo"


class Told(Preemption):
    """Hears the notice on its own rank only, after so many waves."""

    def __init__(self, engine: ScriptedEngine, after_waves: int | None) -> None:
        super().__init__(None, 0.0)
        self.engine, self.after_waves = engine, after_waves

    @property
    def reason(self) -> str | None:  # type: ignore[override]
        heard = self.after_waves is not None and len(self.engine.asked) >= self.after_waves
        return "told to leave" if heard else None


def waves_until_the_notice(directory: str) -> dict[str, Any]:
    """Runs on every rank: three waves of one engine of two ranks; the first rank is told after the first of them."""
    run = make_run(DEMO / "model", devices_per_node=2, rollout_tensor_parallel=2, sequences_per_wave=2 * NUM_SAMPLES)
    run = dataclasses.replace(run, directory=Path(directory))
    ranks = parallel.start(run.scale, device.select(run.scale), 60)
    tokenizer = load_tokenizer(DEMO / "model")
    engine: Any = ScriptedEngine(tokenizer, lambda _: [WRONG, RIGHT, WRONG])
    engine.ranks = ranks
    stream, recipe = stream_of(tokenizer, "5"), prorl_v2.RECIPE
    for name, value in {"prompts_per_step": 6, "samples_per_prompt": NUM_SAMPLES, "max_response_tokens": 16}.items():
        recipe = replaced(recipe, ["sampling", name], value)
    from megatron_rl.types import State

    with Scorer(num_processes=1, timeout_seconds=20.0) as scorer:
        rollouts = Rollouts(engine, tokenizer, scorer, Told(engine, 1 if ranks.rank == 0 else None), run)
        try:
            rollouts.collect(stream, recipe, State.fresh())
        except Preempted as left:
            return {"waves": len(engine.asked), "reason": str(left), "position": stream.position}
    return {"waves": len(engine.asked)}


@pytest.mark.ranks
def test_all_ranks_of_an_engine_leave_before_the_same_wave(tmp_path: Path) -> None:
    found = run_ranks("tests.rollout.test_notice:waves_until_the_notice", 2, directory=str(tmp_path))
    assert found == [{"waves": 1, "reason": "told to leave", "position": 0}] * 2
