"""The command line's entrance, and `python -m megatron_rl`, which is how ranks are started."""

import signal


def main() -> None:
    """Runs the command line; a Ctrl-C while it is still imported ends it without a word."""
    heard = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from megatron_rl.commands import cli

    signal.signal(signal.SIGINT, heard)
    cli.main()


if __name__ == "__main__":
    main()
