"""The model card says what the run's record says, in the form that the hub reads; an upload that fails is one line."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import create_autospec

import pytest
from huggingface_hub import HfApi, ModelCard, RepoUrl
from huggingface_hub.errors import OfflineModeIsEnabled

from megatron_rl.config import lineage
from megatron_rl.config.checks import UserError
from megatron_rl.report.card import check_name, push, write_card
from megatron_rl.report.journal import Journal
from megatron_rl.report.provenance import write_run_file
from tests.folders import parent_facts
from tests.report.records import step_row, validation_row
from tests.report.runs import make_run

HEAD = "benchmark,policy,scorer,figure,value,low,high,Nemotron-1.5B\n"
SCORES = (
    HEAD + "aime24,step_000000,ours,pass@1,0.1,0.05,0.15,\n"
    "aime24,step_000040,ours,pass@1,0.4812,0.40,0.55,48.13\n"
    "aime24,step_000040,ours,pass@1 (unbiased),0.4812,0.40,0.55,\n"
    "aime24,step_000040,ours,pass@16 (unbiased),0.7,0.6,0.8,\n"
    'aime24,step_000040,ours,"tokens, mean",812.5,,,\n'
    "logic,step_000040,as_published,pass@1,0.5,0.4,0.6,\n"
)
MANIFEST = {
    "mixture": "prorl 1.0.0",
    "fingerprint": "abc123",
    "files": {"train-math.jsonl.zst": {"sha256": "d1" * 32, "bytes": 5, "rows": 40000}},
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A run of 40 steps with a policy, a score and prompts with a manifest."""
    run = tmp_path / "my_run"
    (run / "model").mkdir(parents=True)
    (run / "evaluation").mkdir()
    made = dataclasses.replace(make_run(run), modified=("sampling.temperature=1.2",), data_digest="f00d" * 4)
    (run / "manifest.json").write_text(json.dumps(MANIFEST))
    (run / "README.md").write_text("---\nlicense: mit\n---\nThe card of the base model.\n")
    recipe = dataclasses.replace(
        made.recipe, sampling=dataclasses.replace(made.recipe.sampling, temperature=1.2), num_steps=40
    )
    write_run_file(dataclasses.replace(made, recipe=recipe), 0)
    facts = dataclasses.replace(parent_facts("prorl_v2 2.1.0"), step=40, samples_seen=327680)
    (run / "model" / lineage.FILE_NAME).write_text(facts.to_json())
    (run / "evaluation" / "table.csv").write_text(SCORES)
    journal = Journal(run)
    for step in range(41):
        if step:
            journal.append(step_row(step))
        if step % 2 == 0:
            journal.append(validation_row(step, step / 50))
    return run


def test_the_card_is_one_that_the_hub_reads(directory: Path) -> None:
    write_card(directory / "model", directory)
    found = ModelCard.load(directory / "model" / "README.md")
    assert found.data.base_model == "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
    assert found.data.library_name == "transformers" and found.data.license == "mit"
    assert found.data.tags is not None and "prorl_v2" in found.data.tags
    assert found.data.eval_results is not None
    assert [(one.dataset_name, one.metric_value) for one in found.data.eval_results] == [("aime24", 0.4812)]


