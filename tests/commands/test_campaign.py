"""A campaign hands each run the policy of the one before, stops where a run fails, and goes on where it stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from megatron_rl.commands.campaign import PUBLISHED, campaign, check_campaign, parents_of
from megatron_rl.commands.choose import find_recipe
from megatron_rl.commands.cli import app
from megatron_rl.runtime.preempt import SIGNALS

ROOT = Path(__file__).resolve().parents[2]


class Runs:
    """Stands for the processes of the runs: notes their words and answers with these exit codes."""

    def __init__(self, codes: Sequence[int]) -> None:
        self.codes, self.words = list(codes), list[list[str]]()

    def __call__(self, words: list[str]) -> int:
        assert words[:3] == [sys.executable, "-m", "megatron_rl"]
        self.words.append(words[3:])
        return self.codes.pop(0)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Any:
    def answer(*codes: int) -> Runs:
        runs = Runs(codes)
        monkeypatch.setattr("megatron_rl.commands.campaign.run_to_its_end", runs)
        return runs

    return answer


def test_the_published_campaign_is_a_lineage(tmp_path: Path) -> None:
    check_campaign(PUBLISHED, "h100x32", ["run.seed=2"], tmp_path)
    check_campaign(["prorl_v2_icepop", "brorl"], "cpu", ["num_steps=3"], tmp_path)


@pytest.mark.parametrize(
    ("recipes", "scale", "pattern"),
    [
        (["prorl_v1", "prorl_v2"], "cpu", "recipe 'prorl_v2' starts from model .*, not from 'prorl_v1 1.2.0'"),
        (["prorl_v1", "brorl"], "cpu", "continues a run of 'prorl_v2', but the parent is one of 'prorl_v1 1.2.0'"),
        (["brorl"], "cpu", "continues a run of 'prorl_v2'; give that run's directory"),
        (["prorl_v1", "prorl_v2_after"], "cpu", "did you mean 'prorl_v2_after_v1'"),
        (["prorl_v1"], "cpus", "scale 'cpus': there is none"),
    ],
)
def test_recipes_that_do_not_follow_one_another_end_in_one_line_before_anything_starts(
    started: Any, tmp_path: Path, recipes: list[str], scale: str, pattern: str
) -> None:
    runs = started()
    with pytest.raises(ValueError, match=pattern):
        check_campaign(recipes, scale, [], tmp_path)
    result = CliRunner().invoke(app, ["campaign", *recipes, "--scale", scale, "--directory", str(tmp_path / "all")])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith("error: ")
    assert runs.words == []
    assert not (tmp_path / "all").exists()


def test_each_run_starts_from_the_one_before_with_the_same_settings(started: Any, tmp_path: Path) -> None:
    runs = started(0, 0, 0)
    assert campaign(["recipes/prorl_v2.py", "brorl"], "cpu", ["run.seed=2", "num_steps=3"], tmp_path) == 0
    common = ["--set", "run.seed=2", "--set", "num_steps=3"]
    first, second = tmp_path / "1_prorl_v2", tmp_path / "2_brorl"
    assert runs.words == [
        ["train", "recipes/prorl_v2.py", "--scale", "cpu", "--directory", str(first), *common],
        ["train", "brorl", "--scale", "cpu", "--directory", str(second), "--parent", str(first), *common],
        ["report", str(first), str(second), "--to", str(tmp_path / "comparison.html")],
    ]


COMPARISON = ("prorl_v1", "prorl_v2_after_v1", "brorl", "brorl_control_n16", "dler")


def test_several_go_on_from_one(started: Any, tmp_path: Path) -> None:
    runs = started(*[0] * 9)
    check_campaign(COMPARISON, "cpu", ["run.seed=2"], tmp_path)
    assert campaign(COMPARISON, "cpu", [], tmp_path) == 0
    parents = {words[1]: words[words.index("--parent") + 1] for words in runs.words if "--parent" in words}
    v1, v2 = str(tmp_path / "1_prorl_v1"), str(tmp_path / "2_prorl_v2_after_v1")
    assert parents == {"prorl_v2_after_v1": v1} | dict.fromkeys(("brorl", "brorl_control_n16", "dler"), v2)
    assert [len(words) for words in runs.words if words[0] == "report"] == [5, 6, 7, 8]


def test_the_newest_that_fits_is_gone_on_from() -> None:
    names = ("prorl_v2", "prorl_v2_icepop", "brorl", "dler")
    assert parents_of([find_recipe(name) for name in names[1:]]) == [None, 0, 0]
    with pytest.raises(ValueError, match="'prorl_v2_icepop' starts from model .*, not from 'prorl_v2 2.1.0'"):
        parents_of([find_recipe(name) for name in names])


def test_the_model_folder_is_the_first_run_s_alone(started: Any, tmp_path: Path) -> None:
    runs = started(0, 0, 0)
    campaign(["prorl_v2", "brorl"], "cpu", ["run.model_folder=here", "run.seed=2"], tmp_path)
    assert ["run.model_folder=here" in words for words in runs.words] == [True, False, False]
    assert all("run.seed=2" in words for words in runs.words[:2])


@pytest.mark.parametrize("code", [1, 2, 75, -9])
def test_a_run_that_fails_or_asks_to_be_requeued_ends_the_campaign(started: Any, tmp_path: Path, code: int) -> None:
    runs = started(0, code, 0)
    assert campaign(PUBLISHED, "cpu", [], tmp_path) == code
    assert len(runs.words) == 2


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_to_leave_reaches_the_run_and_its_own_end_is_waited_for(number: signal.Signals) -> None:
    run = f"import signal, sys, time; signal.signal({int(number)}, lambda *_: sys.exit(85)); print('up', flush=True); "
    program = "import sys; from megatron_rl.commands.campaign import run_to_its_end\n"
    program += f"sys.exit(run_to_its_end([sys.executable, '-c', {run + 'time.sleep(60)'!r}]))"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT) as campaigning:
        assert campaigning.stdout is not None and campaigning.stdout.readline() == "up\n"
        time.sleep(0.2)  # the run may be up before its campaign listens
        campaigning.send_signal(number)
        assert campaigning.wait(10) == 85


def test_what_a_later_run_lacks_is_found_before_the_first(started: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="there is no such folder"):
        check_campaign(PUBLISHED, "cpu", ["run.data_folder=none"], tmp_path / "all")
    with pytest.raises(ValueError, match=r"cannot be written to or locked \(.*/file is a file\)"):
        check_campaign(PUBLISHED, "cpu", [], tmp_path / "file" / "all")


@pytest.mark.parametrize(
    ("setting", "pattern"),
    [
        ("algorithm.length.weight=1", "--set algorithm.length.weight: algorithm.length is None here"),
        ("sampling.top_p=0.9", "the loss needs the full distribution"),
        ("sampling.tempratur=1", "did you mean 'sampling.temperature'"),
        ("num_steps=1", "stage at step 12: lies outside num_steps=1"),
    ],
)
def test_a_setting_that_a_later_run_would_refuse_is_refused_before_the_first(
    tmp_path: Path, setting: str, pattern: str
) -> None:
    with pytest.raises(ValueError, match=pattern):
        check_campaign(PUBLISHED, "cpu", [setting], tmp_path)
    words = ["campaign", "--scale", "cpu", "--directory", str(tmp_path / "all"), "--set", setting]
    assert CliRunner().invoke(app, words).exit_code == 2
    assert not (tmp_path / "all").exists()
