"""The files a job runs, as git names them: the commit that is checked out, or that with its changes."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from megatron_rl.config.checks import require

REPOSITORY = Path(__file__).resolve().parents[1]


def snapshot(allows_changes: bool) -> tuple[str, str]:
    """What git calls the files to run, and how they differ from HEAD. Raises UserError where changes are not allowed.

    Changed files make a tree of their own, new ones included; branches, index and stash stay as they are.
    """
    changed = git("status", "--porcelain").splitlines()
    if not changed:
        return git("rev-parse", "HEAD"), ""
    require(
        allows_changes,
        f"the checkout has {len(changed)} uncommitted changes, {changed[0][3:]} for one; commit them, or launch with "
        "--allow-dirty, which keeps them beside the run",
    )
    with tempfile.TemporaryDirectory() as folder:
        index = str(Path(folder) / "index")
        git("read-tree", "HEAD", index=index)
        git("add", "--all", index=index)
        tree = git("write-tree", index=index)
    return tree, git("diff", "--binary", "HEAD", tree)


def git(*arguments: str, index: str = "") -> str:
    """What a git command prints. Raises RuntimeError."""
    environment = {**os.environ, **({"GIT_INDEX_FILE": index} if index else {})}
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr.strip()}; launch from a git checkout")
    return done.stdout.rstrip("\n")
