"""The trained policy: a Megatron-core model, its optimizer and its reference."""
