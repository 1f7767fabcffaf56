"""`python -m megatron_rl`, which is how ranks are started."""

from megatron_rl.commands.cli import main

if __name__ == "__main__":
    main()
