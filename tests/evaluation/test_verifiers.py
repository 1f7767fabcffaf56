"""Verdicts of other verifiers are put beside, of every policy in a folder, and their samples judged again."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from megatron_rl.config.checks import UserError
from megatron_rl.evaluation import run, store
from megatron_rl.evaluation.judge import judge
from megatron_rl.evaluation.store import SAMPLES, UNKNOWN_VERSION, VERIFIERS, Wave, put_aside_other_verdicts
from megatron_rl.rewards import version
from megatron_rl.rewards.score import Scorer
from tests.evaluation.stored import RATES, write_evaluation


def judged(folder: Path, text: str) -> None:
    store.write_text(folder / "ours" / "wave_00000.jsonl", text)


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_first_verdicts_are_of_these_verifiers(tmp_path: Path) -> None:
    assert put_aside_other_verdicts(tmp_path, "ours", "a") == 0
    assert content(tmp_path) == {f"ours/{VERIFIERS}": '{"version": "a"}'}
    judged(tmp_path, "1")
    before = content(tmp_path)
    assert put_aside_other_verdicts(tmp_path, "ours", "a") == 0 and content(tmp_path) == before


def test_those_of_others_go_beside_and_come_back_with_them(tmp_path: Path) -> None:
    put_aside_other_verdicts(tmp_path, "ours", "a")
    judged(tmp_path, "1")
    first = content(tmp_path)
    assert put_aside_other_verdicts(tmp_path, "ours", "b") == 1
    assert not Wave(folder=tmp_path, number=0).has("ours")
    assert (tmp_path / "ours_by_a" / "wave_00000.jsonl").read_text() == "1"
    judged(tmp_path, "2")
    assert put_aside_other_verdicts(tmp_path, "ours", "a") == 1
    theirs = {"ours_by_b/wave_00000.jsonl": "2", f"ours_by_b/{VERIFIERS}": '{"version": "b"}'}
    assert content(tmp_path) == first | theirs


def test_verdicts_from_before_versions_were_noted_are_of_others(tmp_path: Path) -> None:
    judged(tmp_path, "1")
    assert put_aside_other_verdicts(tmp_path, "ours", "a") == 1
    assert content(tmp_path) == {
        f"ours_by_{UNKNOWN_VERSION}/wave_00000.jsonl": "1",
        f"ours/{VERIFIERS}": '{"version": "a"}',
    }


def test_a_start_that_was_killed_between_two_moves_is_made_good(tmp_path: Path) -> None:
    put_aside_other_verdicts(tmp_path, "ours", "a")
    judged(tmp_path, "1")
    (tmp_path / "ours").rename(tmp_path / "ours_by_a")
    assert put_aside_other_verdicts(tmp_path, "ours", "a") == 0
    assert (tmp_path / "ours" / "wave_00000.jsonl").read_text() == "1" and not (tmp_path / "ours_by_a").exists()


def test_nothing_that_lies_beside_is_overwritten(tmp_path: Path) -> None:
    put_aside_other_verdicts(tmp_path, "ours", "a")
    store.write_text(tmp_path / "ours_by_a" / "wave_00000.jsonl", "copied by hand")
    before = content(tmp_path)
    with pytest.raises(UserError, match=r"ours_by_a: is there beside .*; remove one of them"):
        put_aside_other_verdicts(tmp_path, "ours", "b")
    assert content(tmp_path) == before


def test_every_policy_of_the_folder_is_judged_by_the_same_verifiers_and_one_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = write_evaluation(tmp_path)  # it asks one policy of three
    assert run._unjudged(evaluation) == []
    run._put_aside_what_others_judged(evaluation)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"than this one, {version.version()}, has judged waves of this folder: 6;" in line
    waiting = {(wave.folder.parent.name, ask.name) for ask, wave in run._unjudged(evaluation)}
    assert waiting == {(policy, name) for policy in RATES for name in ("aime24", "ifeval")}
    run._put_aside_what_others_judged(evaluation)
    assert capsys.readouterr().err == ""


def test_a_benchmark_that_a_policy_was_not_asked_gets_no_folder(tmp_path: Path) -> None:
    evaluation = write_evaluation(tmp_path)
    other = {"title": "other", "step": None, "weights": ""}
    store.write_text(tmp_path / "policies" / "other" / "policy.json", json.dumps(other))
    run._put_aside_what_others_judged(evaluation)
    assert sorted(path.name for path in (tmp_path / "policies" / "other").iterdir()) == ["policy.json"]


def test_samples_of_a_problem_that_is_not_stored_are_named(tmp_path: Path) -> None:
    wave = Wave(folder=tmp_path, number=3)
    store.write_lines(wave.path(SAMPLES), [{"id": "p9", "sample": 0, "response": "", "opens_thought": False}])
    with Scorer(1, 5.0) as scorer, pytest.raises(RuntimeError, match=r"wave_00003\.jsonl: answers problem 'p9'"):
        judge(wave, "ours", {}, scorer)


def test_the_version_is_of_the_source_and_of_what_it_judges_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = version.version.__wrapped__
    assert ours() == version.version() and len(ours()) == version.LENGTH
    with monkeypatch.context() as changed:
        changed.setattr(metadata, "version", lambda package: "0")
        assert ours() != version.version()
    (tmp_path / "math.py").write_text("pays = 1\n")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "units.py").write_text("")
    monkeypatch.setattr(version, "__file__", str(tmp_path / "version.py"))
    before = ours()
    assert ours() == before
    (tmp_path / "inner" / "units.py").write_text("kilo = 1000\n")
    assert ours() != before
