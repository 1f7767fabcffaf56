"""What every rank on a CPU imports: importing this module imports it, once for all ranks that are forked afterwards."""

from __future__ import annotations

import importlib
import logging
import warnings

from megatron_rl.device.megatron_on_cpu import EXPECTED_WARNINGS

MODULES = (
    "torch._dynamo.config",
    "megatron.core.optimizer.distrib_optimizer",
    "megatron.core.models.gpt.gpt_model",
    "transformers.tokenization_utils_tokenizers",
    "vllm.model_executor.layers.utils",
    "vllm.entrypoints.llm",
    "vllm.v1.attention.backends.cpu_attn",
    "vllm.v1.core.sched.scheduler",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.layers.quantization.online.base",
    "vllm.model_executor.models.qwen2",
)

for message in EXPECTED_WARNINGS:
    warnings.filterwarnings("ignore", message=message)
logging.getLogger("torch._library.triton").setLevel(logging.ERROR)  # there is none for a CPU
for module in MODULES:
    importlib.import_module(module)
