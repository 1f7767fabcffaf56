"""Modules that the workers import in place of real ones, whose loading takes a second of the processor at each start.

For tests of what surrounds the verifiers: math-verify judges nothing real, and no language can be asked for.
"""

from __future__ import annotations

from pathlib import Path

import pytest

MATH_VERIFY = """
import collections, itertools
class LatexExtractionConfig: pass
def parse(text, *_, **__):
    if "nabla h" in text: collections.deque(itertools.repeat(0), maxlen=0)  # in C, for ever, deaf to signals
    if "nabla f" in text: raise ArithmeticError("planted")
    return [text]
def verify(gold, value, **_): return gold == value
"""


def plant(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Writes the modules into the folder, which the processes to start find first; returns it."""
    (folder / "math_verify.py").write_text(MATH_VERIFY)
    (folder / "langdetect.py").write_text("raise ImportError('left out')")
    patch.setenv("PYTHONPATH", str(folder))
    return folder
