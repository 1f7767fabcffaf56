"""One vLLM engine in this process, or spread over neighbouring ones: generate, load, sleep, wake, version."""

from __future__ import annotations

import gc
import itertools
import os
from array import array
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from megatron_rl.config.positions import rope_parameters
from megatron_rl.config.pretrained import ARCHITECTURES
from megatron_rl.config.records import Model, Scale, YarnScaling
from megatron_rl.config.tokenizer import stop_tokens
from megatron_rl.device import Device
from megatron_rl.rollout.quantization import quantization, reload
from megatron_rl.runtime import parallel
from megatron_rl.runtime.parallel import Ranks
from megatron_rl.runtime.ranks import ENGINE_VARIABLES
from megatron_rl.runtime.rundir import name_shared_memory, remove_shared_memory, shared_memory_name
from megatron_rl.runtime.spans import span
from megatron_rl.types import Request, Sample

AHEAD = 32  # chosen: samples that wait for a seat, which is taken in the same step as it falls free
STEPS_BETWEEN_LOOKS = 32  # chosen: of the engine; a fraction of a second between two questions whether to leave
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # precision -> vLLM's name


class Job(Protocol):
    """What an engine has to know: a Run tells it, and so does an evaluation."""

    @property
    def directory(self) -> Path: ...  # which names its shared memory

    @property
    def model_folder(self) -> Path: ...

    @property
    def model(self) -> Model: ...

    @property
    def scale(self) -> Scale: ...

    @property
    def seed(self) -> int: ...

    @property
    def max_tokens(self) -> int: ...  # of a prompt and its response


class Wanted(NamedTuple):
    """Requests that are answered in one way, and wanted together."""

    requests: Sequence[Request]
    max_response_tokens: int
    temperature: float
    top_p: float

    @property
    def options(self) -> dict[str, Any]:
        """How its requests are answered."""
        return {
            "max_response_tokens": self.max_response_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
        }


