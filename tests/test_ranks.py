"""The ranks of tests are fresh copies of one process, and none of them outlives its time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.ranks import run_ranks
from tests.test_end_to_end import alive_after

pytestmark = pytest.mark.ranks


def place() -> list[str | None]:
    """Runs on every rank: who it is, and what a body before it left in its process."""
    found = [os.environ["RANK"], os.environ["WORLD_SIZE"], os.environ.get("LEFT_BEHIND")]
    os.environ["LEFT_BEHIND"] = "by this one"
    return found


def fails_on_rank_1() -> None:
    assert os.environ["RANK"] == "0", "planted"


def hangs(folder: str) -> None:
    (Path(folder) / os.environ["RANK"]).write_text(str(os.getpid()))
    time.sleep(600)


def test_ranks_know_their_place_and_nothing_of_those_before() -> None:
    for _ in range(2):
        assert run_ranks("tests.test_ranks:place", 2) == [[rank, "2", None] for rank in ("0", "1")]


def test_a_rank_that_fails_is_told_with_what_it_said() -> None:
    with pytest.raises(AssertionError, match=r"ranks ended with 1:\n(.|\n)*AssertionError: planted"):
        run_ranks("tests.test_ranks:fails_on_rank_1", 2)


def test_ranks_that_hang_are_ended(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="ranks were not done after 10 s"):
        run_ranks("tests.test_ranks:hangs", 2, timeout_seconds=10, folder=str(tmp_path))
    assert alive_after([int((tmp_path / rank).read_text()) for rank in ("0", "1")], 5) == []
