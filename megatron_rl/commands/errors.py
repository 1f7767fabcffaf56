"""Errors of the command line: one line on standard error, and an exit code that says whose mistake it was."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from megatron_rl import __version__
from megatron_rl.commands import settings
from megatron_rl.config.checks import MachineError, UserError, one_line
from megatron_rl.config.words import number_of
from megatron_rl.runtime.output import discard_output, nobody_reads, open_streams
from megatron_rl.runtime.preempt import CTRL_C, REQUEUE_EXIT_CODE, Preempted

USER_ERROR, MACHINE_ERROR, INTERRUPTED = 2, 1, 130

PROGRAM = "megatron-rl"
# Of typer's own click, or of the one beside it in older versions.
UsageError = cast("type[Exception]", typer.BadParameter.__bases__[0])


class OneLineGroup(TyperGroup):
    """The command line; what is wrong with its words is said in one line."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Runs a command and leaves with its exit code."""
        open_streams()
        try:
            code = super().main(*arguments, **options | {"prog_name": PROGRAM, "standalone_mode": False})
            sys.stdout.flush()
        except UsageError as error:
            if str(cast("Any", error).format_message()).strip():  # else it was the help that was asked for
                print_error(usage_message(error))
            code = USER_ERROR
        except OSError as error:  # of what is printed beside a command's own work, such as its help
            code = code_of(error, None)
        try:
            sys.stdout.flush()
        except OSError:  # it was said
            discard_output()
        sys.exit(code or 0)


class OneLineCommand(TyperCommand):
    """A command that takes each option once, save those that may be repeated."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words that are left over. Raises BadParameter where an option is given twice."""
        *_, order = self.make_parser(ctx).parse_args(args=list(args))
        given = [one for one in order if one.param_type_name == "option" and not one.multiple]
        if twice := next((one for one in given if given.count(one) > 1), None):
            raise typer.BadParameter("is given twice; give it once", ctx=ctx, param=cast(Any, twice))
        return super().parse_args(ctx, args)


def say_version(is_asked: bool) -> None:
    """Prints the version and leaves, where it `is_asked` for."""
    if is_asked:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


def usage_message(error: Any) -> str:
    """What is wrong with the words of a command line, and where to read what they can be."""
    command = error.ctx.command_path if error.ctx is not None else PROGRAM
    text = str(error.format_message()).strip().removesuffix(".").replace(". Did you", "; did you")
    return f"{text[:1].lower()}{text[1:]}; `{command} --help` shows what there is"


def path_of(word: str | Path) -> Path:
    """A word of a command line, or a default, which typer reads too, as a path, `~` expanded. Raises BadParameter."""
    text = str(word)
    if not text.strip():
        raise typer.BadParameter("must not be empty")
    if text.startswith("--"):
        raise typer.BadParameter(f"{text} is an option; a path is missing before it, or write ./{text}")
    try:
        return settings.path_of(text[:80], text)
    except UserError as error:
        raise typer.BadParameter(str(error)) from None


def number_between(low: float, high: float, kind: type[int] | type[float]) -> Callable[[str | float], int | float]:
    """A function that reads a word of a command line, or a default, as a number of [low, high]; or BadParameter."""

    def read(word: str | float) -> int | float:
        text = str(word)
        try:
            number = number_of(text, kind)
        except ValueError:
            number = kind(low) - 1
        if not low <= number <= high:
            what = "a whole number" if kind is int else "a number"
            raise typer.BadParameter(f"{text}: must be {what} between {low} and {high}")
        return number

    return read


@contextmanager
def one_line_errors(
    prints_user_errors: bool = True, failures: Path | None = None, is_first_of_machine: bool = True
) -> Iterator[None]:
    """Turns the errors a user or the machine makes into one line and an exit code.

    Every rank sees the same user's errors, so that one rank is enough to print them; what a machine lacks, all ranks on
    it see. The traceback of what the machine did goes to the file `failures`. Anything else is a fault of this program
    and keeps its traceback.
    """
    try:
        yield
    except UserError as error:
        if prints_user_errors:
            print_error(str(error))
        raise typer.Exit(USER_ERROR) from None
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("megatron_rl"):
            raise
        print_error(f"package {error.name} is not installed; run `make setup`, and `megatron-rl doctor` to see what is")
        raise typer.Exit(MACHINE_ERROR) from None
    except MachineError as error:
        if is_first_of_machine or not error.is_of_all:
            print_error(str(error))
        raise typer.Exit(MACHINE_ERROR) from None
    except (RuntimeError, OSError) as error:
        raise typer.Exit(code_of(error, failures)) from None
    except Preempted as reason:
        if prints_user_errors:  # all ranks leave for the same reason
            typer.echo(f"{reason}: start the same command again to go on", err=True)
        raise typer.Exit(INTERRUPTED if str(reason) == CTRL_C else REQUEUE_EXIT_CODE) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _remedy(error: Exception) -> str:
    """What to do about an error of the machine, where its own words do not say it."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "; make room there and start the same command again"
    if "out of memory" in str(error):  # so say torch, vLLM's allocator and NCCL of a GPU
        return (
            "; `megatron-rl check` shows what is large: lower scale.kv_cache_bytes or scale.max_tokens_per_microbatch, "
            "or raise scale.offloads"
        )
    return ""


def code_of(error: Exception, failures: Path | None) -> int:
    """The exit code for what the machine did, said in one line; 0 where nobody reads, as in `... | head`, any more."""
    if isinstance(error, BrokenPipeError) and nobody_reads():
        discard_output()
        return 0
    kept = _keep_traceback(failures)
    print_error(f"{type(error).__name__}: {error}{_remedy(error)}" + (f" (traceback: {kept})" if kept else ""))
    return MACHINE_ERROR


def _keep_traceback(path: Path | None) -> Path | None:
    if path is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(traceback.format_exc(), encoding="utf-8")
    except OSError:  # a disk that is full or read-only may be what the error is about
        return None
    return path


def print_error(message: str) -> None:
    """Writes one red line to standard error."""
    _print_line("error: " + message, "red")


def print_warning(message: str) -> None:
    """Writes one yellow line to standard error."""
    _print_line("warning: " + message, "yellow")


def _print_line(text: str, colour: str) -> None:
    line = one_line(text)
    is_coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    typer.echo(typer.style(line, fg=colour) if is_coloured else line, err=True)
