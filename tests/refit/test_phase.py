"""Who holds a device's memory when: more than fits is never asked of it, not at the end either."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from megatron_rl.refit import phase

WEIGHTS, OPTIMIZER, ENGINE_WEIGHTS, CACHE = 3, 9, 3, 8  # of one device; both engines as a whole have 23


@dataclass
class Gpu:
    """A device of limited memory with an actor and an engine that say what they take of it."""

    size: int
    offloads: tuple[str, ...]
    held: dict[str, int] = field(default_factory=lambda: {"weights": WEIGHTS, "optimizer": OPTIMIZER})
    most: int = 0

    def take(self, what: str, size: int) -> None:
        self.held[what] = size
        self.most = max(self.most, sum(self.held.values()))
        if self.most > self.size:
            raise RuntimeError("CUDA Error: out of memory at cumem_allocator.cpp")

    def give(self, *what: str) -> None:
        for name in what:
            self.held.pop(name, None)

    # The actor, of which it is the offload and the device, too.
    @property
    def offload(self) -> Gpu:
        return self

    device = offload

    def release_memory(self) -> None: ...

    def leave(self) -> None:
        self.give(*(one for one in self.offloads if one == "optimizer"))

    def leave_weights(self) -> None:
        self.give(*(one for one in self.offloads if one == "weights"))

    def come_back(self) -> None:
        for name, size in (("optimizer", OPTIMIZER), ("weights", WEIGHTS)):
            self.take(name, size)

    # The engine.
    def wake(self, what: str) -> None:
        self.take(f"engine's {what}", {"weights": ENGINE_WEIGHTS, "kv_cache": CACHE}[what])

    def sleep(self) -> None:
        self.give("engine's weights", "engine's kv_cache")

    def close(self) -> None:
        for what in ("weights", "kv_cache"):
            self.wake(what)
        self.sleep()


@pytest.fixture(autouse=True)
def no_refit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(phase, "refit", lambda actor, engine, version: None)
    yield


@pytest.mark.parametrize(
    ("offloads", "size"), [((), 23), (("optimizer",), 14), (("optimizer", "weights"), 12)], ids=lambda value: str(value)
)
def test_a_device_that_holds_a_rollout_phase_holds_the_end_of_a_run(offloads: tuple[str, ...], size: int) -> None:
    gpu: Any = Gpu(size, offloads)
    with phase.rollout_phase(gpu, gpu, version=0):
        pass
    assert gpu.held == {"weights": WEIGHTS, "optimizer": OPTIMIZER}
    phase.end(gpu, gpu)
    assert gpu.most == size
