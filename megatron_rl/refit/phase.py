"""Who holds the device's memory when: the rollout phase of the colocated pair."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from megatron_rl.actor.actor import Actor
from megatron_rl.config.weights import tensor_names
from megatron_rl.refit.transfer import refit
from megatron_rl.rollout.engine import Engine


@contextmanager
def rollout_phase(actor: Actor, engine: Engine, version: int) -> Iterator[None]:
    """Inside, the engine is awake with the actor's weights as policy `version`. Collective over the world.

    The order matters: weights wake, then are filled, and only then does the cache wake; vLLM must never run a forward
    pass, nor take weights, in between.
    """
    actor.device.release_memory()  # vLLM's memory comes from the system, not from what training left to torch
    engine.wake("weights")
    refit(actor, engine, tensor_names(actor.model), version)
    engine.wake("kv_cache")
    try:
        yield
    finally:
        engine.sleep()
