"""What a folder may hold before a run, an evaluation or a campaign is put into it: nothing, or an earlier one's files.

Not covered: a folder whose files all bear the names of what a start that broke off leaves behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from megatron_rl.config.checks import UserError

# Of every start: locks, what a job script and a shell write before the command begins, what a kill leaves half written.
_OF_A_START = (".lock", "logs", "job", "DONE", "FAILED", "heartbeat.*", ".*.partial", "*.log", "*.out", "*.err")
_OF_THE_DISK = (".nfs*", "lost+found", ".snapshot", ".DS_Store")  # which no user has put there
MAX_NAMES = 3  # chosen: what one line has room for


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What lives in a folder of its own."""

    name: str  # with its article
    marks: tuple[str, ...]  # one of them makes the folder its own, with whatever lies beside
    first: tuple[str, ...]  # what may be there before a mark is


RUN = Kind(
    name="a run",
    marks=("run.json", "ledger.jsonl", "checkpoints/step_??????"),
    first=("submissions.jsonl", "changes_*.diff", "checkpoints", "rollouts", "spans", "evaluation"),
)
EVALUATION = Kind(name="an evaluation", marks=("policies/*/policy.json",), first=("problems", "policies", "models"))
CAMPAIGN = Kind(name="a campaign", marks=(), first=("[0-9]*_*", "comparison.html"))


def check_contents(directory: Path, kind: Kind, option: str) -> None:
    """Raises UserError where a folder holds something else than what is to live there.

    `option` is the one by which another is given. A folder that is not there, or cannot be read, says nothing.
    """
    try:
        names = sorted(path.name for path in directory.iterdir())
    except OSError:
        return
    known = (*kind.first, *_OF_A_START, *_OF_THE_DISK)
    others = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in known)]
    if not others or any(True for mark in kind.marks for _ in directory.glob(mark)):
        return
    more = f" and {len(others) - MAX_NAMES} more" if len(others) > MAX_NAMES else ""
    held = ", ".join(others[:MAX_NAMES]) + more
    raise UserError(
        f"directory {directory}: holds {held}, and not {kind.name}; {kind.name} begins in a new or empty folder, or "
        f"goes on in its own; name another with {option}"
    )
