"""What a folder may hold before a run, an evaluation or a campaign is put into it: nothing, or an earlier one's files.

Not covered: a folder whose files all bear the names of what a start that broke off leaves behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from megatron_rl.config.checks import UserError

# What lies in the folders that other programs name alike. A checkpoint that was begun; a committed one is a mark.
_INSIDE: Mapping[str, tuple[str, ...]] = {
    "logs": (
        *("attempt_*", "latest", "progress", "failure_rank*.txt", "stall_rank*.txt", "track_*.log"),
        *("*.out", "*.err"),  # a job's own output
    ),
    "checkpoints": ("step_??????.partial", "step_??????.removed"),
    "rollouts": ("step_??????",),
}
_FOLDERS = (*_INSIDE, "spans", "evaluation", "problems", "policies", "models")
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
    marks=("run.json", "ledger.jsonl", "checkpoints/step_??????/manifest.json"),
    first=("submissions.jsonl", "changes_*.diff", "checkpoints", "rollouts", "spans", "evaluation"),
)
EVALUATION = Kind(name="an evaluation", marks=("policies/*/policy.json",), first=("problems", "policies", "models"))
CAMPAIGN = Kind(name="a campaign", marks=(), first=("[0-9]*_*", "comparison.html"))


def check_contents(directory: Path, kind: Kind, option: str) -> None:
    """Raises UserError where a folder holds something else than what is to live there.

    `option` is the one by which another is given. A folder that is not there, or cannot be read, says nothing.
    """
    try:
        others = sorted(_strangers(directory, kind))
    except OSError:
        return
    if not others or any(True for mark in kind.marks for _ in directory.glob(mark)):
        return
    more = f" and {len(others) - MAX_NAMES} more" if len(others) > MAX_NAMES else ""
    held = ", ".join(others[:MAX_NAMES]) + more
    raise UserError(
        f"directory {directory}: holds {held}, and not {kind.name}; {kind.name} begins in a new or empty folder, or "
        f"goes on in its own; name another with {option}"
    )


def _strangers(directory: Path, kind: Kind) -> Iterator[str]:
    """What lies in a folder, and in those of its folders that others name alike, and no start puts there."""
    for path in directory.iterdir():
        if not _is_one_of(path.name, (*kind.first, *_OF_A_START)) or (path.name in _FOLDERS and not path.is_dir()):
            yield path.name
        elif path.name in _INSIDE:
            inside = (inner.name for inner in path.iterdir())
            yield from (f"{path.name}/{name}" for name in inside if not _is_one_of(name, _INSIDE[path.name]))


def _is_one_of(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in (*patterns, *_OF_THE_DISK))
