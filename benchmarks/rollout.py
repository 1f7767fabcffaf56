"""Groups of 16 and of 512 samples at equal samples, with and without a prefix cache; prints one line of JSON.

`Rollouts.collect` with prompts, seeds, waves and verifiers, against `LLM.generate` given the same requests at once; and
what a decoding step costs, which estimate/step.py has as its constants of a CPU.

Not covered: several engines, responses of very different lengths, GPUs.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loop import DEMO_DATA, DEMO_MODEL, PACKAGES, Figures, make_20m, requests_of, say, seconds_of

from megatron_rl.commands.choose import build_run
from megatron_rl.config.run import Run
from megatron_rl.runtime.ranks import process_environment

if TYPE_CHECKING:
    from megatron_rl.data.prompts import PromptStream
    from megatron_rl.device import Device
    from megatron_rl.rollout.collect import Rollouts
    from megatron_rl.rollout.engine import Engine
    from megatron_rl.runtime.parallel import Ranks
    from megatron_rl.types import Collected

GROUPS = (16, 512)  # samples of a prompt: ProRL's and BroRL's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A model and what it is asked for."""

    name: str  # suffix of the figures
    num_samples: int  # of a step, however they are grouped
    prompt_tokens: int  # some blocks of the prefix cache, of 32 tokens each on a CPU
    response_tokens: int  # at most
    repeats: int


TINY = Case(name="tiny", num_samples=1024, prompt_tokens=72, response_tokens=24, repeats=5)
TWENTY_MILLION = Case(name="20m", num_samples=512, prompt_tokens=72, response_tokens=8, repeats=2)


