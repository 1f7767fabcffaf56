"""Whole tensors to an engine that quantises them: it needs whole layers, so no plan of slices serves it.

No GPU has run it yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

from megatron_rl.actor.actor import Actor
from megatron_rl.config.weights import tensor_names
from megatron_rl.rollout.engine import Engine


def stream(actor: Actor, engine: Engine, version: int) -> None:
    """Makes the engine quantise the actor's weights anew, as policy `version`. Collective over the world.

    Raises RuntimeError naming a tensor that is missing, extra or of another shape, and a parameter of the engine that
    none of them filled.
    """
    filled = engine.load(complete(actor.stream(), tensor_names(actor.model)), version)
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


def shown(names: Iterable[str], most: int = 4) -> str:
    """The first few names in order, and how many more there are."""
    listed = sorted(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
