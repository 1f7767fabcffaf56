"""Recipes, mixtures and suites are Python files: one is run, and its faults become one line."""

from __future__ import annotations

import importlib.util
import types
from pathlib import Path

from megatron_rl.config.checks import UserError, require
from megatron_rl.config.words import lack

# What a file of the user's own may raise while it is read.
FAULTS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError),
    *(RuntimeError, SyntaxError, SystemExit, TypeError, ValueError),
)


def run_module(kind: str, name: str, path: Path) -> types.ModuleType:
    """The module of a file; `kind` and `name` begin what is said where it cannot be run. Raises UserError."""
    require(path.is_file(), f"{kind} '{name}': {lack(path, 'file')}; give a {kind}'s name, or its .py file")
    specification = importlib.util.spec_from_file_location(f"{kind}_{path.stem}", path)
    assert specification is not None and specification.loader is not None, f"{path}: a .py file has a loader"
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except FAULTS as error:
        raise UserError(f"{kind} '{name}': {type(error).__name__}: {error}") from error
    return module
