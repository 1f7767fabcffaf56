"""How long a step will take, part by part as in the ledger, before anything is started.

Generation is simulated; the rest is floating-point operations over a share of what the device can do, and bytes over a
bandwidth. Not covered: tensor-parallel messages, pipeline bubbles, packs that do not fill a microbatch, verifiers that
are slower than the engines, a file system that others use.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from megatron_rl.config.precision import BYTES
from megatron_rl.config.records import Model, Recipe, Scale
from megatron_rl.config.run import Run
from megatron_rl.estimate.generation import Decoding, Lengths, Round, simulate
from megatron_rl.estimate.refill import expected_seconds, prompts_for_round
from megatron_rl.estimate.sharing import LARGEST_PIECE

Parts = dict[str, float]  # seconds of a step, by the names of report/ledger.py
SEED = 1  # of the lengths drawn


@dataclass(frozen=True, kw_only=True)
class Constants:
    """What a device, a policy and a system are taken to do."""

    flops: float  # of one device, bf16 without sparsity
    bytes_per_second: float  # that decoding reads of weights and keys
    decoding_flops: float  # that the responses of a decoding step reach; inf where reading takes longer
    training_share: float  # of `flops` that log-probabilities and updates reach
    prefill_share: float  # of `flops` that reading prompts reaches
    step_overhead_seconds: float  # of a decoding step, beyond reading the weights
    sequence_seconds: float  # of a decoding step, for each response under way
    refit_bytes_per_second: float  # of one device
    save_bytes_per_second: float  # of one device into the file system, all at once
    score_seconds: float  # of a round, that generation does not hide: verdicts, hand-overs
    start_seconds: float  # from the command to the first step
    lengths: Lengths
    keep_rate: float | None  # of groups; None: as published, by the samples of a group
    prompt_tokens: int
    largest_piece: int | None  # samples of a group that one engine answers; None: all
    oversamples: bool  # a round has as many prompts as estimate/refill.py says; else as many as the step


# One set for the papers' systems, whatever the row.
PUBLISHED = Constants(
    flops=989e12,  # H100 SXM data sheet
    bytes_per_second=2.6e12,  # of 3.35e12 on the data sheet: what attention kernels reach, 78 %
    decoding_flops=math.inf,  # a step of 512 responses is bound by its reading
    training_share=0.11,  # prime-rl, benchmarks/results: 11 % at 16k on an H100, a small model
    prefill_share=0.4,  # Megatron-LM README: 41 to 48 % of bf16 products
    step_overhead_seconds=2.3e-3,  # a step of 3.5 ms at 1.5B, less 1.2 ms to read 3.1 GB
    sequence_seconds=6e-6,  # sampling and bookkeeping of vLLM
    refit_bytes_per_second=100e9,  # a quarter of NVLink's 450e9
    save_bytes_per_second=0.5e9,  # a parallel file system of 30 GB/s under 64 devices
    # chosen: one value for all rows, without which two of the papers' three steps are 35 to 40 % longer than estimated
    score_seconds=100.0,
    start_seconds=120.0,  # engines with CUDA graphs
    lengths=Lengths(median_tokens=5000, sigma_of_prompts=0.5, sigma_within=0.4),  # means of 5.1k at 8k, 5.9k at 16k
    keep_rate=None,
    prompt_tokens=200,
    largest_piece=None,  # verl: a prompt's samples are one request
    oversamples=False,  # DAPO section 3.2 and verl: another batch until there are enough
)
# This program on the same devices.
OURS = dataclasses.replace(
    PUBLISHED,
    training_share=0.3,  # chosen, not measured: between the 11 % above and Megatron-LM's 41 % of whole models
    score_seconds=5.0,  # the time limit of a verdict: those of a wave are reached while the next is generated
    largest_piece=LARGEST_PIECE,
    oversamples=True,
)
# And on one thread of a CPU, where steps are decided by it alone: nothing is published.
ON_CPU = dataclasses.replace(
    OURS,
    flops=4e10,  # chosen: one thread in fp32
    prefill_share=1.0,
    decoding_flops=4e10,  # chosen: the same
    step_overhead_seconds=1.6e-3,  # measured by benchmarks/rollout.py on the demo's model
    sequence_seconds=5.7e-5,  # likewise: 73 us, of which 16 are arithmetic
    bytes_per_second=1e10,  # chosen: what one core reads of memory
    score_seconds=0.0,  # a verdict of the demo is reached in a millisecond
    prompt_tokens=16,
)


def ours(scale: Scale) -> Constants:
    """Those of this program on a scale's devices."""
    return ON_CPU if scale.device == "cpu" else OURS


