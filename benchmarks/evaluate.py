"""Samples per second through `evaluate` against vLLM alone on the same requests; one JSON line.

python benchmarks/evaluate.py [--samples 256] [--repetitions 5]

The sides take turns in one process, on the demo's model and suite mini: vLLM alone, which is given all requests at once
and whose samples are dropped; `evaluate` until the last verdict is on the disk, as it is, with our scorers alone, and
without any: what is between them is the verifiers' share of the cores. A ratio is the median over the repetitions,
whose order changes.
Seconds of computing are those of the engine's process: they say the same on a machine that others use.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megatron_rl.commands.choose import find_scale
from megatron_rl.commands.suites import find_suite
from megatron_rl.config.suites import Scorer
from megatron_rl.evaluation.plan import Ask, Evaluation, Policy, asks_of
from megatron_rl.evaluation.store import Wave
from megatron_rl.runtime.ranks import process_environment

MODEL = Path(__file__).resolve().parents[1] / "demo" / "model"


def main() -> None:
    """Measures, and prints medians over the repetitions."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=256, help="per problem")
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    scale = dataclasses.replace(find_scale("cpu"), devices_per_node=1)
    os.environ.update(process_environment(scale))
    policy = Policy(name="model", title="model", folder=MODEL, step=None, shape_folder=MODEL)
    asks = asks_of([find_suite("mini")], samples_per_problem=given.samples)
    with tempfile.TemporaryDirectory() as folder:
        evaluation = Evaluation(directory=Path(folder), policies=(policy,), asks=asks, scale=scale)
        print(json.dumps(measure(evaluation, given.repetitions)))


def measure(evaluation: Evaluation, repetitions: int) -> dict[str, float]:
    """Samples per second of every side, and of each the share of vLLM's."""
    from megatron_rl import device
    from megatron_rl.evaluation import run
    from megatron_rl.evaluation.generate import Generator
    from megatron_rl.evaluation.keeper import Job, Keeper, Part
    from megatron_rl.rollout.engine import Engine
    from megatron_rl.runtime import parallel
    from megatron_rl.runtime.preempt import Preemption

    hardware = device.select(evaluation.scale)
    ranks = parallel.start(evaluation.scale, hardware, 600.0)
    engine, preemption = Engine(evaluation, ranks, hardware), Preemption(None, 0.0)
    ((policy, asked),) = run.asked_by(evaluation, ranks)
    how = asked[0].ask.answering
    requests = [request for one in asked for _, part in one.waves for request in part]
    num_samples = sum(request.num_samples for request in requests)
    keeper, generator = Keeper(evaluation), Generator(evaluation, engine, ranks, preemption)

    def judged_by(*scorers: Scorer) -> Callable[[Ask, Wave, tuple[Part, ...]], None]:
        return lambda ask, wave, parts: keeper.take(Job(ask.name, wave, parts, scorers))

    def evaluate(keeps: Callable[[Ask, Wave, tuple[Part, ...]], None]) -> None:
        generator.answer(policy, asked, tells=lambda _: None, keeps=keeps)
        keeper.wait(lambda: False)

    def vllm() -> None:
        engine.forget_prefixes()
        prompts = [engine.prompt(request) for request in requests]
        options = [
            engine.options(
                request,
                max_response_tokens=how.max_response_tokens,
                temperature=how.temperature,
                top_p=how.top_p,
                keeps_logprobs=False,
            )
            for request in requests
        ]
        engine.llm.generate(prompts, options, use_tqdm=False)

    ways: dict[str, Callable[[], None]] = {
        "vllm": vllm,
        "evaluate": lambda: evaluate(keeper.keep),
        "ours": lambda: evaluate(judged_by("ours")),
        "unjudged": lambda: evaluate(judged_by()),
    }
    for way in list(ways)[::-1]:  # warms up; vLLM has no weights before `evaluate` gives it some
        shutil.rmtree(evaluation.directory / "policies", ignore_errors=True)
        ways[way]()
    wall: dict[str, list[float]] = {name: [] for name in ways}
    computing: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(repetitions):
        for name in list(ways)[:: 1 if repetition % 2 == 0 else -1]:
            shutil.rmtree(evaluation.directory / "policies", ignore_errors=True)
            began, computed = time.perf_counter(), time.process_time()
            ways[name]()
            wall[name].append(time.perf_counter() - began)
            computing[name].append(time.process_time() - computed)
    keeper.close()
    engine.close()
    found: dict[str, Any] = {"samples": num_samples}
    for name in ways:
        found[f"{name}_samples_per_second"] = num_samples / statistics.median(wall[name])
        found[f"{name}_computing_seconds"] = statistics.median(computing[name])
    for name in ("evaluate", "ours", "unjudged"):
        found[f"{name}_ratio"] = share(wall["vllm"], wall[name])
        found[f"{name}_computing_ratio"] = share(computing["vllm"], computing[name])
    return found


def share(of: list[float], seconds: list[float]) -> float:
    """The median of the ratios of two sides, repetition by repetition."""
    return statistics.median(a / b for a, b in zip(of, seconds, strict=True))


if __name__ == "__main__":
    main()
