import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_rl.runtime import spans
from megatron_rl.runtime.watchdog import STALL_EXIT_CODE, Watchdog, straggler

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys, time
from pathlib import Path
from megatron_rl.runtime.spans import span
from megatron_rl.runtime.watchdog import Watchdog

def where_it_hangs():
    time.sleep(60)

with Watchdog(Path(sys.argv[1]), 3, limit_seconds=float(sys.argv[2])):
    for _ in range(int(sys.argv[3])):
        with span("update"):
            time.sleep(0.1)
    if sys.argv[4] == "hangs":
        with span("generate"):
            where_it_hangs()
"""


def run(directory: Path, limit_seconds: float, num_spans: int, ending: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", PROGRAM, str(directory), str(limit_seconds), str(num_spans), ending]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=30)


def test_a_process_without_progress_ends_with_its_stacks_and_asks_to_be_requeued(tmp_path: Path) -> None:
    done = run(tmp_path, 1.0, 2, "hangs")
    assert done.returncode == STALL_EXIT_CODE
    assert "rank 3 made no progress for 1 s in 'generate'" in done.stdout + done.stderr
    assert "where_it_hangs" in (tmp_path / "logs" / "stall_rank3.txt").read_text()


def test_a_disk_that_takes_nothing_does_not_blind_it(tmp_path: Path) -> None:
    for taken in ("progress/rank_00003", "stall_rank3.txt"):  # folders where its files would be
        (tmp_path / "logs" / taken).mkdir(parents=True)
    done = run(tmp_path, 1.0, 2, "hangs")
    assert done.returncode == STALL_EXIT_CODE
    assert "stall_rank3.txt cannot be written (Is a directory)" in done.stdout + done.stderr
    assert "where_it_hangs" in done.stderr


def test_progress_keeps_a_process_alive(tmp_path: Path) -> None:
    assert run(tmp_path, 1.0, 20, "ends").returncode == 0


def test_a_long_span_that_tells_is_progress_and_a_clock_that_is_set_is_no_stall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = list[spans.Progress]()
    monkeypatch.setattr(Watchdog, "_end", lambda _, progress: ended.append(progress))
    with Watchdog(tmp_path, 3, limit_seconds=0.5), spans.span("generate"):
        monkeypatch.setattr(time, "time", lambda: 2e9)  # NTP has found the right time
        for number in range(12):
            spans.tell(f"{number} of 12 waves")
            assert spans.detail() == f"{number} of 12 waves"
            time.sleep(0.05)
        assert not ended
        deadline = time.monotonic() + 10
        while not ended and time.monotonic() < deadline:
            time.sleep(0.02)
        assert ended and ended[0].where == "generate"
    assert spans.detail() == ""


def test_who_came_least_far_is_named(tmp_path: Path) -> None:
    assert straggler(tmp_path) == "no rank has written its progress"
    for rank, marks, where in ((0, 41, "pack"), (1, 40, "generate"), (2, 41, "pack")):
        facts = {"rank": rank, "marks": marks, "where": where, "since": 0.0}
        (tmp_path / f"rank_{rank:05d}").write_text(json.dumps(facts))
    (tmp_path / "rank_00003").write_text('{"rank": 3, "ma')
    assert straggler(tmp_path) == "rank 1 came least far, to 'generate'"


def test_what_was_before_it_began_is_no_stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = list[spans.Progress]()
    monkeypatch.setattr(Watchdog, "_end", lambda _, progress: ended.append(progress))
    long_ago = spans.progress()._replace(moved=time.monotonic() - 3600)
    monkeypatch.setattr(spans, "_progress", long_ago)
    with Watchdog(tmp_path, 3, limit_seconds=2.0):
        time.sleep(0.3)  # it has looked by then
    assert not ended
