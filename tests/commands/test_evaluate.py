"""What the words of `evaluate` come to: its targets by name, and a line with a remedy for every word that is wrong."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from megatron_rl.commands import start
from megatron_rl.commands.cli import app
from megatron_rl.commands.evaluate import find_target
from megatron_rl.config.checks import UserError
from megatron_rl.config.lineage import model_folder_of
from megatron_rl.evaluation import store
from megatron_rl.evaluation.plan import Evaluation
from megatron_rl.runtime import rundir
from tests.docs.pages import COMMANDS
from tests.folders import write_model, write_run


def write_checkpoint(run: Path, step: int) -> Path:
    folder = run / "checkpoints" / f"step_{step:06d}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Evaluation]:
    """What `megatron-rl evaluate WORDS` would start; UserError where it would refuse."""
    kept: list[Evaluation] = []

    def keep(choose: Callable[[], Any], words: Callable[[Any], list[str]], action: object, **_: object) -> None:
        kept.append(choose())
        again = words(kept[0])
        assert again[0] == "evaluate" and not any("None" in word for word in again), "what a rank is started with"

    monkeypatch.setattr(start, "on_every_rank", keep)

    def plan(*words: str) -> Evaluation:
        kept.clear()
        done = CliRunner().invoke(app, ["evaluate", *words])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert kept, done.output
        return kept[0]

    return plan


def test_a_second_evaluation_is_refused_and_told_of_its_own_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rundir, "HANDOVER_SECONDS", 0.0)
    run = write_run(tmp_path / "run")
    with rundir.locked(run / "evaluation"):
        result = CliRunner().invoke(app, ["evaluate", str(run), "--suite", "mini"])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.rstrip().endswith("wait for its end, or choose another with --to")


def test_results_are_not_put_among_what_is_something_else(tmp_path: Path, planned: Callable[..., Evaluation]) -> None:
    run, to = write_run(tmp_path / "run"), tmp_path / "to"
    for folder, held in ((run, "run.json"), (tmp_path / "run_start", "config.json")):
        with pytest.raises(UserError, match=f"{folder}: holds .*{held}.*, and not an evaluation; .* with --to$"):
            planned(str(run), "--suite", "mini", "--to", str(folder))
    (to / "models").mkdir(parents=True)  # the start before was killed
    planned(str(run), "--suite", "mini", "--to", str(to))
    (to / "notes.txt").touch()
    with pytest.raises(UserError, match=r"holds notes\.txt, and not"):
        planned(str(run), "--suite", "mini", "--to", str(to))
    (to / "policies" / "start").mkdir(parents=True)
    (to / "policies" / "start" / "policy.json").write_text("{}")
    planned(str(run), "--suite", "mini", "--to", str(to))


def test_a_run_is_its_first_and_its_last_policy(tmp_path: Path, planned: Callable[..., Evaluation]) -> None:
    run = write_run(tmp_path / "run")
    found = planned(str(run), "--suite", "mini")
    assert [policy.title for policy in found.policies][0] == "start" and len(found.policies) == 2
    assert found.policies[0].folder == tmp_path / "run_start" and found.policies[1].folder == model_folder_of(run)
    assert found.directory == run / "evaluation" and found.scale.name == "cpu"


def test_a_checkpoint_is_exported_beside_the_results(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    checkpoint = write_checkpoint(run, 12)
    (policy,) = find_target(checkpoint, None).policies
    assert (policy.name, policy.step, policy.checkpoint) == ("step_000012", 12, checkpoint)
    assert policy.folder == run / "evaluation" / "models" / "step_000012" and not policy.weights
    (elsewhere,) = find_target(checkpoint, tmp_path / "to").policies
    assert elsewhere.folder == tmp_path / "to" / "models" / "step_000012"


def test_a_model_folder_needs_a_place_for_its_results(tmp_path: Path, planned: Callable[..., Evaluation]) -> None:
    model = write_model(tmp_path / "a model")
    with pytest.raises(UserError, match=r"a model: --to is not given; name the folder for the results"):
        planned(str(model), "--suite", "mini")
    found = planned(str(model), "--suite", "mini", "--to", str(tmp_path / "to"))
    assert [(one.name, one.title) for one in found.policies] == [("a_model", "a model")]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: is a file; name a folder"):
        planned(str(model), "--suite", "mini", "--to", str(tmp_path / "file"))


# What is wrong -> the words behind `evaluate`, and what is said.
WRONG = {
    "no suite": ("MODEL", "--suite: none is given; name one, such as mini or prorl"),
    "a misspelt suite": ("MODEL --suite mimi", "suite 'mimi': there is none; did you mean 'mini'"),
    "a misspelt benchmark": ("MODEL --suite amie24", "suite 'amie24': there is none; did you mean 'aime24'"),
    "a suite's file that is none": ("MODEL --suite my.py", "suite 'my.py': there is no such file"),
    "a suite's file that fails": ("MODEL --suite SUITE", "ValueError: three"),
    "a corpus that is not there": ("MODEL --suite mini --corpus nowhere", "--corpus nowhere: there is no such file"),
    "a corpus without a text": ("MODEL --suite mini --corpus BLANK", "holds only empty files; give text files"),
    "a mirror that is not there": ("MODEL --suite mini --mirror nowhere", "--mirror nowhere: there is no"),
    "no such folder": ("NONE --suite mini", "none: there is no such folder; name a run, a checkpoint of one"),
    "an empty folder": ("EMPTY --suite mini", "empty: is no run (run.json), no checkpoint (manifest"),
    "a damaged run": ("DAMAGED --suite mini", "run.json: cannot be read; start the run once more"),
    "a recipe's setting": ("MODEL --suite mini --set sampling.temperature=1", "an evaluation knows"),
    "an engine in FP8 without a GPU": (
        "MODEL --suite mini --set scale.fp8_rollout=true",
        "fp8_rollout=true needs device='cuda' and precision='bf16'",
    ),
    "a seed that no engine takes": ("MODEL --suite mini --set run.seed=-5", "run.seed=-5: must lie in [0, 4294967296)"),
    "a file for a model": ("BLANK --suite mini", "blank: is a file, not a folder; name a run, a checkpoint of one"),
    "a file for a mirror": ("MODEL --suite mini --mirror BLANK", "blank: is a file, not a folder; give that of the"),
    "a misspelt setting": ("MODEL --suite mini --set scale.presision=bf16", "presision"),
    "too many tokens": ("MODEL --suite aime24", "the suites ask for 40960 tokens of prompt and response, and"),
    "two suites that differ": ("MODEL --suite prorl --suite prorl_pass_at_k", "otherwise than a suite"),
    "no such scale": ("MODEL --suite mini --scale cpo", "cpo"),
    "an unevenly spread engine": ("MODEL --suite mini --set scale.rollout_tensor_parallel=3", "_parallel=3"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_word_that_is_wrong_is_one_line_with_a_remedy(
    name: str, tmp_path: Path, planned: Callable[..., Evaluation]
) -> None:
    words, message = WRONG[name]
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text("{")
    places = {"MODEL": write_model(tmp_path / "model"), "NONE": tmp_path / "none"}
    places |= {"EMPTY": tmp_path / "empty", "DAMAGED": tmp_path / "damaged", "BLANK": tmp_path / "blank"}
    (tmp_path / "blank").write_text("")
    (tmp_path / "fails.py").write_text("raise ValueError('three')")
    places["SUITE"] = tmp_path / "fails.py"
    with pytest.raises(UserError) as error:
        planned(*(str(places.get(word, word)) for word in words.split()), "--to", str(tmp_path / "to"))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_a_suite_says_of_tokens_and_samples_can_be_changed(
    tmp_path: Path, planned: Callable[..., Evaluation]
) -> None:
    words = [str(write_model(tmp_path / "model")), "--suite", "mini", "--to", str(tmp_path / "to")]
    of_suite = planned(*words).asks[0].answering
    found = planned(*words, "--samples", "3", "--max-prompt-tokens", "5", "--max-response-tokens", "7")
    changed = {"samples_per_problem": 3, "max_prompt_tokens": 5, "max_response_tokens": 7}
    assert {ask.answering for ask in found.asks} == {dataclasses.replace(of_suite, **changed)}


def test_a_folder_that_was_asked_otherwise_is_refused_by_what_differs(
    tmp_path: Path, planned: Callable[..., Evaluation]
) -> None:
    words = [str(write_model(tmp_path / "model")), "--suite", "mini", "--to", str(tmp_path / "to")]
    first = planned(*words)
    (ask, *_) = first.asks
    store.write_text(store.problems_folder(first.directory) / f"{ask.name}.jsonl", "{}")
    policy = first.policies[0]
    store.keep([store.note_of_ask(first, policy, ask, 64)])
    _, facts = store.note_of_ask(first, policy, ask, 32)
    assert facts["samples_per_wave"] == 64, "waves stay those of the first start"
    for other, differing in (
        (["--samples", "8"], "answering.samples_per_problem: 256 -> 8"),
        (["--set", "run.seed=2"], "seed: 1 -> 2"),
    ):
        asked = planned(*words, *other)
        with pytest.raises(UserError, match=rf"benchmark mini_math: .*{differing}.*ask as before, or into"):
            store.note_of_ask(asked, policy, asked.asks[0], 64)


def test_samples_of_another_chat_template_are_not_gone_on_with(
    tmp_path: Path, planned: Callable[..., Evaluation]
) -> None:
    model = write_model(tmp_path / "model")
    first = planned(str(model), "--suite", "mini", "--to", str(tmp_path / "to"))
    policy, ask = first.policies[0], first.asks[0]
    store.write_text(store.problems_folder(first.directory) / f"{ask.name}.jsonl", "{}")
    path, facts = store.note_of_ask(first, policy, ask, 64)
    store.keep([(path, facts)])
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with pytest.raises(UserError, match=r"reading.chat_template.jinja: None -> \w{64}\); ask as before, or into"):
        store.note_of_ask(first, policy, ask, 64)
    store.write_text(path, json.dumps({name: value for name, value in facts.items() if name != "reading"}))
    store.note_of_ask(first, policy, ask, 64)  # as an older version noted it


def test_the_commands_of_the_page_are_taken_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planned: Callable[..., Evaluation]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    write_run(tmp_path / "runs" / "demo")
    write_run(tmp_path / "runs" / "prorl_v2", "h100x32")
    lines = [line for page, line in COMMANDS if page == "docs/evaluation.md" and "megatron-rl evaluate " in line]
    found = {line: planned(*shlex.split(line.partition("megatron-rl evaluate")[2])) for line in lines}
    assert len(found) >= 2
    for line, evaluation in found.items():
        if "srun" in line:
            nodes, tasks = (int(re.search(rf"--{word}=(\d+)", line)[1]) for word in ("nodes", "ntasks-per-node"))
            assert (nodes, tasks) == (evaluation.scale.num_nodes, evaluation.scale.devices_per_node)
