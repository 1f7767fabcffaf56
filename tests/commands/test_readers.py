"""What a reader of runs is asked wrongly is one line with the remedy, before anything is written or served."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from megatron_rl.commands.cli import app
from megatron_rl.commands.readers import steps_of
from tests.report.long_run import write_long_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readers")
    run = write_long_run(folder / "run", num_steps=3, num_resets=1, num_attempts=1)
    (run / "spans").mkdir()
    (run / "spans" / "rank_00000.jsonl").write_text('{"step": 1, "at": 2.0, "spans": [["generate", 1.0, 0.5]]}\n')
    (folder / "file").write_text("")
    return folder


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("report run --to .", ".: is a folder; name a file with --to"),
        (
            "report run --to file/page.html",
            "file/page.html: cannot be written (file: File exists); name another with --to",
        ),
        (
            "report run --to /proc/page.html",
            "/proc/page.html: cannot be written (/proc/.page.html.",
        ),
        ("trace run --to .", ".: is a folder; name a file with --to"),
        (
            "trace run --to file/trace.json",
            "file/trace.json: cannot be written (file: File exists); name another with --to",
        ),
        ("trace . --to trace.json", ".: is no run's directory, for it holds no run.json; give the one of a run"),
        ("report .", ".: is no run's directory"),
        ("report file", "file: is no run's directory, for it is a file, not a folder; give the one of a run, or wait"),
        ("watch none", "none: is no run's directory, for there is no such folder; give the one of a run"),
        ("watch .", ".: is no run's directory"),
        ("watch . --serve 0", ".: is no run's directory"),
        ("watch run --serve 0 --once", "--once: shows where it stands and leaves, and --serve stays; give one of them"),
        ("watch run --serve PORT", "cannot be had (Address already in use); give another port, or 0 for a free one"),
        (
            "track run --to tensorboard --folder file",
            "file: cannot be written (File exists); name another with --folder",
        ),
    ],
)
def test_a_wrong_word_is_one_line(words: str, line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = CliRunner().invoke(app, shlex.split(words.replace("PORT", str(taken.getsockname()[1]))))
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.stderr
    assert line in result.stderr
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("words", [["--version"], ["-h"], ["train", "-h"]])
def test_version_and_help_are_where_people_look_for_them(words: list[str]) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0
    assert result.stdout.strip() == "megatron-rl 0.1.0" if words == ["--version"] else "Usage: " in result.stdout


@pytest.mark.parametrize("span", ["5:", ":5", ":", "1_0", "\u0661:\u0662", "-1", "5:1", "1:2:3", "1.5"])
def test_a_span_of_steps_that_cannot_be_meant_is_refused(span: str) -> None:
    with pytest.raises(typer.BadParameter, match="must be a step, as in 12, or the first and the last"):
        steps_of(span)


def test_a_span_of_steps_is_one_step_or_the_first_and_the_last() -> None:
    assert [steps_of(span) for span in ("12", "12:20", "7:7")] == [(12, 12), (12, 20), (7, 7)]
