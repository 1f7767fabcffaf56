"""What a command prints for a person: a console that nobody has to read to its end."""

from __future__ import annotations

from rich.console import Console

from megatron_rl.runtime.output import discard_output


class Terminal(Console):
    """A console that falls silent where its reader is gone, as in `... | head`; what is under way goes on."""

    def on_broken_pipe(self) -> None:
        """Prints no more; rich's own ends the process, and with it a run."""
        self.quiet = True
        discard_output()
