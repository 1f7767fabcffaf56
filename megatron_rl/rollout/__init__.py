"""Generation: vLLM in this process, and the choice of groups worth training on."""
