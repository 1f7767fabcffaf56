"""The actor's current weights into the rollout engine: whole tensors streamed in memory, none missing, none extra."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

from megatron_rl.actor.actor import Actor
from megatron_rl.rollout.engine import Engine
from megatron_rl.runtime.spans import span


@span("refit")
def refit(actor: Actor, engine: Engine, manifest: dict[str, tuple[int, ...]], version: int) -> None:
    """Makes the engine hold the actor's weights, as policy `version`. Collective over the world.

    `manifest` is every Hugging Face name with its shape. Raises RuntimeError naming a tensor that is missing, extra
    or of another shape, and a parameter of the engine that no tensor filled.
    """
    if engine.version == version:
        return
    filled = engine.load(complete(actor.stream(), manifest), version)
    if empty := engine.parameter_names - filled:
        raise RuntimeError(f"refit: {len(empty)} parameters of the rollout engine were not filled: {shown(empty)}")


def complete(
    weights: Iterable[tuple[str, Tensor]], manifest: dict[str, tuple[int, ...]]
) -> Iterator[tuple[str, Tensor]]:
    """Passes the stream on, and raises RuntimeError where it is not exactly the manifest."""
    missing = set(manifest)
    for name, tensor in weights:
        if name not in missing:
            raise RuntimeError(f"refit: tensor {name} is {'sent twice' if name in manifest else 'not in the manifest'}")
        if tuple(tensor.shape) != manifest[name]:
            raise RuntimeError(f"refit: tensor {name} is {tuple(tensor.shape)}, the manifest says {manifest[name]}")
        missing.remove(name)
        yield name, tensor
    if missing:
        raise RuntimeError(f"refit: {len(missing)} tensors of the manifest were not sent: {shown(missing)}")


def shown(names: set[str], most: int = 4) -> str:
    """The first few names in order, and how many more there are."""
    listed = sorted(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
