"""What the phases of gpu.py run on, and how they measure."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.loop import Case
from megatron_rl.commands.choose import REPOSITORY, build_run
from megatron_rl.config.run import Run
from megatron_rl.config.weights import tensor_names
from megatron_rl.estimate.step import multiplied_weights
from megatron_rl.report.journal import is_validation
from recipes.models import R1_DISTILL_QWEN_1_5B

if TYPE_CHECKING:
    from megatron_rl.actor.actor import Actor
    from megatron_rl.device import Device
    from megatron_rl.rollout.engine import Engine
    from megatron_rl.runtime.parallel import Ranks
    from megatron_rl.types import Batch, Request

DEMO_MODEL, DEMO_DATA = REPOSITORY / "demo" / "model", REPOSITORY / "demo" / "data"
Figures = dict[str, Any]


class Skip(Exception):
    """There is nothing to check here; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where the phases run and on what size."""

    rehearses: bool
    work: Path  # kept between the phases
    pack_tokens: int
    num_requests: int
    samples_per_request: int
    response_tokens: int

    def run(self, **scale: Any) -> Run:
        """ProRL v2 on one device with the scale's fields changed."""
        name = "cpu" if self.rehearses else "gpu1"
        folder = DEMO_MODEL if self.rehearses else self.model_folder()
        words = [f"run.model_folder={folder}", f"run.data_folder={DEMO_DATA}", "algorithm.updates_per_step=1"]
        fields = {"devices_per_node": 1, "max_tokens_per_microbatch": self.pack_tokens, **scale}
        words += [f"scale.{field}={value}" for field, value in fields.items()]
        if self.rehearses:
            words += ["scale.precision=bf16"] if "precision" not in scale else []
        return build_run("prorl_v2", name, words, self.work / "no_run", needs_files=False)

    def model_folder(self) -> Path:
        """Random weights in the published shape, made once; no tokenizer."""
        import torch
        from safetensors.torch import save_file

        model, folder = R1_DISTILL_QWEN_1_5B, self.work / "model"
        if not (folder / "config.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            torch.manual_seed(0)
            tensors = {
                name: (torch.randn(shape, device="cuda") * 0.02 + ("norm" in name)).bfloat16().cpu()
                for name, shape in tensor_names(model).items()
            }
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
            config = {
                "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
                "num_hidden_layers": model.num_layers, "hidden_size": model.hidden_size,
                "num_attention_heads": model.num_heads, "num_key_value_heads": model.num_kv_heads,
                "intermediate_size": model.ffn_hidden_size, "vocab_size": model.vocab_size,
                "max_position_embeddings": model.max_positions, "rope_theta": model.rope_theta,
                "rms_norm_eps": model.norm_epsilon, "tie_word_embeddings": False, "use_sliding_window": False,
                "torch_dtype": "bfloat16", "eos_token_id": 151643, "bos_token_id": 151646,
            }  # fmt: skip
            (folder / "config.json").write_text(json.dumps(config))
        return folder

    def case(self, num_groups: int) -> Case:
        """Groups whose sequences fill packs to a few per cent, of different lengths."""
        longest = self.pack_tokens // 2 if not self.rehearses else 48
        return Case(
            name="gpu", num_groups=num_groups, samples_per_group=4, prompt_tokens=8, fewest_tokens=longest // 2,
            most_tokens=longest, repeats=1,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class World:
    """This process as the only rank."""

    hardware: Device
    ranks: Ranks

    @classmethod
    def of(cls, run: Run) -> World:
        from megatron_rl import device
        from megatron_rl.runtime import parallel

        hardware = device.select(run.scale)
        return cls(hardware=hardware, ranks=parallel.start(run.scale, hardware, 300.0))

    def actor(self, run: Run) -> Actor:
        """An actor of another run of the same precision."""
        from megatron_rl import device
        from megatron_rl.actor.actor import Actor

        return Actor(run, self.ranks, device.select(run.scale))

    def engine(self, run: Run) -> Engine:
        from megatron_rl.rollout.engine import Engine

        return Engine(run, self.ranks, self.hardware)


def some_requests(setting: Setting) -> list[Request]:
    """Different prompts of twelve tokens."""
    from megatron_rl.types import Prompt, Request

    tokens = [tuple(range(3 + i, 15 + i)) for i in range(setting.num_requests)]
    return [
        Request(
            prompt=Prompt(serial=i, id=str(i), domain="math", token_ids=prompt, opens_thought=False, item={}),
            seed=i << 16,
            num_samples=setting.samples_per_request,
        )
        for i, prompt in enumerate(tokens)
    ]


def num_steps(metrics: Path) -> int:
    """Steps in a run's metrics."""
    if not metrics.exists():
        return 0
    return sum(not is_validation(json.loads(line)) for line in metrics.read_text().splitlines())


def timed(call: Callable[[], Any], repeats: int) -> float:
    """Mean wall seconds of a call, the device's work included."""
    import torch

    def finish() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    call()
    finish()
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    finish()
    return (time.perf_counter() - began) / repeats


@contextmanager
def peak(hardware: Device, figures: Figures, name: str) -> Iterator[None]:
    """Notes the most device memory that was allocated inside; None on a CPU."""
    import torch

    if hardware.name == "cuda":
        torch.cuda.reset_peak_memory_stats()
    yield
    figures[name] = torch.cuda.max_memory_allocated() / 2**30 if hardware.name == "cuda" else None


def free_gib(hardware: Device) -> float | None:
    """What the card has left; None on a CPU."""
    import torch

    return torch.cuda.mem_get_info()[0] / 2**30 if hardware.name == "cuda" else None


def product_rate(hardware: Device, size: int) -> float:
    """FLOP/s of a square matrix product in bf16: what MFU is measured against."""
    import torch

    left, right = (torch.randn(size, size, device=hardware.torch_device, dtype=torch.bfloat16) for _ in range(2))
    return 2.0 * size**3 / timed(lambda: left @ right, 10)


def forward_flops(run: Run, batch: Batch) -> float:
    """Multiplications and additions of one forward pass: the layers', the head's, and attention within sequences."""
    model = run.recipe.model
    lengths = [length for part in batch.packs for length in part.cumulative_lengths.diff().tolist()]
    pairs = sum(length * (length + 1) / 2 for length in lengths)
    attention = 4.0 * model.num_layers * model.num_heads * model.head_dim * pairs
    return 2.0 * multiplied_weights(model) * sum(lengths) + attention
