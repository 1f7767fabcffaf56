"""Every command on the pages is one that the command line takes; those that need no engine are run as written."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from megatron_rl.commands.cli import app
from megatron_rl.report import trace
from tests.report.long_run import write_long_run

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Those that read a run or only show something: they are run. The others start engines, or fetch or judge for minutes.
READERS = ("report", "watch", "track", "trace", "check")
SLOW = ("estimate", "recipe", "doctor", "verify", "theory")  # they take seconds, and start nothing that trains
NEEDS_MORE = ("--to wandb", "--to mlflow", "--serve")  # seconds, or somebody who stops it
MAKE = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def commands_of(page: Path) -> list[str]:
    """What stands in code, in blocks or tables, and begins as a command that a person types."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    lines = [line for block in blocks for line in block.splitlines()]
    lines += [code for code in inline if "--" in code or code.startswith("make ")]  # others only name a command
    found = [line.split("  #")[0].strip() for line in lines]
    return [line for line in dict.fromkeys(found) if re.match(r"(megatron-rl|make) [a-z]", line) and "..." not in line]


COMMANDS = [(page.name, line) for page in PAGES for line in commands_of(page)]
# Words in capitals stand for what the reader puts there.
OURS = [one for one in COMMANDS if one[1].startswith("megatron-rl ") and not re.search(r"\b[A-Z]{3,}\b", one[1])]


def test_the_commands_are_found() -> None:
    assert len(OURS) >= 30
    assert {page for page, _ in OURS} >= {"README.md", "start.md", "first_gpu_run.md", "seeing.md", "evaluation.md"}


@pytest.mark.parametrize(("page", "line"), [one for one in COMMANDS if one[1].startswith("make ")])
def test_what_make_is_asked_for_is_a_target(page: str, line: str) -> None:
    assert set(shlex.split(line)[1:]) <= set(MAKE)


@pytest.mark.parametrize(("page", "line"), OURS)
def test_the_command_line_takes_the_words(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: Any = typer.main.get_command(app)
    context = command.make_context("megatron-rl", words[:1], resilient_parsing=True)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, line
        command, words = command.commands[words[0]], words[1:]
    command.make_context("megatron-rl", words, parent=context)  # raises for a word or an option that is not known


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the commands expect it: runs that have been made, and the demo's files."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("demo", "warm"):
        run = write_long_run(folder / "runs" / name, num_steps=20, num_resets=1, num_attempts=1)
        path = trace.path_of(run, 0)
        path.parent.mkdir()
        lines = [{"step": step, "at": step + 1.0, "spans": [["generate", step, 0.5]]} for step in range(1, 21)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for place in (folder, folder / "prepared"):
        place.mkdir(exist_ok=True)
        for name in ("demo", "recipes"):
            (place / name).symlink_to(ROOT / name)
    (folder / "prepared" / "data").mkdir()
    (folder / "prepared" / "data" / "prorl").symlink_to(ROOT / "tests" / "data" / "five_domains")
    return folder


def enter(folder: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goes where the command finds what the page has made before it."""
    monkeypatch.chdir(folder / "prepared" if "data/prorl" in line else folder)


def is_run(line: str) -> bool:
    words = shlex.split(line, comments=True)
    is_cluster_s = "check" in words and any(word in line for word in ("/data/", "--strict"))  # tests/slurm/test_page.py
    return words[1] in READERS and not any(text in line for text in NEEDS_MORE) and not is_cluster_s


@pytest.mark.parametrize(("page", "line"), [one for one in OURS if is_run(one[1])])
def test_a_command_that_reads_is_run_as_written(
    page: str, line: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if " track " in line:
        pytest.importorskip("tensorboard", reason="needs the extra `track`")
    enter(folder, line, monkeypatch)
    result = CliRunner().invoke(app, shlex.split(line, comments=True)[1:])
    assert result.exit_code == 0, (line, result.stderr)


TAKE_SECONDS = dict.fromkeys(line for _, line in OURS if shlex.split(line)[1] in SLOW and "gpu.jsonl" not in line)


@pytest.mark.e2e
@pytest.mark.timeout(300)
@pytest.mark.parametrize("line", TAKE_SECONDS)
def test_a_command_that_takes_seconds_is_run_as_written(line: str, tmp_path: Path) -> None:
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    (tmp_path / "recipes").mkdir()
    words = [sys.executable, "-m", "megatron_rl", *shlex.split(line, comments=True)[1:]]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout, (line, done.stderr)


@pytest.mark.parametrize(
    ("page", "line"), [one for one in OURS if one[1].startswith("megatron-rl train") and "--parent" not in one[1]]
)
def test_a_training_that_a_page_asks_for_is_a_valid_run(
    page: str, line: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(folder, line, monkeypatch)
    words = shlex.split(line, comments=True)[2:]
    result = CliRunner().invoke(app, ["check", *words])
    assert result.exit_code == 0, (line, result.stderr)
