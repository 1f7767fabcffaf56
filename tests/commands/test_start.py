"""A run that is over, in use, or has nowhere to live starts no rank and writes nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from megatron_rl.commands import start
from megatron_rl.commands.choose import build_run, rebuild_run
from megatron_rl.commands.cli import app
from megatron_rl.config.lineage import FILE_NAME, model_folder_of
from megatron_rl.report.provenance import write_run_file
from megatron_rl.runtime import rundir
from recipes.prorl_v2 import RECIPE
from tests.folders import manifest, parent_facts


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def must_not_start(*arguments: Any) -> int:
        raise AssertionError("something was started")

    monkeypatch.setattr("megatron_rl.commands.start.launch_ranks", must_not_start)
    for name in list(os.environ):
        if name.startswith("SLURM_") or name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)


def words(command: str, directory: Path | str) -> list[str]:
    return [command, "prorl_v2", "--scale", "cpu", "--set", "num_steps=3", "--directory", str(directory)]


def entries(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(directory: Path | str, *patterns: str) -> None:
    """`train` ends in one line with code 2, and `check` warns of it."""
    result = CliRunner().invoke(app, words("train", directory))
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.output
    assert all(pattern in result.stderr for pattern in ("error: directory ", *patterns))
    previewed = CliRunner().invoke(app, words("check", directory))
    assert previewed.exit_code == 0
    assert all(pattern in previewed.stderr for pattern in ("warning: `train` would refuse this: ", *patterns))


def finished(directory: Path, step: int = 3) -> None:
    """What a run of three steps has left at its end."""
    run = build_run("prorl_v2", "cpu", ["num_steps=3"], directory, needs_files=True)
    folder = directory / "checkpoints" / f"step_{step:06d}"
    folder.mkdir(parents=True)
    facts = manifest(run.recipe.fingerprint, run.scale.layout, run.identity, data=run.data_digest) | {
        "state": {"step": step}
    }
    (folder / "manifest.json").write_text(json.dumps(rundir.sealed(facts)))
    exported = dataclasses.replace(parent_facts(run.published.release), fingerprint=run.recipe.fingerprint, step=3)
    model_folder_of(directory).mkdir()
    (model_folder_of(directory) / FILE_NAME).write_text(exported.to_json())
    (directory / "report.html").write_text("")
    judged = {"validation/unjudged_fraction": 0.0}
    rows = [judged | {"step": step, "validation/accuracy": 0.1 * (step + 1)} for step in (0, 3)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_second_train_is_refused_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "HANDOVER_SECONDS", 0.0)
    directory = tmp_path / "run"
    with rundir.locked(directory):
        (directory / "logs").mkdir()
        before = entries(directory)
        refused(directory, f"another run is using it (process {os.getpid()} on ", "wait for its end")
        assert entries(directory) == before


def test_a_directory_that_cannot_be_is_found_before_ranks_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    refused(tmp_path / "link", "a link that leads nowhere")
    result = CliRunner().invoke(app, words("train", "/proc/run"))  # what only an attempt can tell
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "directory /proc/run: cannot be written to or locked (" in result.stderr
    result = CliRunner().invoke(app, words("train", tmp_path / "file" / "run"))
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1) and "is a file" in result.stderr


@pytest.mark.parametrize(
    "names",
    [["config.json", "model.safetensors"], [".bashrc", "thesis.tex"], ["1_prorl_v1/run.json"], ["logs", "x.py"]],
)
def test_a_folder_of_something_else_is_left_as_it_is(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    before = entries(tmp_path)
    for command in ("train", "check"):
        result = CliRunner().invoke(app, words(command, tmp_path))
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.output
        assert result.stderr.startswith(f"error: directory {tmp_path}: holds ")
        assert "a run begins in a new or empty folder, or goes on in its own; name another with --dir" in result.stderr
    assert entries(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_directory_of_somebody_else_is_found_before_ranks_start(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    refused(tmp_path / "run", "is not writable")


def test_what_the_system_does_not_let_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "checkpoints")
    refused(tmp_path / "run", "checkpoints is not writable")


def test_a_finished_run_says_so_without_starting_anything(tmp_path: Path) -> None:
    finished(tmp_path)
    before = entries(tmp_path)
    result = CliRunner().invoke(app, words("train", tmp_path))
    assert result.exit_code == 0, result.output
    assert f"{RECIPE.release} at scale cpu: 3 of 3 steps done" in result.stdout
    assert "0.100 -> 0.400" in result.stdout
    assert entries(tmp_path) == before


def test_a_finished_run_of_another_seed_is_not_the_one_that_was_asked_for(tmp_path: Path) -> None:
    finished(tmp_path)
    result = CliRunner().invoke(app, [*words("train", tmp_path), "--set", "run.seed=2"])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.output
    assert "was made with seed 1, this run has 2; give the one it was started with, or another --dir" in result.stderr


@pytest.mark.parametrize("left", ["step", "model", "report.html", "release"])
def test_a_run_that_has_not_quite_finished_is_started(left: str, tmp_path: Path) -> None:
    finished(tmp_path, step=2 if left == "step" else 3)
    if left == "model":
        (tmp_path / "model" / FILE_NAME).unlink()
    if left == "report.html":
        (tmp_path / "report.html").unlink()
    if left == "release":
        facts = json.loads((tmp_path / "model" / FILE_NAME).read_text())
        (tmp_path / "model" / FILE_NAME).write_text(json.dumps(facts | {"release": "another 1.0.0"}))
    result = CliRunner().invoke(app, words("train", tmp_path))
    assert isinstance(result.exception, AssertionError) and "something was started" in str(result.exception)


def test_an_export_that_cannot_be_starts_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    (tmp_path / "file").write_text("")

    def line(to: Path) -> str:
        result = CliRunner().invoke(app, ["export", str(directory), "--to", str(to)])
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
        return result.stderr

    assert "is no run's directory" in line(tmp_path / "policy")
    finished(directory)
    write_run_file(build_run("prorl_v2", "cpu", ["num_steps=3"], directory, needs_files=True), 0)
    assert "is there and is no export of a run" in line(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    start.check_export(rebuild_run(directory), tmp_path / "empty", None)
    assert "for " + str(tmp_path / "file") + " is no folder to write in" in line(tmp_path / "file" / "policy")
    (directory / "checkpoints").rename(directory / "elsewhere")
    assert "has no checkpoint yet" in line(tmp_path / "policy")


@pytest.mark.parametrize(
    "words",
    [["verify", "demo/cases.jsonl", "--output", "/proc/x"], ["theory", "--directory", "/proc/x"]],
)
def test_a_result_that_cannot_be_written_is_told_at_once(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    assert "/proc/x: cannot be" in result.stderr


def test_check_says_how_many_prompts_of_which_domain_are_too_long(tmp_path: Path) -> None:
    rows = [
        {"id": f"{kind}{k}", "domain": "math", "prompt": prompt, "item": {"answer": "5"}}
        for kind, prompt, count in (("short", "2+3=", 1), ("long", "1+" * 40, 19))
        for k in range(count)
    ]
    for name in ("train", "validation"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ("--set", f"run.data_folder={tmp_path}", "--domains", "math", "--directory", str(tmp_path / "run"))
    result = CliRunner().invoke(app, ["check", "prorl_v2", "--scale", "cpu", *settings])
    for name in ("train", "validation"):
        assert f"{name}: left out as longer than sampling.max_prompt_tokens=" in result.stdout, result.output
    assert result.stdout.count("19 of 20 math prompts") == 2


def test_the_command_has_one_thread_when_it_would_fork_its_ranks(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from megatron_rl.commands import cli, start\n"
        "threads = lambda: len(list(Path('/proc/self/task').iterdir()))\n"
        "start.launch_ranks = lambda *_: print('numpy' in sys.modules, threads()) or 0\n"
        f"sys.argv[1:] = {words('train', tmp_path / 'run')}\n"
        "cli.main()\n"
    )
    unset = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", program], env=unset, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True 1\n"), done.stderr
