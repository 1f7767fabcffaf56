"""A Python that every user of the machine can read, which one in somebody's home folder is not."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from megatron_rl.rewards.sandbox import layers

ROOT = Path(__file__).parents[2]


def readable_python() -> str:
    """This interpreter where every user can read it, else the system's; skips the test where there is none."""
    if os.geteuid() != 0 or not layers._hidden([sys.prefix, sys.base_prefix, str(ROOT)]):
        return sys.executable
    system = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if system is None or layers._hidden([str(ROOT)]):
        pytest.skip("no Python that every user can read")
    return system
