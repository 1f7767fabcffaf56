"""Samples per second through `evaluate` against vLLM alone on the same requests; one JSON line.

python benchmarks/evaluate.py [--samples 256] [--repetitions 3]

`evaluate` generates in waves, stores every sample on the disk and judges in the background; vLLM alone is given all
requests at once and its samples are dropped. The two take turns in one process, on the demo's model and suite mini.
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
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from megatron_rl.commands.choose import find_scale
from megatron_rl.commands.suites import find_suite
from megatron_rl.evaluation.plan import Evaluation, Policy, asks_of
from megatron_rl.runtime.ranks import process_environment

MODEL = Path(__file__).resolve().parents[1] / "demo" / "model"


def main() -> None:
    """Measures, and prints medians over the repetitions."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=256, help="per problem")
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args()
    scale = dataclasses.replace(find_scale("cpu"), devices_per_node=1)
    os.environ.update(process_environment(scale))
    with tempfile.TemporaryDirectory() as folder:
        policy = Policy(name="model", title="model", folder=MODEL, step=None, shape_folder=MODEL)
        asks = asks_of([find_suite("mini")], given.samples, None)
        evaluation = Evaluation(directory=Path(folder), policies=(policy,), asks=asks, scale=scale)
        print(json.dumps(measure(evaluation, given.repetitions)))


def measure(evaluation: Evaluation, repetitions: int) -> dict[str, float]:
    """Median samples per second of both ways, and their ratio."""
    from megatron_rl import device
    from megatron_rl.data.prompts import load_tokenizer
    from megatron_rl.evaluation import run
    from megatron_rl.evaluation.generate import Generator
    from megatron_rl.evaluation.judge import judge
    from megatron_rl.rewards.score import Scorer
    from megatron_rl.rollout.engine import Engine
    from megatron_rl.runtime import parallel
    from megatron_rl.runtime.preempt import Preemption

    hardware = device.select(evaluation.scale)
    ranks = parallel.start(evaluation.scale, hardware, 600.0)
    engine = Engine(evaluation, ranks, hardware)
    generator = Generator(evaluation, engine, ranks, load_tokenizer(evaluation.model_folder), Preemption(None, 0.0))
    items = {ask.name: {item.id: item for item in run.items_of(evaluation, ask)} for ask in evaluation.asks}
    pending: list[Future[None]] = []
    seconds: dict[str, list[float]] = {"evaluate": [], "vllm": []}
    with Scorer(1, 5.0) as scorer, ThreadPoolExecutor(1) as thread:
        for _ in range(repetitions + 1):
            shutil.rmtree(evaluation.directory / "policies", ignore_errors=True)
            ((policy, asked),) = run._asked(evaluation, ranks)
            requests = [request for one in asked for _, part in one.waves for request in part]
            began = time.perf_counter()
            generator.answer(
                policy,
                asked,
                tells=lambda _: None,
                keeps=lambda ask, wave: pending.append(thread.submit(judge, wave, "ours", items[ask.name], scorer)),
            )
            for found in pending:
                found.result()
            pending.clear()
            seconds["evaluate"].append(time.perf_counter() - began)
            answering = asked[0].ask.answering
            prompts = [{"prompt_token_ids": list(request.prompt.token_ids)} for request in requests]
            options = [
                engine.vllm.SamplingParams(
                    n=request.num_samples,
                    temperature=answering.temperature,
                    top_p=answering.top_p,
                    max_tokens=answering.max_response_tokens,
                    stop_token_ids=list(engine.stop_tokens),
                    seed=request.seed,
                    detokenize=False,
                )
                for request in requests
            ]
            engine.llm.reset_prefix_cache()
            began = time.perf_counter()
            engine.llm.generate(prompts, options, use_tqdm=False)
            seconds["vllm"].append(time.perf_counter() - began)
    num_samples = sum(request.num_samples for request in requests)
    engine.close()
    speed = {name: num_samples / statistics.median(found[1:]) for name, found in seconds.items()}  # the first warms up
    return {
        "samples": num_samples,
        "evaluate_samples_per_second": speed["evaluate"],
        "vllm_samples_per_second": speed["vllm"],
        "ratio": speed["evaluate"] / speed["vllm"],
    }


if __name__ == "__main__":
    main()
