"""Every command on the pages has its place in the table of pages.py; here run those that train nothing."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from megatron_rl.commands.cli import app
from tests.docs.checkout import given, make_checkout
from tests.docs.pages import (
    BEGINS,
    CAMPAIGN,
    COMMANDS,
    JOURNEY,
    NO_PAGES,
    OUTPUTS,
    PAGES,
    PLACES,
    ROOT,
    SERVES,
    SIDE_BY_SIDE,
    UP_TO,
    blocks_and_prose,
    is_filled_in,
    lines_in,
    places_of,
)
from tests.estimate.test_gpu_check import records

MAKE = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
OURS = dict.fromkeys(
    line
    for _, line in COMMANDS
    if line.startswith("megatron-rl ") and "..." not in line and places_of(line) != ["named"]
)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git says which files there are")
def test_every_markdown_file_is_a_page_or_is_named_as_none() -> None:
    found = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    pages = [str(page.relative_to(ROOT)) for page in PAGES]
    assert sorted(found.split()) == sorted([*pages, *NO_PAGES])


def test_every_command_has_one_place_in_the_table() -> None:
    assert {line: places_of(line) for _, line in COMMANDS if len(places_of(line)) != 1} == {}


def test_the_table_has_no_line_that_is_on_no_page() -> None:
    lines = {line for _, line in COMMANDS}
    assert {*JOURNEY, SERVES, CAMPAIGN, SIDE_BY_SIDE, *UP_TO} <= lines
    patterns = [one for place in PLACES.values() for one in place]
    assert [one for one in patterns if not any(re.fullmatch(one, line) for line in lines)] == []


def test_a_block_shows_commands_or_an_output_that_is_known() -> None:
    for page in PAGES:
        for block in blocks_and_prose(page.read_text())[0]:
            assert all(BEGINS.match(line) or line.startswith(OUTPUTS) for line in block), (page.name, block)


def test_a_new_line_in_no_place_would_be_seen() -> None:
    blocks, prose = blocks_and_prose("a `make demo`\n```json\n{}\n```\n\n```\nmegatron-rl new \\\n  --b  # why\n```\nb")
    assert (blocks, prose) == ([["megatron-rl new --b"]], "a `make demo`\n\nb")
    assert places_of("megatron-rl new --b") == [] and is_filled_in("megatron-rl new --b FOLDER")


def test_what_make_is_asked_for_is_a_target() -> None:
    words = [one for page in PAGES for one in re.findall(r"(?:^|`)make ([a-z -]+)", page.read_text(), re.MULTILINE)]
    assert len(words) >= 5 and set(" ".join(words).split()) <= set(MAKE)


@pytest.mark.parametrize("line", OURS)
def test_the_command_line_takes_the_words(line: str) -> None:
    words = shlex.split(re.sub(r"\b(NUMBER|N)\b", "1", line))[1:]
    command: Any = typer.main.get_command(app)
    context = command.make_context("megatron-rl", words[:1], resilient_parsing=True)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, line
        command, words = command.commands[words[0]], words[1:]
    command.make_context("megatron-rl", words, parent=context)  # raises for a word or an option that is not known


def checkout_for(line: str, folder: Path) -> Path:
    """A checkout as the line expects it: with the prompts that it finds prepared, and with what a GPU has measured."""
    place = folder.resolve() / ("prepared" if "data/prorl" in line else "plain")
    if not place.exists():
        make_checkout(place)
        (place / "gpu.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records()))
        if place.name == "prepared":
            (place / "data").mkdir()
            (place / "data" / "prorl").symlink_to(ROOT / "tests" / "data" / "five_domains")
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkouts")


@pytest.mark.parametrize("line", lines_in("checks"))
def test_a_check_is_run_as_written(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout_for(line, folder))
    result = CliRunner().invoke(app, shlex.split(line)[1:])
    assert result.exit_code == 0, (line, result.stderr)


@pytest.mark.e2e
@pytest.mark.timeout(300)
@pytest.mark.parametrize("line", lines_in("shows"))
def test_a_command_that_takes_seconds_is_run_as_written(line: str, tmp_path: Path) -> None:
    done = given(checkout_for(line, tmp_path), line, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0 and done.stdout + done.stderr, (line, done.stderr)
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize("line", UP_TO)
def test_a_command_that_needs_a_gpu_or_a_download_stops_in_one_line_that_says_so(line: str, folder: Path) -> None:
    done = given(checkout_for(line, folder), line, HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert UP_TO[line] in done.stderr


@pytest.mark.parametrize(
    "line", [one for one in JOURNEY if one.startswith("megatron-rl train") and "--parent" not in one]
)
def test_a_training_is_a_valid_run_at_the_scale_of_the_page(
    line: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout_for(line, folder))
    result = CliRunner().invoke(app, ["check", *shlex.split(line)[2:]])
    assert result.exit_code == 0, (line, result.stderr)
