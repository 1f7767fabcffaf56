"""Logging: rank 0 tells, the other ranks only warn."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress


def get_logger() -> logging.Logger:
    """The package's logger, on standard error: rank 0 from info on, other ranks from warning on and by their number.

    The rank is the environment's RANK, 0 without it. Third-party loggers are left as they are.
    """
    logger = logging.getLogger("megatron_rl")
    if not logger.handlers:
        rank = os.environ.get("RANK", "0")
        handler = _StandardError()
        who = "" if rank == "0" else f"rank {rank} "
        handler.setFormatter(logging.Formatter(f"%(asctime)s {who}%(levelname)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO if rank == "0" else logging.WARNING)
        logger.propagate = False
    return logger


class _StandardError(logging.Handler):
    """Writes to what sys.stderr is at that moment, so that a live display that took it over keeps its place.

    What nobody reads any more, as in `train 2>&1 | head`, ends no run.
    """

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(BrokenPipeError):
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
