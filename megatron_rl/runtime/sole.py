"""One evaluation or run in a directory: the lock that rank 0 holds for all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from megatron_rl.config.checks import UserError
from megatron_rl.runtime import parallel, rundir
from megatron_rl.runtime.parallel import Ranks


@contextmanager
def only_one(directory: Path, ranks: Ranks, option: str = "--directory") -> Iterator[None]:
    """Holds a directory against others. Collective over the world.

    `option` is the one by which another directory is given. Raises UserError, on all ranks, where it is not free.
    """
    with ExitStack() as stack:
        trouble = None
        try:
            if ranks.is_main:
                stack.enter_context(rundir.locked(directory, option))
        except UserError as error:
            trouble = str(error)
        parallel.raise_together(trouble, UserError)
        yield
