"""The words between the supervisor, the zygote and a program; see zygote.py for who says what when."""

from __future__ import annotations

RUN, KILL = b"run", b"kill"  # to the zygote: a program, or the one that runs
READY = b"\n"  # from a program's process, once it is confined: what follows is the program's own