def decoding(model: Model, scale: Scale, constants: Constants) -> Decoding:
    """What a decoding step of an engine costs, its ranks reading their shares at once."""
    size, ranks = BYTES[scale.precision], scale.rollout_tensor_parallel
    keys = 2 * model.num_layers * model.num_kv_heads * model.head_dim * size
    weights = size * multiplied_weights(model)
    return Decoding(
        step_seconds=constants.step_overhead_seconds + weights / ranks / constants.bytes_per_second,
        sequence_seconds=constants.sequence_seconds + 2 * model.num_parameters / (ranks * constants.decoding_flops),
        token_seconds=keys / ranks / constants.bytes_per_second,
        prefill_token_seconds=2 * model.num_parameters / (ranks * constants.flops * constants.prefill_share),
    )


def multiplied_weights(model: Model) -> int:
    """Weights that a token is multiplied by: all but a table of embeddings that is not the head's as well.

    >>> from recipes.models import R1_DISTILL_QWEN_1_5B as model
    >>> multiplied_weights(model) == 28 * 46_797_824 + 1_536 + 151_936 * 1_536
    True
    >>> tied = dataclasses.replace(model, tied_embeddings=True)
    >>> multiplied_weights(tied) == multiplied_weights(model)
    True
    """
    return model.num_parameters - (0 if model.tied_embeddings else model.vocab_size * model.hidden_size)


def published_keep_rate(samples_per_prompt: int) -> float:
    """The share of groups that are kept: a large group seldom lacks a spread. Linear in the logarithm of its size.

    Source: BroRL arXiv 2510.01180v1, Table 2: 41 % of 16, 62 % of 512.

    >>> [round(published_keep_rate(size), 2) for size in (16, 32, 512)]
    [0.41, 0.45, 0.62]
    """
    return min(1.0, max(0.05, 0.41 + (0.62 - 0.41) * math.log2(samples_per_prompt / 16) / 5))


def rounds(recipe: Recipe, scale: Scale, constants: Constants) -> list[Round]:
    """The rounds of generation until there are enough groups at the keep rate, on average."""
    sampling, wanted = recipe.sampling, float(recipe.sampling.prompts_per_step)
    keep_rate = keep_rate_of(recipe, constants)
    found: list[Round] = []
    while wanted > 0.5 and len(found) < 20:
        num_prompts = sampling.prompts_per_step
        if constants.oversamples:
            num_prompts = prompts_for_round(math.ceil(wanted), keep_rate, seconds_of_round(recipe, scale, constants))
        found.append(round_of(num_prompts, recipe, scale, constants))
        wanted -= num_prompts * keep_rate
    return found


def keep_rate_of(recipe: Recipe, constants: Constants) -> float:
    """The share of groups that a step keeps."""
    if recipe.algorithm.dynamic_sampling is None:
        return 1.0
    return constants.keep_rate or published_keep_rate(recipe.sampling.samples_per_prompt)


def generation_seconds(recipe: Recipe, scale: Scale, constants: Constants, largest_round: int | None = None) -> float:
    """What all rounds of a step are expected to take, chance of further ones included.

    With a `largest_round`, a round tries what is missing over the keep rate, at most so many times the step's prompts.
    """
    wanted, keep_rate = recipe.sampling.prompts_per_step, keep_rate_of(recipe, constants)
    seconds = seconds_of_round(recipe, scale, constants)

    def tried(missing: int) -> int:
        if largest_round is None:
            return prompts_for_round(missing, keep_rate, seconds)
        return min(math.ceil(missing / keep_rate), largest_round * wanted)

    return expected_seconds(wanted, keep_rate, seconds, tried)


