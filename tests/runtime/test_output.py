"""Standard output that is missing, full, or read by nobody any more: one line or nothing, and never a traceback."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest
import typer

import megatron_rl.__main__
import megatron_rl.commands
from megatron_rl.commands import cli
from megatron_rl.commands.errors import one_line_errors, print_error
from megatron_rl.runtime import log
from megatron_rl.runtime.console import Terminal
from megatron_rl.runtime.log import get_logger
from megatron_rl.runtime.output import nobody_reads, open_streams


@pytest.fixture
def unread() -> Iterator[TextIO]:
    """A standard output whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as file:
        yield file
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)  # else what is in its buffer breaks again


def test_a_console_whose_reader_is_gone_falls_silent_and_ends_nothing(
    unread: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", unread)
    console = Terminal()
    console.print("a")
    assert console.quiet
    console.print("b")


def test_a_command_whose_reader_is_gone_has_done_its_work(unread: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", unread)
    assert nobody_reads()
    with pytest.raises(typer.Exit) as ending, one_line_errors():
        print("a", flush=True)
    assert ending.value.exit_code == 0


def test_another_pipe_that_breaks_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "w") as read, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", read)
        assert not nobody_reads()
        with pytest.raises(typer.Exit) as ending, one_line_errors():
            raise BrokenPipeError(32, "Broken pipe", "a verifier's")
    assert ending.value.exit_code == 1
    assert capsys.readouterr().err.startswith("error: BrokenPipeError: ")


def test_a_log_that_nobody_reads_ends_no_run(unread: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = next(one for one in get_logger().handlers if type(one).__module__ == log.__name__)
    monkeypatch.setattr(sys, "stderr", unread)
    handler.emit(logging.LogRecord("a", logging.INFO, "a", 1, "a step", None, None))


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_an_output_that_is_full_is_said_in_one_line(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as ending:
            cli.app(words)
    said = capfd.readouterr().err
    assert (ending.value.code, said.count("\n")) == (1, 1) and "No space left on device" in said


def test_a_process_without_streams_gets_ones_to_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    open_streams()
    given: list[Any] = [sys.stdin, sys.stdout, sys.stderr]
    print("nobody hears", file=given[1])
    print_error("nobody sees")
    assert given[0].read() == ""
    for file in given:
        file.close()


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_that_wants_no_colour_gets_none(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, text in (("NO_COLOR", ""), ("TERM", "xterm"), (name, value)):
        monkeypatch.setenv(key, text)
    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        print_error("a")
        assert os.read(leader, 100) == b"error: a\r\n"
        monkeypatch.setenv("NO_COLOR", "")
        monkeypatch.setenv("TERM", "xterm")
        print_error("a")
        assert os.read(leader, 100).startswith(b"\x1b[31m")
    os.close(leader)


@pytest.mark.parametrize(
    ("before", "meanwhile"), [(signal.default_int_handler, signal.SIG_DFL), (signal.SIG_IGN, signal.SIG_IGN)]
)
def test_ctrl_c_while_the_commands_are_imported_ends_the_process_by_itself_or_is_ignored_as_before(
    before: Any, meanwhile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Any] = []
    own = signal.signal(signal.SIGINT, before)

    class Finder:
        def find_spec(self, name: str, path: Any, target: Any = None) -> None:
            if name == "megatron_rl.commands.cli":
                heard.append(signal.getsignal(signal.SIGINT))

    monkeypatch.delitem(sys.modules, "torch", raising=False)  # with it the process would be ended at once
    monkeypatch.delattr(megatron_rl.commands, "cli")
    monkeypatch.delitem(sys.modules, "megatron_rl.commands.cli")
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    monkeypatch.setattr(sys, "argv", ["megatron-rl", "nothing"])
    try:
        with pytest.raises(SystemExit):
            megatron_rl.__main__.main()
    finally:
        after = signal.signal(signal.SIGINT, own)
    assert heard == [meanwhile] and after is before
