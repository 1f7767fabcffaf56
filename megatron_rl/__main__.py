"""The command line's entrance, and `python -m megatron_rl`, which is how ranks are started."""

import signal


def main() -> None:
    """Runs the command line; a Ctrl-C while it is still imported ends it without a word, unless it is to be ignored."""
    heard = signal.getsignal(signal.SIGINT)
    if heard is not signal.SIG_IGN:  # as a shell has it for what a script starts in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from megatron_rl.commands import cli

    signal.signal(signal.SIGINT, heard)
    cli.main()


if __name__ == "__main__":
    main()