@lru_cache(maxsize=1024)
def round_of(num_prompts: int, recipe: Recipe, scale: Scale, constants: Constants) -> Round:
    """One round of generation, its lengths drawn."""
    sampling = recipe.sampling
    return simulate(
        constants.lengths.draw(num_prompts, sampling.samples_per_prompt, sampling.max_response_tokens, SEED),
        prompt_tokens=constants.prompt_tokens,
        num_engines=scale.num_engines,
        slots=scale.max_requests_in_flight,
        cost=decoding(recipe.model, scale, constants),
        largest_piece=constants.largest_piece,
    )


def prompts_to_try(missing: int, keep_rate: float, mean_tokens: float, recipe: Recipe, scale: Scale) -> int:
    """What estimate/refill.py says of a round of this program, where responses are `mean_tokens` long on average.

    On a CPU cores decode, not ranks: any layout tries the same prompts, as if it had two engines.
    """
    if scale.device == "cpu":
        scale = dataclasses.replace(
            scale, num_nodes=1, devices_per_node=2, tensor_parallel=1, pipeline_parallel=1, rollout_tensor_parallel=1
        )
    constants = with_mean(ours(scale), mean_tokens)
    return prompts_for_round(missing, keep_rate, seconds_of_round(recipe, scale, constants))


def seconds_of_round(recipe: Recipe, scale: Scale, constants: Constants) -> Callable[[int], float]:
    """What a round of so many prompts is expected to take, verdicts included."""
    return lambda num_prompts: round_of(num_prompts, recipe, scale, constants).seconds + constants.score_seconds


def with_mean(constants: Constants, mean_tokens: float) -> Constants:
    """The constants with lengths of about this mean, to two digits: another one is another simulation.

    >>> found = with_mean(OURS, 5234.0).lengths
    >>> round(found.median_tokens * math.exp((found.sigma_of_prompts**2 + found.sigma_within**2) / 2))
    5200
    """
    lengths = constants.lengths
    ratio = math.exp((lengths.sigma_of_prompts**2 + lengths.sigma_within**2) / 2)  # of a lognormal's mean to its median
    return dataclasses.replace(
        constants, lengths=dataclasses.replace(lengths, median_tokens=float(f"{mean_tokens:.2g}") / ratio)
    )


def forward_flops(model: Model, tokens: float, context: float) -> float:
    """Operations of one forward pass over so many tokens of sequences whose mean context is `context` / 2."""
    attention = 2 * 2 * model.num_layers * model.num_heads * model.head_dim * context / 2
    return tokens * (2 * multiplied_weights(model) + attention)


def parts_of_step(run: Run, step: int, constants: Constants) -> Parts:
    """Seconds of one step of a run, by part; evaluation and saves in their share of a step."""
    recipe, scale, model = run.at_step(step), run.scale, run.recipe.model
    made = rounds(recipe, scale, constants)
    num_tokens, num_samples = sum(one.num_tokens for one in made), sum(one.num_samples for one in made)
    length = constants.prompt_tokens + num_tokens / max(1, num_samples)
    trained = recipe.sampling.prompts_per_step * recipe.sampling.samples_per_prompt * length
    forward = forward_flops(model, trained, length)
    forward /= scale.num_devices * constants.flops * constants.training_share
    passes = (1 - 1 / recipe.algorithm.updates_per_step) + (recipe.algorithm.kl is not None)
    size = BYTES[scale.precision]
    validation = dataclasses.replace(
        recipe,
        algorithm=dataclasses.replace(recipe.algorithm, dynamic_sampling=None),
        sampling=dataclasses.replace(
            recipe.sampling,
            prompts_per_step=run.max_validation_prompts,
            samples_per_prompt=recipe.validation.samples_per_prompt,
        ),
    )
    parts = {
        "refit": size * model.num_parameters / scale.rollout_tensor_parallel / constants.refit_bytes_per_second,
        "generate": sum(one.seconds - one.idle_seconds for one in made),
        "idle": sum(one.idle_seconds for one in made),
        "score": constants.score_seconds * len(made),
        "logprob": passes * forward,
        "update": (4 if scale.recomputes_activations else 3) * forward,
        "validate": sum(one.seconds for one in rounds(validation, scale, constants)) / run.validate_every_steps,
    }
    seconds = sum(parts.values())
    every = min(run.save_every_steps, max(1.0, 60 * run.save_every_minutes / seconds))
    saved = checkpoint_bytes(run) / scale.num_devices
    return parts | {"save": saved / constants.save_bytes_per_second / every}