def test_the_card_says_what_the_record_says(directory: Path) -> None:
    write_card(directory / "model", directory)
    text = (directory / "model" / "README.md").read_text()
    facts = json.loads((directory / "run.json").read_text())
    for part in (
        f"prorl_v2 2.1.0, fingerprint `{facts['fingerprint']}`",
        "- `--set sampling.temperature=1.2`",
        "- `sampling.temperature: 1.0 -> 1.2`",
        "- `num_steps: 3000 -> 40`",
        "40 of 40; 327,680 samples",
        "digest of the training prompts: `f00df00df00df00d`",
        "mixture prorl 1.0.0, fingerprint `abc123`",
        "`train-math.jsonl.zst`: 40,000 rows, sha256 `d1d1",
        "| aime24 | ours | pass@1 | 48.1 (40.0 to 55.0) |",
        "| aime24 | ours | pass@16 (unbiased) | 70.0 (60.0 to 80.0) |",
        "| logic | as_published | pass@1 | 50.0 (40.0 to 60.0) |",
        "![reward and accuracy](curves.png)",
        "| 0 | 0.000 | 0.000 |",
        "| 40 | 0.800 | 0.800 |",
        "`algorithm.clip_low`",
        "- P1: ProRL v1, https://arxiv.org/abs/2505.24864",
    ):
        assert part in text, part
    assert "10.0 (5.0" not in text, "the start policy's score"
    assert (directory / "model" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert text.count("| 0.") < 40, "the table is short, however long the run"


def test_a_card_of_a_run_that_was_not_evaluated_claims_no_score(directory: Path) -> None:
    (directory / "evaluation" / "table.csv").unlink()
    write_card(directory / "model", directory)
    text = (directory / "model" / "README.md").read_text()
    assert "model-index" not in text and "## Evaluation" not in text


def test_lineage_is_told_from_the_first_ancestor_on(directory: Path) -> None:
    path = directory / "model" / lineage.FILE_NAME
    older = dataclasses.replace(parent_facts("prorl_v1 1.2.0"), step=2000)
    path.write_text(dataclasses.replace(parent_facts("prorl_v2 2.1.0", older), step=40).to_json())
    write_card(directory / "model", directory)
    text = (directory / "model" / "README.md").read_text()
    assert "1. prorl_v1 1.2.0, step 2,000" in text and "2. this run, from prorl_v1 1.2.0, step 2,000" in text


def test_a_published_ancestor_is_told_by_its_name_and_its_weights(directory: Path) -> None:
    path = directory / "model" / lineage.FILE_NAME
    older = dataclasses.replace(
        parent_facts("prorl_v2 2.1.0"), scale=lineage.PUBLISHED, policy_digest="nvidia/Nemotron", weights_digest="ab12"
    )
    path.write_text(dataclasses.replace(parent_facts("brorl 1.1.0", older), step=40).to_json())
    write_card(directory / "model", directory)
    text = (directory / "model" / "README.md").read_text()
    assert "1. nvidia/Nemotron, published, weights `ab12`" in text


def test_the_upload_is_of_the_folder_and_the_name(directory: Path) -> None:
    asked: list[tuple[Path, str]] = []

    def uploads(folder: Path, name: str) -> str:
        asked.append((folder, name))
        return f"https://huggingface.co/{name}"

    assert push(directory / "model", "me/policy", uploads) == "https://huggingface.co/me/policy"
    assert asked == [(directory / "model", "me/policy")]


@pytest.mark.parametrize("error", [OfflineModeIsEnabled("offline\nmode"), ConnectionError("nobody there")])
def test_an_upload_that_fails_is_one_line_with_the_remedy(error: Exception, directory: Path) -> None:
    def uploads(folder: Path, name: str) -> str:
        raise error

    with pytest.raises(RuntimeError, match="--push me/policy: .*; .* is complete: mend that") as found:
        push(directory, "me/policy", uploads)
    assert "\n" not in str(found.value)


def test_the_hubs_client_is_asked_for_a_private_model_of_all_files(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = create_autospec(HfApi, instance=True)  # which takes the words that the real one takes
    client.create_repo.return_value = RepoUrl("https://huggingface.co/me/policy")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: client)
    assert push(directory / "model", "me/policy") == "https://huggingface.co/me/policy"
    client.create_repo.assert_called_once_with("me/policy", private=True, exist_ok=True)
    client.upload_folder.assert_called_once_with(
        folder_path=directory / "model", repo_id="me/policy", commit_message="Upload by megatron-rl, from model"
    )


def test_a_hub_that_nobody_answers_for_is_one_line(directory: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from megatron_rl.report.card import push\n"
        "try: push(Path(sys.argv[1]), 'me/policy')\n"
        "except RuntimeError as error: print(error)"
    )
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_x"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(directory)], capture_output=True, text=True, env=os.environ | nobody
    )
    assert done.stdout.startswith("--push me/policy: ") and done.stdout.count("\n") == 1, done


@pytest.mark.parametrize("name", ["policy", "a/b/c", "me/pol icy", ""])
def test_a_name_that_the_hub_does_not_take_is_refused_before_anything_starts(name: str) -> None:
    with pytest.raises(UserError, match="must be OWNER/NAME"):
        check_name(name)
