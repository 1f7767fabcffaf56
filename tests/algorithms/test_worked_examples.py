"""Every algorithm function has a worked example and a source; the examples run with all others of the package."""

import importlib
import inspect
import pkgutil

import pytest

import megatron_rl.algorithms

MODULES = [module.name for module in pkgutil.iter_modules(megatron_rl.algorithms.__path__, "megatron_rl.algorithms.")]


@pytest.mark.parametrize("name", MODULES)
def test_every_function_has_a_worked_example_and_a_source(name: str) -> None:
    module = importlib.import_module(name)
    functions = [f for f in vars(module).values() if inspect.isfunction(f) and f.__module__ == name]
    for function in functions:
        assert ">>>" in (function.__doc__ or ""), f"{name}.{function.__name__} has no worked example"
        assert "Source:" in (function.__doc__ or ""), f"{name}.{function.__name__} names no source"
