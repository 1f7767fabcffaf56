"""Lineage: which run a policy came from, written beside its weights and read by the run that goes on with them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_rl.config.checks import UserError
from megatron_rl.config.words import lack

FILE_NAME = "megatron_rl.json"  # in an exported model folder
PUBLISHED = "as published"  # in place of a scale


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A run as its exported policy tells of it."""

    release: str  # of its recipe, such as "prorl_v2 2.1.0"
    fingerprint: str  # of the recipe as it ran
    scale: str
    step: int
    samples_seen: int
    policy_digest: str  # State.policy_digest
    parent: Parent | None  # where it started from
    data_digest: str = ""  # of the prompts that it was trained on; empty where that is not stated
    branch: str = ""  # of a published policy's repository; empty for a run
    commit: str = ""  # that the branch stood for
    weights_digest: str = ""  # of a published policy
    data_mixture: str = ""  # whose manifest lay beside them; empty for others

    @property
    def is_published(self) -> bool:
        """True for a policy that others trained and published; `policy_digest` is then its name on Hugging Face."""
        return self.scale == PUBLISHED

    @property
    def published_name(self) -> str:
        """What --parent finds the very same published policy by."""
        return "@".join(filter(None, (self.policy_digest, self.branch, self.commit)))

    @property
    def ancestors(self) -> list[Parent]:
        """This run and those before it, newest first."""
        return [self, *(self.parent.ancestors if self.parent else [])]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)


def model_folder_of(directory: Path) -> Path:
    """Where a run leaves its policy as a Hugging Face folder."""
    return directory / "model"


def is_taken(folder: Path) -> bool:
    """True where something else than an export of a run or an empty folder stands in the place of an export."""
    if not folder.is_dir():
        return folder.exists()
    return not (folder / FILE_NAME).is_file() and any(folder.iterdir())


def no_run(directory: Path) -> str:
    """What to say of a path that is none of a run's directory."""
    why = "it holds no run.json" if directory.is_dir() else lack(directory, "folder")
    return f"{directory}: is no run's directory, for {'it ' * why.startswith('is ')}{why}; give the one of a run"


def read_parent(directory: Path) -> tuple[Parent, Path]:
    """The run whose directory or exported folder this is, and the folder with its policy. Raises UserError."""
    for folder in (directory, model_folder_of(directory)):
        if (folder / FILE_NAME).is_file():
            try:
                return parent_of(json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))), folder
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                raise UserError(f"parent {folder / FILE_NAME}: {error}; export the run again") from None
    if not (directory / "run.json").is_file():
        raise UserError(f"parent {no_run(directory)} to go on from")
    raise UserError(
        f"parent {directory}: has not finished; wait for its end, or take what there is with "
        f"`megatron-rl export {directory} --to {model_folder_of(directory)}`"
    )


def parent_of(facts: dict[str, Any]) -> Parent:
    """A Parent from its JSON form."""
    older = facts.get("parent")
    return Parent(**{**facts, "parent": parent_of(older) if older else None})