class Engine:
    """A vLLM engine whose weights are given to it: by the actor, or from a folder.

    Collective over the world: construction. Collective over the engine's ranks: `generate`, `stream`, `load`, `sleep`,
    `wake`.
    """

    def __init__(self, job: Job, ranks: Ranks, device: Device) -> None:
        self.ranks = ranks
        self.version: int | None = None  # of the policy whose weights it holds
        self.stop_tokens = stop_tokens(job.model_folder, job.model.vocab_size)
        scale = job.scale
        os.environ.update(ENGINE_VARIABLES)
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        parallel.barrier()  # rank 0 holds the directory's lock now, or has failed
        if ranks.is_first_of_machine:  # a killed attempt's shared memory fills the machine, or makes this start fail
            remove_shared_memory(job.directory)
        name_shared_memory(job.directory)
        parallel.barrier()
        device.prepare_rollout(shared_memory_name(job.directory))
        import vllm.entrypoints.llm

        gc.freeze()  # vLLM collects garbage several times while it starts: what was imported is none
        self.vllm = vllm
        self.llm = vllm.LLM(**arguments(job, device.engine_options, world=ranks.world, engine_size=ranks.engine_size))
        self.is_quantized = scale.fp8_rollout
        self.max_requests_in_flight = scale.max_requests_in_flight
        self.parameter_names = {name for name, _ in self.network.named_parameters()}
        self.asleep: set[Literal["weights", "kv_cache"]] = set()
        self.can_sleep = bool(device.engine_options.get("enable_sleep_mode"))
        self.cache = self.llm.llm_engine.engine_core.engine_core.scheduler.kv_cache_manager
        self.cache.log_stats = True  # of it alone: vLLM's other statistics cost time in each decoding step
        self.cache.make_prefix_cache_stats()
        self.prompt_tokens, self.cached_tokens = 0, 0  # of what was generated last: of all samples' prompts, and found
        parallel.reseed()
        self.sleep()  # the actor is built next

    @span("generate")
    def generate(
        self,
        requests: Sequence[Request],
        *,
        max_response_tokens: int,
        temperature: float,
        top_p: float,
        keeps_logprobs: bool = True,
    ) -> list[tuple[Sample, ...]]:
        """The samples of each request, generated with nothing else in the engine.

        The same requests give the same bits, whatever was generated before. Temperature 0 is greedy and keeps no
        log-probabilities.
        """
        if not requests:
            return []
        wave = Wanted(requests, max_response_tokens, temperature, top_p)
        ((_, made),) = self.stream([wave], keeps_logprobs=keeps_logprobs)
        return made

    def stream(
        self,
        waves: Iterable[Wanted],
        *,
        keeps_logprobs: bool = True,
        has_to_leave: Callable[[], bool] = lambda: False,
        tells: Callable[[int], None] = lambda _: None,
    ) -> Generator[tuple[int, list[tuple[Sample, ...]]], None, None]:
        """(place among `waves`, the samples of its requests) of each wave, as it is finished.

        The engine never runs dry: requests are added while those before are answered, and a wave is taken when there is
        room for its first one. So a request may have other company each time. In fp32 on a CPU its tokens stay what
        they are; elsewhere kernels may round otherwise in another batch.

        `tells` is given the number of samples of each request as it is finished. All that is under way is dropped where
        `has_to_leave` says so on all ranks of the engine, which are asked together, and where the generator is closed,
        as by a reader that fails between two waves. Torch's random state stays as it was, whatever is drawn between two
        waves.
        """
        version = self.version
        assert version is not None, "the engine has no weights before its first refit"
        self.forget_prefixes()
        self.cache.make_prefix_cache_stats()  # forgets what others have asked
        core, room = self.llm.llm_engine, self.max_requests_in_flight + AHEAD
        waiting = ((place, wave, i) for place, wave in enumerate(waves) for i in range(len(wave.requests)))
        under_way: dict[str, tuple[int, int, int]] = {}  # by vLLM's name: wave, place in it, size of it
        made: defaultdict[int, dict[int, tuple[Sample, ...]]] = defaultdict(dict)
        # On a CPU vLLM also draws from torch's own generator, whose state is the actor's and lies in its checkpoints.
        with torch.random.fork_rng(devices=[]), ExitStack() as ending:
            ending.callback(self._settle)
            ending.callback(lambda: core.abort_request(sorted(under_way)))
            for num_steps in itertools.count():
                while core.get_num_unfinished_requests() < room and (following := next(waiting, None)) is not None:
                    place, wave, i = following
                    options = self.options(wave.requests[i], **wave.options, keeps_logprobs=keeps_logprobs)
                    core.add_request(name := f"{place}.{i}", self.prompt(wave.requests[i]), options)
                    under_way[name] = place, i, len(wave.requests)
                if not under_way:
                    break
                if num_steps % STEPS_BETWEEN_LOOKS == 0 and has_to_leave():
                    break
                for output in core.step():
                    if output.finished:
                        place, i, size = under_way.pop(output.request_id)
                        made[place][i] = tuple(sample_of(completion, version) for completion in output.outputs)
                        tells(len(made[place][i]))
                        if len(made[place]) == size:
                            found = made.pop(place)
                            yield place, [found[i] for i in range(size)]
        asked = self.cache.make_prefix_cache_stats()
        self.prompt_tokens, self.cached_tokens = asked.queries, asked.hits

    def _settle(self) -> None:
        """Waits for what vLLM has launched ahead of its answers: on a GPU a step, which reads the weights."""
        core = self.llm.llm_engine
        while core.engine_core.engine_core.batch_queue:
            core.step()

    def prompt(self, request: Request) -> Any:
        """A request's prompt as vLLM takes it."""
        return self.vllm.inputs.tokens_input(list(request.prompt.token_ids))

    def options(
        self, request: Request, *, max_response_tokens: int, temperature: float, top_p: float, keeps_logprobs: bool
    ) -> Any:
        """How vLLM answers a request: all of its samples at once, when the last one is finished."""
        return self.vllm.SamplingParams(
            n=request.num_samples,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_response_tokens,
            stop_token_ids=list(self.stop_tokens),
            seed=request.seed if temperature > 0 else None,
            logprobs=0 if temperature > 0 and keeps_logprobs else None,
            flat_logprobs=True,  # a list of numbers instead of an object per token
            detokenize=False,
            output_kind=self.vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        )

    def load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> set[str]:
        """Takes whole tensors by Hugging Face name, as policy `version`; returns vLLM's names of what was filled."""
        if self.is_quantized:
            filled = reload(self.worker, weights)
        else:
            with torch.no_grad():
                filled = self.network.load_weights(weights)
        self.holds(version)
        return filled

    def targets(self) -> dict[str, Tensor]:
        """What a refit fills on this rank, by vLLM's names: its parameters. Not collective.

        Quantised ones are made by `load` alone.
        """
        assert not self.is_quantized, "quantised weights are made of whole layers"
        return dict(self.network.named_parameters())

    def holds(self, version: int) -> None:
        """Is told that its weights are those of policy `version`, which samples carry from now on.

        Nothing cached under an older one is used again.
        """
        self.forget_prefixes()
        self.version = version

    def forget_prefixes(self) -> None:
        """Drops what is cached of prompts. Raises RuntimeError while requests are running."""
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not drop its prefix cache; requests are still running")

    def sleep(self) -> None:
        """Frees the device memory of weights and cache, where the device can."""
        if self.can_sleep:
            self.llm.sleep(level=2)
            self.version, self.asleep = None, {"weights", "kv_cache"}

    def wake(self, what: Literal["weights", "kv_cache"]) -> None:
        """Takes the memory again; weights are garbage until the next `load`."""
        if self.can_sleep:
            self.llm.wake_up(tags=[what])
            self.asleep.discard(what)

    def close(self) -> None:
        """Ends the engine, and with it the process groups of this process. Collective over the world."""
        for what in sorted(self.asleep, reverse=True):  # vLLM would free again what is unmapped, and print CUDA errors
            self.wake(what)
        with _no_collections():
            self.llm.llm_engine.engine_core.shutdown()

    @property
    def network(self) -> Any:
        """vLLM's own module, this rank's shard."""
        return self.worker.get_model()

    @property
    def worker(self) -> Any:
        """vLLM's worker of this rank."""
        return self.llm.llm_engine.model_executor.driver_worker.worker


