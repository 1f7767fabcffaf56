"""A run, an evaluation and a campaign begin where nothing else is, and go on beside what any start left."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_rl.config.checks import UserError
from megatron_rl.runtime.contents import CAMPAIGN, EVALUATION, RUN, Kind, check_contents


def filled(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    return folder


TAKEN = [
    (RUN, []),
    (RUN, [".lock", "logs/failure_rank0.txt"]),  # refused or failed at the start
    (RUN, [".lock", "heartbeat.partial", ".ledger.jsonl.partial", "logs/progress/rank_0"]),  # killed there
    (RUN, ["job", "FAILED", "logs/attempt_0/task_0.log", "slurm-17.out", "prorl-17.out"]),  # a job's first attempt
    (RUN, ["submissions.jsonl", "changes_0123456789ab.diff"]),  # launched, not begun
    (RUN, ["train.log", "lost+found/x", ".nfs0001"]),  # the shell's own, and the disk's
    (RUN, ["logs/prorl_v2-17.out", "logs/prorl_v2-17.err", "logs/latest", "logs/.nfs0001"]),  # sbatch --output=...
    (RUN, ["ledger.jsonl", "notes.txt"]),
    (RUN, ["run.json", "config.json", "paper/draft.tex"]),
    (RUN, ["run.json", "logs/notes.txt", "checkpoints/best/x"]),
    (RUN, ["checkpoints/step_000010/manifest.json", "notes.txt"]),  # all that was copied from elsewhere
    (RUN, ["checkpoints/step_000010.partial/rank_00000.pt", "rollouts/step_000009/x.wave"]),
    (EVALUATION, ["job", "logs/attempt_0/checkpoint", "problems/mini.jsonl", "models/.step_000010.partial/x"]),
    (EVALUATION, ["policies/start/policy.json", "notes.txt"]),
    (CAMPAIGN, ["1_prorl_v1/run.json", "2_brorl/run.json", "comparison.html", "campaign.log"]),
]
REFUSED = [
    (kind, names)
    for kind in (RUN, EVALUATION, CAMPAIGN)
    for names in (
        ["config.json", "model.safetensors", "tokenizer.json"],  # a model
        [".bashrc"],
        [".git/HEAD", "README.md"],
        ["train.jsonl", "validation.jsonl"],  # data
        ["prorl_v2-cpu/run.json"],  # the folder of runs
        ["checkpoints/epoch_1.pt", "train.py"],
        [".lock", "job", "logs/attempt_0/task_0.log", "model.safetensors"],  # where an earlier version has begun
        ["checkpoints/epoch_1.pt"],  # another trainer's, which names its folders as we do
        ["checkpoints/step_000100/model.safetensors"],
        ["checkpoints/iter_0000100/mp_rank_00/x", "checkpoints/latest_checkpointed_iteration.txt"],
        ["logs/events.out.tfevents.1764374400.node1"],
        ["logs/train.log", "checkpoints/step_000100.partial/x"],
        ["rollouts/0.jsonl"],
        ["checkpoints"],  # a file
    )
]


@pytest.mark.parametrize(("kind", "names"), TAKEN)
def test_what_is_its_own_is_gone_on_with(kind: Kind, names: list[str], tmp_path: Path) -> None:
    check_contents(filled(tmp_path / "own", *names), kind, "--to")
    check_contents(tmp_path / "new", kind, "--to")


@pytest.mark.parametrize(("kind", "names"), REFUSED)
def test_what_is_something_else_is_refused(kind: Kind, names: list[str], tmp_path: Path) -> None:
    folder = filled(tmp_path / "theirs", *names)
    with pytest.raises(UserError, match=rf"^directory {folder}: holds .*, and not {kind.name}; .* with --to$"):
        check_contents(folder, kind, "--to")


def test_the_line_has_room_for_a_home(tmp_path: Path) -> None:
    home = filled(tmp_path, *(f"letter_{number}.txt" for number in range(100)))
    with pytest.raises(UserError, match=r"holds letter_0.txt, letter_1.txt, letter_10.txt and 97 more, and not a run"):
        check_contents(home, RUN, "--directory")
