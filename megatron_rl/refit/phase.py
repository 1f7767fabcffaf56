"""Who holds the device's memory when: the rollout phase of the colocated pair."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from megatron_rl.actor.actor import Actor
from megatron_rl.refit.transfer import refit
from megatron_rl.rollout.engine import Engine


@contextmanager
def rollout_phase(actor: Actor, engine: Engine, version: int) -> Iterator[None]:
    """Inside, the engine is awake with the actor's weights as policy `version`. Collective over the world.

    The order matters: weights wake, then are filled, and only then does the cache wake; vLLM must never run a forward
    pass, nor take weights, in between. What of the actor the scale offloads leaves before the engine needs the room,
    and comes back once it sleeps.
    """
    actor.offload.leave()
    actor.device.release_memory()  # vLLM's memory comes from the system, not from what training left to torch
    engine.wake("weights")
    refit(actor, engine, version)
    actor.offload.leave_weights()
    engine.wake("kv_cache")
    try:
        yield
    finally:
        engine.sleep()
        actor.offload.come_back()


def end(actor: Actor, engine: Engine) -> None:
    """Ends the engine, and with it the process groups, after the last use of the actor. Collective over the world.

    The engine takes its memory once more, to give it back in order: where the scale offloads, it has no room beside the
    whole actor.
    """
    actor.offload.leave()
    actor.offload.leave_weights()
    actor.device.release_memory()
    engine.close()
