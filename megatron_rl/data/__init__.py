"""Prompts: where they come from, in which order, and in what words the model reads them."""
