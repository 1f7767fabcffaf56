"""Every line that the pages give for a script is taken by the script's own parser; the short ones run."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import COMMANDS, ROOT

README = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
ROWS = {
    name: re.findall(r"`([^`]+)`", run) for name, run in re.findall(r"^\| `(\w+\.py)` \| .* \| (.*) \|$", README, re.M)
}
# What stands for the reader's own words.
FILLED_IN = {"REVISION": "HEAD", "NAME ...": "imports actor", "SECONDS": "60"}
CALLED_BY_OTHERS = ("gpu_phases.py", "trl_steps.py")
LINES = [line for _, line in COMMANDS if re.search(r"benchmarks/\w+\.py|-m megatron_rl\.data\.", line)]
# A row's command with the options by which it says that it takes seconds.
SHORT = (
    ".venv/bin/python benchmarks/verifiers.py",
    ".venv/bin/python benchmarks/loop.py --quick --model tiny",
    ".venv/bin/python benchmarks/evaluate.py --samples 4 --repetitions 1",
)


class Parsed(Exception):
    """The script's parser has taken the words; nothing of the script has run yet."""


def filled_in(line: str) -> list[str]:
    for name, words in FILLED_IN.items():
        line = line.replace(name, words)
    return shlex.split(re.sub(r"^(\w+=\S* )+", "", line))


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts the script of a command and stops it behind its parser. Raises SystemExit where that refuses."""
    own = argparse.ArgumentParser.parse_args

    def parse_args(parser: argparse.ArgumentParser, *arguments: Any) -> Any:
        own(parser, *arguments)
        raise Parsed

    while not words[0].endswith(".py") and words[0] != "-m":
        words = words[1:]
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # as Python does for a script
    monkeypatch.chdir(ROOT)
    if words[0] == "-m":
        monkeypatch.setattr(sys, "argv", words[1:])
        importlib.import_module(words[1]).main()
    else:
        monkeypatch.setattr(sys, "argv", words)
        runpy.run_path(words[0], run_name="__main__")


@pytest.mark.parametrize("line", dict.fromkeys(LINES))
def test_a_script_s_parser_takes_the_line(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Parsed):
        parse(filled_in(line), monkeypatch)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_s_options_are_the_script_s(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command, *others = ROWS[name]
    assert f"benchmarks/{name}" in command
    for option in (one for one in others if one.startswith("--")):
        with pytest.raises(Parsed):
            parse(filled_in(f"python benchmarks/{name} {option}"), monkeypatch)


@pytest.mark.parametrize(
    "words",
    [
        "loop.py --quik",
        "refit.py 20m",
        "refit.py --sizes 20m,3b",
        "kills.py --kills many",
        "gpu.py --only imports none",
    ],
)
def test_a_word_that_a_script_does_not_know_would_be_seen(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(filled_in(f".venv/bin/python benchmarks/{words}"), monkeypatch)
    assert "error: " in capsys.readouterr().err


def test_every_benchmark_has_a_row() -> None:
    scripts = [
        path.name for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text(encoding="utf-8")
    ]
    assert sorted(scripts) == sorted([*ROWS, *CALLED_BY_OTHERS])


@pytest.mark.e2e
@pytest.mark.timeout(240)
@pytest.mark.parametrize("line", SHORT)
def test_a_short_one_ends_with_a_line_of_figures(line: str) -> None:
    _, script, *options = line.split()
    assert script in ROWS[Path(script).name][0] and all(word in README for word in options if word.startswith("--"))
    done = subprocess.run([sys.executable, script, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures and all(value > 0 for value in figures.values() if isinstance(value, float))