def main() -> None:
    """Times both models in this process and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, help="turns of each measurement; 5, of the large model 2")
    parser.add_argument("--quick", action="store_true", help="one group of 512, one turn: shows that it runs")
    parser.add_argument("--model", choices=("both", TINY.name, TWENTY_MILLION.name), default="both")
    options = parser.parse_args()
    figures: Figures = {}
    # The environment is read when torch is imported, and no import of torch comes before this line.
    first = make_run(DEMO_MODEL, TINY, GROUPS[0])
    os.environ.update(process_environment(first.scale))
    from megatron_rl import device
    from megatron_rl.runtime import parallel

    hardware = device.select(first.scale)
    ranks = parallel.start(first.scale, hardware, first.stall_seconds)
    with tempfile.TemporaryDirectory(prefix="megatron-rl-rollout-") as temporary:
        for case in (TINY, TWENTY_MILLION):
            if options.model in ("both", case.name):
                if options.quick:
                    case = dataclasses.replace(case, num_samples=max(GROUPS), response_tokens=4)
                folder = DEMO_MODEL if case.name == TINY.name else make_20m(Path(temporary))
                repeats = options.repeats or (1 if options.quick else case.repeats)
                found = measure(case, folder, ranks, hardware, repeats)
                figures |= {f"{name}_{case.name}": value for name, value in found.items()}
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    print(json.dumps({**{name: float(f"{value:.4g}") for name, value in figures.items()}, **versions}))


def make_run(model_folder: Path, case: Case, samples_per_prompt: int) -> Run:
    """ProRL v2 at scale cpu in one process, one round of so many samples for each prompt."""
    settings = {
        "scale.devices_per_node": 1,
        "algorithm.dynamic_sampling.max_rounds": 1,
        "algorithm.updates_per_step": 1,
        "sampling.prompts_per_step": case.num_samples // samples_per_prompt,
        "sampling.samples_per_prompt": samples_per_prompt,
        "sampling.max_prompt_tokens": case.prompt_tokens,
        "sampling.max_response_tokens": case.response_tokens,
        "run.store_waves_longer_than_seconds": 1e9,  # the same wave is asked for again and again; none from the disk
        "run.model_folder": model_folder,
        "run.data_folder": DEMO_DATA,
    }
    words = [f"{name}={value}" for name, value in settings.items()]
    return build_run("prorl_v2", "cpu", words, model_folder / "no_run", needs_files=True)


def measure(case: Case, folder: Path, ranks: Ranks, hardware: Device, repeats: int) -> Figures:
    """All figures of one model, on an engine made for it."""
    from safetensors.torch import load_file

    from megatron_rl.data.prompts import load_tokenizer
    from megatron_rl.rewards.score import Scorer
    from megatron_rl.rollout.collect import Rollouts
    from megatron_rl.rollout.engine import Engine
    from megatron_rl.runtime.preempt import Preemption

    say(f"{case.name}: starting the engine")
    run = make_run(folder, case, GROUPS[0])
    engine = Engine(run, ranks, hardware)
    engine.load(load_file(folder / "model.safetensors").items(), 0)
    tokenizer = load_tokenizer(DEMO_MODEL)  # also for the other model, whose words it does not know: they are as long
    figures = decoding_figures(case, engine)
    with Scorer(run.scale.verifier_processes, run.verifier_timeout_seconds) as scorer:
        for samples_per_prompt in GROUPS:
            run = make_run(folder, case, samples_per_prompt)
            rollouts = Rollouts(engine, tokenizer, scorer, Preemption(None, 0.0), run)
            found = group_figures(rollouts, stream_of(case, run, tokenizer), repeats)
            figures |= {f"{name}_n{samples_per_prompt}": value for name, value in found.items()}
    narrow, wide = (figures[f"samples_per_second_n{size}"] for size in GROUPS)
    return figures | {"n512_over_n16": wide / narrow}


def stream_of(case: Case, run: Run, tokenizer: Any) -> PromptStream:
    """The demo's problems, each as often as it goes into a prompt."""
    from megatron_rl.data.items import read_items
    from megatron_rl.data.prompts import PromptStream

    length = case.prompt_tokens
    items = read_items(run.data_folder / "train.jsonl")
    times = [length // len(tokenizer(one.prompt)["input_ids"]) for one in items]
    items = [dataclasses.replace(one, prompt=one.prompt * n) for one, n in zip(items, times, strict=True)]
    return PromptStream(items, tokenizer, seed=run.seed, max_prompt_tokens=length)


def group_figures(rollouts: Rollouts, prompts: PromptStream, repeats: int) -> Figures:
    """`Rollouts.collect` with and without its prefix cache, and `LLM.generate` on the same requests."""
    from megatron_rl.types import State

    engine, run = rollouts.engine, rollouts.run
    requests, options = requests_of(run, prompts)

    def collect() -> Collected:
        prompts.seek(0)
        return rollouts.collect(prompts, run.recipe, State.fresh())

    def generate() -> list[Any]:
        engine.forget_prefixes()
        how = [engine.options(one, **options, keeps_logprobs=True) for one in requests]
        return engine.llm.generate([engine.prompt(one) for one in requests], how, use_tqdm=False)

    found = collect()
    lengths = found.tried.lengths
    raw = [[len(sample.token_ids) for sample in output.outputs] for output in generate()]
    assert raw == lengths.tolist(), "both sides must generate the same tokens"
    label = f"{run.recipe.sampling.samples_per_prompt} samples a prompt"
    ours, plain = seconds_of(label, repeats, collect, generate)
    with without_prefix_cache(engine):
        (uncached,) = seconds_of(f"{label}, without a prefix cache", max(1, repeats // 2), collect)
    count = lengths.numel()
    return {
        "samples_per_second": count / ours,
        "tokens_per_second": int(lengths.sum()) / ours,
        "uncached_samples_per_second": count / uncached,
        "vllm_samples_per_second": count / plain,
        "collect_ratio": plain / ours,
        "prefix_hits": found.prefix_hits or 0.0,
    }


@contextmanager
def without_prefix_cache(engine: Engine) -> Iterator[None]:
    """No request looks for what another one has left in the cache."""
    original = engine.options

    def options(*arguments: Any, **words: Any) -> Any:
        found = original(*arguments, **words)
        found.skip_reading_prefix_cache = True
        return found

    engine.options = options  # type: ignore[method-assign]
    try:
        yield
    finally:
        engine.options = original  # type: ignore[method-assign]


def decoding_figures(case: Case, engine: Engine) -> Figures:
    """What one decoding step takes with one response under way, and what each further one adds."""
    from megatron_rl.types import Prompt, Request

    prompt = Prompt(serial=0, id="0", domain="math", token_ids=(5, 6, 7), opens_thought=False, item={})
    how = {"max_response_tokens": case.response_tokens, "temperature": 1.0, "top_p": 1.0}

    def timed(num_samples: int) -> tuple[float, int, int]:
        began = time.perf_counter()
        (samples,) = engine.generate([Request(prompt=prompt, seed=7, num_samples=num_samples)], **how)
        lengths = [len(sample.token_ids) for sample in samples]
        return time.perf_counter() - began, max(lengths), sum(lengths)

    timed(1)
    seconds, steps, _ = min(timed(1) for _ in range(3))
    many_seconds, many_steps, tokens = min(timed(engine.max_requests_in_flight) for _ in range(2))
    step = seconds / steps
    return {
        "decoding_step_milliseconds": 1e3 * step,
        "decoding_sequence_microseconds": 1e6 * (many_seconds - many_steps * step) / tokens,
    }


if __name__ == "__main__":
    main()