def arguments(job: Job, options: Mapping[str, Any], *, world: int, engine_size: int) -> dict[str, Any]:
    """Arguments of vllm.LLM, the device's options among them."""
    scale = job.scale
    neighbours = {"distributed_executor_backend": "external_launcher", "tensor_parallel_size": engine_size}
    return {
        "model": str(job.model_folder),
        "skip_tokenizer_init": True,
        "hf_overrides": config_overrides(job.model, scale),
        "dtype": DTYPES[scale.precision],
        "load_format": "dummy",  # the first refit fills it
        "max_model_len": job.max_tokens,
        "max_num_seqs": scale.max_requests_in_flight,
        "kv_cache_memory_bytes": scale.kv_cache_bytes,
        "enable_prefix_caching": True,
        "logprobs_mode": "processed_logprobs",  # of the distribution that is sampled: logits / temperature
        "generation_config": "vllm",
        "seed": job.seed,
        "disable_log_stats": True,
        **quantization(job.model, scale),
        **options,
        **(neighbours if world > 1 else {}),
    }


def config_overrides(model: Model, scale: Scale) -> dict[str, Any]:
    """Fields of config.json as the actor understands them, so that vLLM resolves none of them in its own way.

    `head_dtype` says in which precision logits are made, scaled and sampled from. In bf16 vLLM rounds the logits twice,
    once after the division by the temperature: 0.02 nats on average at 1.2.
    """
    positions = rope_parameters(model)
    fields: dict[str, Any] = {"architectures": [ARCHITECTURES[model.family]], "rope_parameters": positions}
    if isinstance(scaling := model.rope_scaling, YarnScaling):
        fields |= {"max_position_embeddings": model.max_positions}  # published configs leave the context as it was
        # vLLM 0.26, of the GPUs, calls the attention factor so, and without the second word multiplies it by its own.
        positions |= {"attn_factor": scaling.attention_factor, "apply_yarn_scaling": False}
    return fields if scale.fp32_logits == "neither" else fields | {"head_dtype": "float32"}


@contextmanager
def _no_collections() -> Iterator[None]:
    """Lets nothing look for garbage: vLLM does at its end, twice through all that was ever imported, for a second."""
    was_enabled, collect = gc.isenabled(), gc.collect
    gc.disable()
    gc.collect = lambda generation=2: 0
    try:
        yield
    finally:
        gc.collect = collect
        if was_enabled:
            gc.enable()


def sample_of(completion: Any, version: int) -> Sample:
    """One completion of vLLM as a Sample."""
    flat = completion.logprobs  # of the sampled token alone, position by position
    assert flat is None or len(flat.logprobs) == len(completion.token_ids), "one log-probability for each token"
    return Sample(
        token_ids=array("i", completion.token_ids),
        logprobs=array("f", flat.logprobs if flat is not None else ()),
        finish_reason="length" if completion.finish_reason == "length" else "stop",
        policy_version=version,
    )
