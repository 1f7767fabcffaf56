"""What `megatron-rl` does: one module a command."""
