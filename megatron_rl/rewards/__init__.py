"""Verifiers: (response, item) -> Verdict."""
