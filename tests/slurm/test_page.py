"""What docs/cluster.md tells one to type is what the commands take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from megatron_rl.commands.choose import build_run
from megatron_rl.commands.cli import app
from megatron_rl.estimate.step import checkpoint_bytes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cluster.md").read_text()
FIVE_DOMAINS = ROOT / "tests" / "data" / "five_domains"
BLOCKS = "\n".join(re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ")
COMMANDS = [shlex.split(line, comments=True) for line in BLOCKS.splitlines() if line]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site of slurm/site.env.example, with its shared folders in a folder of this machine."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "prorl").symlink_to(FIVE_DOMAINS)
    monkeypatch.setenv("CONTAINER_IMAGE", "/shared/images/megatron-rl.sqsh")
    monkeypatch.setenv("CONTAINER_MOUNTS", f"{tmp_path}/data:/data:ro,{tmp_path}/huggingface:/huggingface")
    monkeypatch.setenv("HF_HOME", "/huggingface")


def after(command: list[str], word: str) -> list[str]:
    """The words behind the one that ends with `word`; none where there is none."""
    places = [place for place, one in enumerate(command) if one.endswith(word)]
    return command[places[0] + 1 :] if places else []


@pytest.mark.parametrize("command", [command for command in COMMANDS if after(command, "megatron_rl")[:1] == ["check"]])
def test_the_check_of_the_page_finds_the_job_s_paths(command: list[str], site: None) -> None:
    result = CliRunner().invoke(app, after(command, "megatron_rl"))
    assert "/data/prorl\n" in result.stdout
    assert "math 8 (published 40,000" in result.stdout
    assert result.exit_code == 2, "--strict, for the model is not there"
    assert "hf download deepseek-ai/" in result.stderr and "there is no such folder" not in result.stderr


@pytest.mark.parametrize("command", [command for command in COMMANDS if after(command, "slurm/prorl_v2.sh")])
def test_what_the_page_submits_is_accepted(command: list[str], site: None) -> None:
    scale = next((word.removeprefix("SCALE=") for word in command if word.startswith("SCALE=")), "h100x32")
    result = CliRunner().invoke(app, ["check", "prorl_v2", "--scale", scale, *after(command, "slurm/prorl_v2.sh")])
    assert result.exit_code == 0, result.stderr
    assert "does not fit" not in result.stderr


def test_the_smoke_job_is_among_them() -> None:
    smoke = [command for command in COMMANDS if "RUN_DIR=runs/smoke" in command]
    assert len(smoke) == 1 and "num_steps=2" in smoke[0] and "--nodes=1" in smoke[0]


def test_the_disk_that_the_page_asks_for_is_what_the_checkpoints_take() -> None:
    for recipe, scale in (("prorl_v1", "h100x32"), ("prorl_v2", "h100x32"), ("brorl", "h100x64")):
        size = checkpoint_bytes(build_run(recipe, scale, [], None, needs_files=False)) / 1e9
        assert (
            f"(weights, reference, optimizer) takes {size:.0f} GB" in PAGE and f"for {size:.0f} GB at 200 MB/s" in PAGE
        )
        assert f"100 GB for a run, {size:.0f} GB more for each" in PAGE and 3 * size + 4 + 5 < 100
