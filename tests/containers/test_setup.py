"""`make setup` finds Python 3.11 where there is one, and says in one line how to get it where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[2] / "containers" / "setup.sh"
TOOLS = ("bash", "cat", "cut", "dirname", "env", "flock", "grep", "rm", "sha256sum", "uname")
UV = """#!/bin/bash
echo "$*" >>"{folder}/asked"
[[ $2 != find ]] || echo "{python}"
"""


def setup(folder: Path, uv: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """setup.sh in a checkout whose lock is empty, on a machine with these tools alone."""
    (folder / "bin").mkdir()
    (folder / "containers").mkdir()
    shutil.copy(SETUP, folder / "containers" / "setup.sh")
    (folder / "containers" / "cpu.lock").write_text("nothing==1\n")
    (folder / "pyproject.toml").write_text("")
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None
        (folder / "bin" / name).symlink_to(found)
    if uv:
        (folder / "bin" / "uv").write_text(uv.format(folder=folder, python=sys.executable))
        (folder / "bin" / "uv").chmod(0o755)
    return subprocess.run(
        ["bash", "containers/setup.sh"],
        cwd=folder,
        env={"PATH": str(folder / "bin"), "HOME": os.environ.get("HOME", "/"), **variables},
        capture_output=True,
        text=True,
    )


@pytest.mark.e2e
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the stand-in for uv's Python is this one")
def test_python_comes_from_uv_where_the_system_has_none(tmp_path: Path) -> None:
    done = setup(tmp_path, UV)
    assert (tmp_path / "asked").read_text().splitlines() == ["python install --quiet 3.11", "python find 3.11"]
    assert "no Python 3.11 here: uv gets one" in done.stderr
    assert "making .venv with Python 3.11" in done.stdout
    assert (tmp_path / ".venv" / "bin" / "python").exists()


@pytest.mark.parametrize(
    ("uv", "variables", "line"),
    [
        ("", {}, "none of 'python3.11 python3' is Python 3.11, which the lock is made for; install uv (https://"),
        ("#!/bin/bash\nexit 1\n", {}, "uv could not get Python 3.11"),
        (
            UV,
            {"PYTHON": "/none/python"},
            "none of '/none/python' is Python 3.11",
        ),
    ],
)
def test_a_machine_without_python_is_told_how_to_get_it(
    uv: str, variables: dict[str, str], line: str, tmp_path: Path
) -> None:
    done = setup(tmp_path, uv, **variables)
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"setup: {line}") and not (tmp_path / ".venv").exists()
