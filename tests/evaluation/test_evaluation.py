"""`megatron-rl evaluate` on the real engine: killed anywhere or laid out otherwise, it ends in the same files."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from safetensors import safe_open

from megatron_rl.commands.suites import find_suite
from megatron_rl.config.checks import UserError
from megatron_rl.data.prompts import load_tokenizer
from megatron_rl.evaluation.plan import Evaluation, Policy, asks_of
from megatron_rl.evaluation.run import noted
from megatron_rl.evaluation.store import VERIFIERS
from megatron_rl.runtime.rundir import SHARED_MEMORY, shared_memory_name
from recipes.scales import SCALES
from tests.report.browser import LOADED, PROGRAM, open_page
from tests.test_end_to_end import alive_after, descendants

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
ONE, TWO = "scale.devices_per_node=1", "scale.devices_per_node=2"
NUM_KILLS = 2


def evaluating(to: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "megatron_rl", "evaluate", "demo/model", "--suite", "mini", "--to", str(to)]
        + ["--samples", "64", "--set", "scale.max_requests_in_flight=16", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def evaluated(to: Path, *words: str) -> str:
    process = evaluating(to, *words)
    said = process.communicate()[0]
    assert process.returncode == 0, said[-3000:]
    return said


def kept(to: Path, what: str = "*") -> dict[str, bytes]:
    """Every sample, verdict and table of a folder."""
    files = [path for path in sorted(to.rglob(what)) if path.is_file() and "logs" not in path.parts]
    return {str(path.relative_to(to)): path.read_bytes() for path in files if not path.name.startswith(".")}


def lines(to: Path, what: str) -> list[str]:
    """The lines of all waves, whatever their number."""
    found = [path.read_text().splitlines() for path in sorted(to.rglob(f"{what}/wave_*.jsonl"))]
    return sorted(line for part in found for line in part)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluated at one go, by one engine."""
    to = tmp_path_factory.mktemp("whole")
    said = evaluated(to, "--set", ONE)
    assert "pass@1" in said and "Medians" in said and "as_published" in said
    assert said.splitlines()[-1] == str(to / "evaluation.html")
    return to


def test_killed_at_random_and_started_again_it_ends_in_the_same_files(whole: Path, tmp_path: Path) -> None:
    draw = random.Random(5)
    for _ in range(NUM_KILLS):
        process = evaluating(tmp_path, "--set", ONE)
        deadline = time.monotonic() + 120
        wanted = len(list(tmp_path.rglob("wave_*"))) + draw.randint(1, 5)
        while len(list(tmp_path.rglob("wave_*"))) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None, "it was killed at work"
        left = descendants(process.pid)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not alive_after(left, 10)
        assert "table.csv" not in kept(tmp_path)
    evaluated(tmp_path, "--set", ONE)
    assert kept(tmp_path) == kept(whole)


def test_an_engine_of_two_ranks_gives_the_same_samples(whole: Path, tmp_path: Path) -> None:
    evaluated(tmp_path, "--set", TWO, "--set", "scale.rollout_tensor_parallel=2")
    assert lines(tmp_path, "samples") == lines(whole, "samples")
    assert kept(tmp_path, "table.csv") == kept(whole, "table.csv")
    assert [path for path in SHARED_MEMORY.iterdir() if shared_memory_name(tmp_path) in path.name] == []


def test_what_is_whole_is_shown_again_without_an_engine_and_asked_otherwise_refused(whole: Path) -> None:
    before, began = kept(whole), time.monotonic()
    said = evaluated(whole, "--set", ONE)
    assert "Medians" in said and kept(whole) == before and time.monotonic() - began < 60
    process = evaluating(whole, "--set", TWO, "--max-response-tokens", "12")
    said = process.communicate()[0]
    assert said.count("error:") == 1, "the second rank has nothing to add"
    assert process.returncode == 2 and "answering.max_response_tokens: 24 -> 12" in said
    assert "ask as before, or into another --to" in said


def test_what_other_verifiers_judged_is_judged_again_and_nothing_is_generated(whole: Path, tmp_path: Path) -> None:
    to = tmp_path / "copy"
    shutil.copytree(whole, to)
    notes = sorted(to.rglob(f"ours/{VERIFIERS}"))
    for note in notes:
        note.write_text('{"version": "of_others"}')
        for wave in note.parent.glob("wave_*.jsonl"):
            wave.write_text(wave.read_text().replace('"score": 1.0', '"score": 0.0'))
    samples = {path: path.stat().st_mtime_ns for path in to.rglob("samples/wave_*.jsonl")}
    said = evaluated(to, "--set", ONE)
    assert said.count("another version of the verifiers") == 1
    aside = {path: path.read_bytes() for path in to.rglob("ours_by_of_others/*")}
    assert len(notes) == 2 and len(aside) > 2
    assert {path: path.stat().st_mtime_ns for path in to.rglob("samples/wave_*.jsonl")} == samples
    assert {name: kept(to)[name] for name in kept(whole)} == kept(whole)


