"""A campaign hands each run the policy of the one before, stops where a run fails, and goes on where it stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pytest
from typer.testing import CliRunner

from megatron_rl.campaign import PUBLISHED, campaign, check_campaign
from megatron_rl.cli import app


class Runs:
    """Stands for the processes of the runs: notes their words and answers with these exit codes."""

    def __init__(self, codes: Sequence[int | type[BaseException]]) -> None:
        self.codes, self.words = list(codes), list[list[str]]()

    def __call__(self, words: list[str]) -> Self:
        assert words[:3] == [sys.executable, "-m", "megatron_rl"]
        self.words.append(words[3:])
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def wait(self) -> int:
        code = self.codes.pop(0)
        if isinstance(code, int):
            return code
        raise code


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Any:
    def answer(*codes: Any) -> Runs:
        runs = Runs(codes)
        monkeypatch.setattr("megatron_rl.campaign.subprocess.Popen", runs)
        return runs

    return answer


def test_the_published_campaign_is_a_lineage() -> None:
    check_campaign(PUBLISHED, "h100x32")
    check_campaign(["prorl_v2_icepop", "brorl"], "cpu")


@pytest.mark.parametrize(
    ("recipes", "scale", "pattern"),
    [
        (["prorl_v1", "prorl_v2"], "cpu", "recipe 'prorl_v2' starts from model .*, not from 'prorl_v1 1.0.0'"),
        (["prorl_v1", "brorl"], "cpu", "continues a run of 'prorl_v2', but the parent is one of 'prorl_v1 1.0.0'"),
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
        check_campaign(recipes, scale)
    result = CliRunner().invoke(app, ["campaign", *recipes, "--scale", scale, "--directory", str(tmp_path / "all")])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith("error: ")
    assert runs.words == []
    assert not (tmp_path / "all").exists()


def test_each_run_starts_from_the_one_before_with_the_same_settings(started: Any, tmp_path: Path) -> None:
    runs = started(0, 0)
    assert campaign(["recipes/prorl_v2.py", "brorl"], "cpu", ["run.seed=2", "num_steps=3"], tmp_path) == 0
    common = ["--set", "run.seed=2", "--set", "num_steps=3"]
    first, second = tmp_path / "1_prorl_v2", tmp_path / "2_brorl"
    assert runs.words == [
        ["train", "recipes/prorl_v2.py", "--scale", "cpu", "--directory", str(first), *common],
        ["train", "brorl", "--scale", "cpu", "--directory", str(second), "--parent", str(first), *common],
    ]


@pytest.mark.parametrize("code", [1, 2, 75, -9])
def test_a_run_that_fails_or_asks_to_be_requeued_ends_the_campaign(started: Any, tmp_path: Path, code: int) -> None:
    runs = started(0, code, 0)
    assert campaign(PUBLISHED, "cpu", [], tmp_path) == code
    assert len(runs.words) == 2


def test_ctrl_c_waits_for_the_run_s_own_end(started: Any, tmp_path: Path) -> None:
    runs = started(KeyboardInterrupt, 130, 0)
    assert campaign(PUBLISHED, "cpu", [], tmp_path) == 130
    assert len(runs.words) == 1
