"""What the verifiers know of science: choices, measures, statements, wording."""