def test_prompts_that_are_all_too_long_are_one_line_that_names_what_to_change(tmp_path: Path) -> None:
    process = evaluating(tmp_path, "--set", TWO, "--max-prompt-tokens", "1")
    said = process.communicate()[0]
    assert process.returncode == 2 and said.count("error:") == 1
    assert "at most 1 tokens; give --max-prompt-tokens, or a suite without mini_math" in said


@pytest.mark.skipif(PROGRAM is None, reason="needs Chromium: apt-get install chromium")
def test_the_page_of_a_real_evaluation_is_drawn(whole: Path) -> None:
    page = whole / "evaluation.html"
    opened = open_page(page, 420, "document.querySelectorAll('svg').length", ready=LOADED)
    assert opened.complaints == [] and opened.requests == [] and page.stat().st_size < 3_000_000
    assert opened.values["document.querySelectorAll('svg').length"] >= 3


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was told to leave after its second step: checkpoints, and no exported model."""
    directory = tmp_path_factory.mktemp("runs") / "stopped"
    words = ["train", "prorl_v2", "--scale", "cpu", "--directory", str(directory), "--set", ONE]
    process = subprocess.Popen(
        [sys.executable, "-m", "megatron_rl", *words, "--set", "run.save_every_steps=1"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while not (directory / "checkpoints" / "step_000002" / "manifest.json").is_file() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130 and not (directory / "model").exists()
    return directory


def test_a_run_that_was_stopped_and_its_checkpoint_are_evaluated_without_an_export_of_its_own(stopped: Path) -> None:
    newest = max((stopped / "checkpoints").glob("step_??????"))
    said = evaluated_of(stopped, "--samples", "8")
    assert said.count("Medians") == 2 and "start" in said and f"step {int(newest.name[5:])}" in said
    results = stopped / "evaluation"
    assert [path.name for path in (results / "models").iterdir()] == [newest.name]
    first = kept(results / "policies")
    assert not (stopped / "model").exists()
    said = evaluated_of(newest, "--samples", "8")
    assert said.count("Medians") == 2, "with the policies that the folder has already"
    assert kept(results / "policies") == first, "and nothing is generated again"


def test_a_run_that_was_stopped_is_exported_with_a_card_that_has_its_scores(stopped: Path, tmp_path: Path) -> None:
    newest = max((stopped / "checkpoints").glob("step_??????"))
    evaluated_of(stopped, "--samples", "8")
    done = subprocess.run(
        [sys.executable, "-m", "megatron_rl", "export", str(stopped), "--to", str(tmp_path / "policy")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    shapes = []
    for folder in (ROOT / "demo" / "model", tmp_path / "policy", stopped / "evaluation" / "models" / newest.name):
        (path,) = folder.glob("*.safetensors")
        with safe_open(path, framework="pt") as file:
            shapes.append({name: file.get_slice(name).get_shape() for name in file.keys()})  # noqa: SIM118
    assert shapes[0] == shapes[1] == shapes[2]
    card = ModelCard.load(tmp_path / "policy" / "README.md").text
    assert "prorl_v2" in card and f"{int(newest.name[5:])} of " in card
    assert re.search(r"\| mini_math \| ours \| pass@1 \| [\d.]+ \([\d.]+ to [\d.]+\) \|", card)
    assert "| mini_logic | as_published | pass@1 |" in card and (tmp_path / "policy" / "curves.png").is_file()


def evaluated_of(target: Path, *words: str) -> str:
    """What `evaluate` says of a run or a checkpoint of one."""
    done = subprocess.run(
        [sys.executable, "-m", "megatron_rl", "evaluate", str(target), "--suite", "mini", *words],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def test_a_start_that_is_refused_binds_no_later_one(tmp_path: Path) -> None:
    model = ROOT / "demo" / "model"
    policy = Policy(name="model", title="model", folder=model, step=None, shape_folder=model)
    suites, tokenizer = [find_suite("mini_logic"), find_suite("mini_math")], load_tokenizer(model)
    refused, taken = (
        Evaluation(
            directory=tmp_path,
            policies=(policy,),
            asks=asks_of(suites, max_prompt_tokens=number, max_response_tokens=24),
            scale=SCALES["cpu"],
        )
        for number in (10, 30)
    )
    with pytest.raises(UserError, match=r"none of 12 prompts has at most 10 tokens; .* a suite without mini_math"):
        noted(refused, tokenizer)
    assert not (tmp_path / "policies").exists()
    sizes = noted(taken, tokenizer)
    assert noted(taken, tokenizer) == sizes and len(sizes) == 2
    assert len(list(tmp_path.rglob("asked.json"))) == 2
