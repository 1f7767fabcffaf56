"""Prolonged reinforcement learning of language models: ProRL v1, ProRL v2 and BroRL on Megatron-core and vLLM."""

__version__ = "0.1.0"
