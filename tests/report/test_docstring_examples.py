"""The examples in the report's docstrings are right."""

import doctest
import importlib
import pkgutil

import pytest

import megatron_rl.report

MODULES = [module.name for module in pkgutil.iter_modules(megatron_rl.report.__path__, "megatron_rl.report.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_right(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
