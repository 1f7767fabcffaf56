"""A run is watched from its files alone."""

from __future__ import annotations

import io
import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from megatron_rl.config.checks import UserError
from megatron_rl.report import watch as watching
from megatron_rl.report.watch import LOOPBACK, server, status, watch
from tests.report.long_run import write_long_run


def told(directory: Path, *lines: dict[str, Any], beat: dict[str, Any] | None = None) -> tuple[str, bool]:
    (directory / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if beat is not None:
        (directory / "heartbeat.json").write_text(json.dumps(beat))
    return status(directory)


def test_the_status_says_what_is_done_within_a_step(tmp_path: Path) -> None:
    now = time.time()
    start = {"attempt": 0, "event": "start", "at": now - 50}
    lines = start, {"attempt": 0, "event": "resume", "at": now - 30, "step": 16}
    beat = {"attempt": 0, "at": now - 1, "next_seconds": 1, "where": "generate", "since": now - 20}
    beat |= {"detail": "312 of 512 groups, wave 3 of 5"}
    line, is_over = told(tmp_path, *lines, beat=beat)
    assert line == "attempt 0, step 17: 312 of 512 groups, wave 3 of 5; generate for 20 s" and not is_over
    line, is_over = told(tmp_path, *lines, beat=beat | {"where": "update"})
    assert line == "attempt 0, step 17; update for 20 s" and not is_over
    line, is_over = told(tmp_path, start, beat=beat | {"where": "start"})
    assert "start for 20 s" in line and not is_over
    line, is_over = told(tmp_path, *lines, beat=beat | {"at": now - 100, "next_seconds": 1})
    assert line == "attempt 0 at step 16: killed" and is_over
    end = {"attempt": 0, "event": "end", "at": now, "why": "failed: RuntimeError: x", "seconds": {}}
    assert told(tmp_path, *lines, end, beat=beat) == ("attempt 0 at step 16: failed: RuntimeError: x", True)


def test_watching_shows_the_run_and_leaves_when_it_has_ended(tmp_path: Path) -> None:
    directory = write_long_run(tmp_path / "run", num_steps=50, num_resets=1, num_attempts=2)
    text = io.StringIO()
    watch(directory, Console(file=text, width=120), stays=True)
    assert all(part in text.getvalue() for part in ("step 50/3000", "0.300 -> 0.800", "attempt 1 at step 50: finished"))
    with pytest.raises(UserError, match="is no run's directory"):
        watch(tmp_path, Console(file=text), stays=True)


def test_the_page_is_served_on_this_machine_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = write_long_run(tmp_path / "run", num_steps=20, num_resets=1, num_attempts=1)
    with server(directory, 0) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        assert found.server_address[0] == LOOPBACK
        address = f"http://{LOOPBACK}:{found.server_port}"
        assert b'id="plots-learning"' in urllib.request.urlopen(f"{address}/").read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/metrics.jsonl")
        monkeypatch.setattr(watching, "PAGE_SECONDS", 0.0)
        (directory / "run.json").write_text("{")
        with pytest.raises(urllib.error.HTTPError, match="503") as damaged:
            urllib.request.urlopen(f"{address}/")
        assert b"start the run again, which writes it anew" in damaged.value.read()
        found.shutdown()