def parts_of_run(run: Run, constants: Constants) -> Parts:
    """Seconds of all steps of a run, each stage by its own step."""
    starts = sorted({0, *(stage.from_step for stage in run.recipe.stages if stage.from_step < run.recipe.num_steps)})
    total: Parts = {}
    known: dict[tuple[int, int, int], Parts] = {}
    for start, end in zip(starts, [*starts[1:], run.recipe.num_steps], strict=True):
        sampling = run.at_step(start).sampling
        key = (sampling.prompts_per_step, sampling.samples_per_prompt, sampling.max_response_tokens)
        known[key] = known.get(key) or parts_of_step(run, start, constants)
        for name, seconds in known[key].items():
            total[name] = total.get(name, 0.0) + seconds * (end - start)
    return total


def checkpoint_bytes(run: Run) -> int:
    """What one checkpoint takes on disk: weights, reference and best policy if any, fp32 weights and two moments."""
    algorithm = run.recipe.algorithm
    reset = algorithm.reference_reset
    copies = 1 + (algorithm.kl is not None) + (reset is not None and reset.target == "best_checkpoint")
    return (copies * BYTES[run.scale.precision] + 12) * run.recipe.model.num_parameters


def measured_steps(rows: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """The lines of metrics that have both speeds: of steps that updated the policy, and generated something for it."""
    needed = ("time/update_seconds", "throughput/updated_tokens_per_second", "throughput/generated_tokens_per_second")
    return [row for row in rows if all(row.get(name) for name in needed)]


def from_metrics(constants: Constants, run: Run, rows: list[Mapping[str, float]]) -> Constants:
    """The constants that a run's own metrics give, by their medians: lengths, keep rate, and both speeds.

    Generation is brought to what was measured by a factor on all that a decoding step costs.
    """
    steps = measured_steps(rows)

    def median(name: str) -> float:
        found = sorted(row[name] for row in steps if name in row)
        return found[len(found) // 2]

    model, devices = run.recipe.model, run.scale.num_devices
    tokens = max(1.0, median("rollout/response_tokens_mean"))
    length = constants.prompt_tokens + tokens
    middle = median("rollout/response_tokens_median")
    rate = median("throughput/updated_tokens_per_second")
    # The rate is of response tokens; their prompts are gone through with them.
    work = (4 if run.scale.recomputes_activations else 3) * forward_flops(model, length / tokens, length)
    found = dataclasses.replace(
        constants,
        training_share=rate * work / (devices * constants.flops),
        lengths=dataclasses.replace(constants.lengths, median_tokens=max(1.0, middle)),
        keep_rate=max(0.05, median("dynamic_sampling/keep_rate")),
    )
    recipe = run.at_step(0)
    simulated = rounds(recipe, run.scale, found)
    speed = sum(one.num_tokens for one in simulated) / sum(one.seconds for one in simulated)
    return slowed(found, speed / median("throughput/generated_tokens_per_second"))


def slowed(constants: Constants, factor: float) -> Constants:
    """Constants with which all that a decoding step costs takes `factor` times as long."""
    return dataclasses.replace(
        constants,
        step_overhead_seconds=constants.step_overhead_seconds * factor,
        sequence_seconds=constants.sequence_seconds * factor,
        bytes_per_second=constants.bytes_per_second / factor,
        decoding_flops=constants.decoding_flops / factor,
        prefill_share=constants.prefill_share / factor,
    )
