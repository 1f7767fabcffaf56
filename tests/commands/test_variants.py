"""`--model` and `--domains`, and the recipe files that are written from them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_rl.commands.check import unasked, warnings
from megatron_rl.commands.choose import build_run, find_recipe, recipe_files
from megatron_rl.commands.recipe import recipe_text
from megatron_rl.config.checks import UserError
from megatron_rl.config.draws import Difficulty
from megatron_rl.config.variant import domains_of, variant_of
from megatron_rl.report.provenance import write_run_file

ROOT = Path(__file__).parents[2]
MODEL, FIVE_DOMAINS = ROOT / "demo" / "model", ROOT / "tests" / "data" / "five_domains"
DATA = f"run.data_folder={FIVE_DOMAINS}"


def test_a_run_with_another_model_and_fewer_domains_is_recorded_as_a_variant_with_all_that_differs(
    tmp_path: Path,
) -> None:
    settings = [DATA, f"model={MODEL}", "domains=math"]
    run = build_run("grpo_control", "gpu1", settings, tmp_path, needs_files=True)
    assert run.is_variant and run.published == find_recipe("grpo_control")
    facts = write_run_file(run, 0)
    assert facts["release"].startswith("grpo_control_variant ")
    assert facts["variant_of"] == run.published.release
    assert "domains: math, code, stem, logic, instruct -> math" in facts["differences"]
    assert any(line.startswith("model.num_layers: 28 -> 2") for line in facts["differences"])
    assert facts["modified"] == settings
    assert facts["data"]["digest"] == run.data_digest != ""
    assert facts["data"]["manifest"]["mixture"] == "five_domains 1.0.0"


def test_a_published_run_is_no_variant(tmp_path: Path) -> None:
    run = build_run("grpo_control", "cpu", [], tmp_path, needs_files=True)
    assert not run.is_variant and run.differences == []
    assert write_run_file(run, 0)["variant_of"] is None


@pytest.mark.parametrize(
    ("settings", "pattern"),
    [
        (["model=none/such"], "--model none/such: is no folder, and not in the Hugging Face cache"),
        (["model=demo/model", "run.model_folder=demo/model"], "--model gives the folder; give one of them"),
        (["model.num_layers=3"], "model cannot be set"),
        (["domains=history"], "--domains history: grpo_control has math"),
        ([DATA, f"model={MODEL}", "domains=math", "domains=logic"], "is given twice"),
        ([DATA, "model= "], "--model: must not be empty"),
    ],
)
def test_what_cannot_be_a_variant_is_one_line(settings: list[str], pattern: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=pattern):
        build_run("grpo_control", "cpu", settings, tmp_path, needs_files=True)


def test_prompts_that_do_not_ask_for_the_form_their_verifier_reads_are_counted(tmp_path: Path) -> None:
    run = build_run("grpo_control", "gpu1", [DATA, f"model={MODEL}", "domains=math,stem"], tmp_path, needs_files=True)
    assert [line.partition(", which")[0] for line in unasked(run)] == ["8 of 8 math prompts ask for no box"]


def test_validation_prompts_that_are_trained_on_are_told_by_check(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(ROOT / "demo" / "data", data)

    def told() -> list[str]:
        run = build_run("grpo_control", "cpu", [f"run.data_folder={data}"], tmp_path / "run", needs_files=True)
        return list(warnings(run, []))

    assert told() == []
    asked = [json.loads(line) for line in (data / "validation.jsonl").read_text().splitlines()]
    again = [one | {"id": f"again {one['id']}"} for one in asked if one["domain"] == "math"]
    with (data / "train.jsonl").open("a") as file:
        file.writelines(json.dumps(one) + "\n" for one in again)
    (line,) = told()
    assert line.startswith(f"validation: {len(again)} of {len(again)} math prompts are in train, too")


def test_weights_and_difficulty_of_a_command_line_are_in_the_run_and_told(tmp_path: Path) -> None:
    settings = [DATA, "domains=math=2,logic=1", "sampling.difficulty.memory=0.5"]
    settings += ["sampling.difficulty.easy_rate=0.9", "sampling.difficulty.min_probability=0.25"]
    run = build_run("grpo_control", "cpu", settings, tmp_path, needs_files=True)
    assert [domain.weight for domain in run.recipe.domains] == [2.0, 1.0]
    assert run.recipe.sampling.difficulty == Difficulty(memory=0.5, easy_rate=0.9, min_probability=0.25)
    assert any("-> math=2, logic=1" in line for line in run.differences)
    with pytest.raises(UserError, match="difficulty is None here, .*; give all of it: memory, easy_rate, min_prob"):
        build_run("grpo_control", "cpu", settings[:-1], tmp_path, needs_files=True)
    with pytest.raises(UserError, match="logic has no weight, and others have"):
        build_run("grpo_control", "cpu", [DATA, "domains=math=2,logic"], tmp_path, needs_files=True)


def test_a_recipe_file_with_weights_is_the_variant_that_the_option_makes(tmp_path: Path) -> None:
    base = find_recipe("prorl_v2")
    varied = variant_of(base, None, domains_of("math=2,logic=0.5,my.py:Sum=1"))
    path = tmp_path / "mine.py"
    path.write_text(recipe_text("prorl_v2", "mine", base, varied, recipe_files()["prorl_v2"]))
    recipe = find_recipe(str(path))
    assert recipe.domains == varied.domains
    assert [domain.weight for domain in recipe.domains] == [2.0, 0.5, 1.0]


def test_a_recipe_file_is_written_that_is_the_variant(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    command = [sys.executable, "-m", "megatron_rl", "recipe", "new", "--from", "prorl_v1"]
    command += ["--model", str(MODEL), "--domains", "math,instruct,my.py:Sum", "--to", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    recipe = find_recipe(str(path))
    assert recipe.release == "mine 0.1.0" and recipe.model.num_layers == 2
    assert [stage.domains for stage in recipe.stages[:3]] == [("math",), None, ("math", "instruct")]
    run = build_run(str(path), "cpu", [DATA], tmp_path / "run", needs_files=True)
    assert [domain.name for domain in run.recipe.domains] == ["math", "instruct", "my.py:Sum"]
    again = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert again.returncode == 2 and "is there already" in again.stderr
