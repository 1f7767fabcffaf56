"""An evaluation: which policies are asked which benchmarks, and where; checked before torch is imported."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_rl.config.checks import check_scale, require
from megatron_rl.config.precision import BYTES, check_precision
from megatron_rl.config.pretrained import read_model
from megatron_rl.config.records import Model, Scale
from megatron_rl.config.run import check_seed
from megatron_rl.config.suites import Answering, Benchmark, Suite

MAX_POLICY_NAME = 60  # characters


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Weights to evaluate, as a Hugging Face folder."""

    name: str  # of its folder among the results
    title: str  # in tables
    folder: Path
    step: int | None  # of its run; None for a folder that is no run's
    shape_folder: Path  # which names shape, tokenizer and end of sequence; mostly the same
    checkpoint: Path | None = None  # that it is exported from first, where `folder` does not hold it yet

    @property
    def weights(self) -> list[Path]:
        """Its files of weights, by name."""
        return sorted(self.folder.glob("*.safetensors"))

    def digest(self) -> str:
        """Sixteen hex digits of its weights: other weights are another policy."""
        found = hashlib.sha256()
        for path in self.weights:
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One benchmark, and how it is answered."""

    benchmark: Benchmark
    answering: Answering

    @property
    def name(self) -> str:
        return self.benchmark.name


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Policies of one shape, benchmarks, and the place where they are answered."""

    directory: Path  # of the results
    policies: tuple[Policy, ...]  # in the order in which they are compared
    asks: tuple[Ask, ...]
    scale: Scale
    seed: int = 1
    mirror: Path | None = None  # of data sets that were fetched, OWNER/NAME/FILE
    corpus: tuple[Path, ...] = ()  # texts that novelty is measured against
    verifier_timeout_seconds: float = 5.0  # as in training; for all tests of a program together
    max_unjudged_share: float = 0.1  # of a benchmark's samples; beyond it the verifiers are broken
    allows_unsafe_sandbox: bool = False
    preemption_lead_seconds: float = 120.0  # before the time limit; what is generated then is generated again

    def __post_init__(self) -> None:
        check_scale(self.scale)
        check_seed(self.seed)
        require(bool(self.policies), "evaluation: no policy is given; name a run, a checkpoint or a model folder")
        require(bool(self.asks), "evaluation: no suite is given; name one with --suite")
        for policy in self.policies:
            require(
                bool(policy.weights) or policy.checkpoint is not None,
                f"model folder {policy.folder}: has no .safetensors file; give the folder of a Hugging Face model",
            )
        model, first = read_model(self.model_folder), self.policies[0]
        for policy in self.policies[1:]:
            other = dataclasses.replace(read_model(policy.shape_folder), name=model.name)
            require(
                other == model,
                f"model folder {policy.folder}: has another shape than {first.folder}; evaluate it by itself, into the "
                "same --to",
            )
        require(
            self.max_tokens <= model.max_positions,
            f"the suites ask for {self.max_tokens} tokens of prompt and response, and {first.folder} has "
            f"{model.max_positions} positions; give --max-response-tokens or --max-prompt-tokens",
        )
        scale = self.scale
        check_precision(model, dataclasses.replace(scale, allows_fp8_on_one_side=True))  # there is one side
        width = 2 * model.num_layers * model.num_kv_heads * model.head_dim // scale.rollout_tensor_parallel
        needed = self.max_tokens * width * BYTES[scale.precision]
        require(
            needed <= scale.kv_cache_bytes,
            f"scale '{scale.name}': kv_cache_bytes={scale.kv_cache_bytes} do not hold one sequence of "
            f"{self.max_tokens} tokens, which takes {needed}; give "
            f"--set scale.kv_cache_bytes={needed} or more, or --max-response-tokens",
        )

    @property
    def model(self) -> Model:
        """The shape of the policies."""
        return read_model(self.model_folder)

    @property
    def model_folder(self) -> Path:
        """The folder that names shape, tokenizer and end of sequence."""
        return self.policies[0].shape_folder

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest prompt and its longest response."""
        return max(ask.answering.max_prompt_tokens + ask.answering.max_response_tokens for ask in self.asks)


def asks_of(suites: Sequence[Suite], **instead: int | None) -> tuple[Ask, ...]:
    """The benchmarks of several suites, each once, with values `instead` of fields of their answering, save None.

    Raises UserError where two suites ask one differently.
    """
    found: dict[str, Ask] = {}
    given = {name: value for name, value in instead.items() if value is not None}
    for suite in suites:
        answering = dataclasses.replace(suite.answering, **given)
        for benchmark in suite.benchmarks:
            ask = Ask(benchmark=benchmark, answering=answering)
            require(
                found.setdefault(benchmark.name, ask) == ask,
                f"suite '{suite.name}': asks {benchmark.name} otherwise than a suite before it; evaluate it into "
                "another --to",
            )
    return tuple(found.values())
