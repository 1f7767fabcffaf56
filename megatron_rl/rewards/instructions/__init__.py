"""Checkers of IFEval's instructions, one module per kind: `(text, its arguments) -> whether it is followed`."""
