"""Published policies: REPOSITORY@BRANCH or REPOSITORY@BRANCH@COMMIT of Hugging Face, found in the local cache.

A branch may move, so that what it stood for is written down: the commit that the cache has for it, and the digest of
the weights. Nothing is downloaded here. Not covered: whether the cache holds what the hub has by that commit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from megatron_rl.config.mounts import mounts_of, on_host
from megatron_rl.config.words import lack


class Revision(NamedTuple):
    """What a name asks for; empty where it does not say."""

    repository: str
    branch: str
    commit: str

    @property
    def newest(self) -> str:
        """The commit where there is one, else the branch, else `main`."""
        return self.commit or self.branch or "main"

    @property
    def download(self) -> str:
        """The command that fetches it."""
        return f"hf download {self.repository}" + f" --revision {self.newest}" * bool(self.branch)

    @property
    def not_here(self) -> str:
        """Why no folder was found by it, and what to do: a path cannot be downloaded."""
        path = Path(self.repository)
        if path.is_absolute() or path.exists() or path.is_symlink() or self.repository.count("/") > 1:
            return f"{lack(path, 'folder')}; give the folder of a Hugging Face model, or its name on the hub"
        return f"is no folder, and not in the Hugging Face cache; run `{self.download}`"

    def __str__(self) -> str:
        return "@".join(part for part in self if part)


def revision_of(text: str) -> Revision:
    """The parts of a name.

    >>> revision_of("owner/name@v1@0123abc")
    Revision(repository='owner/name', branch='v1', commit='0123abc')
    >>> str(revision_of("owner/name@v1")), revision_of("owner/name").newest
    ('owner/name@v1', 'main')
    """
    repository, _, rest = text.partition("@")
    branch, _, commit = rest.partition("@")
    return Revision(repository, branch, commit)


def cached_snapshot(revision: Revision) -> Path | None:
    """The folder of that revision in the local Hugging Face cache, which may be a mount of the job's container.

    Its name is the commit. None where the cache has no config.json of it.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE", f"{home}/hub")).expanduser()
    for place in (cache, on_host(cache, mounts_of())):
        if place is None:
            continue
        try:
            found = try_to_load_from_cache(
                revision.repository, "config.json", cache_dir=place, revision=revision.newest
            )
        except HFValidationError:  # a path, or a slip of the hand: no repository is called so
            return None
        if isinstance(found, str):
            return Path(found).parent
    return None
