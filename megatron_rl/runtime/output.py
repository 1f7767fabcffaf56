"""Standard input, output and error of this process: there where it was started without, let go where nobody reads."""

from __future__ import annotations

import os
import select
import sys


def open_streams() -> None:
    """Opens those to nowhere that this process was started without, as by `>&-`."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the lowest number that is free, so that no file is taken for it later
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def nobody_reads() -> bool:
    """True where standard output is a pipe whose reader is gone; another pipe's end is another matter."""
    polled = select.poll()
    polled.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in polled.poll(0))


def discard_output() -> None:
    """Lets all that is still printed to standard output go nowhere, what is in its buffer included."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
