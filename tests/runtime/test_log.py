"""Who tells what: rank 0 informs, the others warn and say who they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BODY = """
from megatron_rl.runtime.log import get_logger
import logging
get_logger().info("hello")
get_logger().warning("careful")
logging.getLogger("megatron_rl.runtime.ranks").error("broken")
"""


@pytest.mark.parametrize(("rank", "expected"), [("0", ["hello", "careful", "broken"]), ("3", ["careful", "broken"])])
def test_rank_zero_informs_and_others_only_warn(rank: str, expected: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BODY],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "RANK": rank},
    )
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line.split()[-1] for line in lines] == expected
    assert all(("rank 3" in line) == (rank == "3") for line in lines)
