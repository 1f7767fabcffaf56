"""Words of a command line: numbers as people write them, and what stands at a path where something else should."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Literal

from megatron_rl.config.checks import require

# Python reads more: 1_0 as 10, digits of every script, `infinity`. Nobody means that, or can tell it from a slip.
_WHOLE = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf|nan", re.IGNORECASE)


def number_of(text: str, kind: type[int] | type[float]) -> int | float:
    """The number that a text writes in the digits 0 to 9; `inf` and `nan` are for the caller to refuse.

    Raises ValueError.

    >>> number_of(" 12 ", int), number_of("1.5e3", float), number_of("-.5", float)
    (12, 1500.0, -0.5)
    """
    if (_WHOLE if kind is int else _DECIMAL).fullmatch(text.strip()) is None:
        raise ValueError(f"{text!r} is no number")
    return kind(text)


def whole_number(text: str) -> int:
    """The whole number that a text writes. Raises argparse's error, whose words argparse shows."""
    try:
        return int(number_of(text, int))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number, in the digits 0 to 9 alone") from None


def check_folder(option: str, path: Path, remedy: str) -> None:
    """Raises UserError where no folder stands at the path that an option gives; `remedy` says which to give."""
    require(path.is_dir(), f"{option} {path}: {lack(path, 'folder')}; give {remedy}")


def lack(path: Path, wanted: Literal["file", "folder"]) -> str:
    """Why what is `wanted` does not stand at a path, to be put behind it.

    >>> lack(Path("/dev/null"), "folder"), lack(Path("/dev/null/x"), "file"), lack(Path("/no/where"), "file")
    ('is a file, not a folder', '/dev/null is a file, not a folder', 'there is no such file')
    """
    if path.is_dir():
        return "is a folder, not a file"
    if path.exists():
        return "is a file, not a folder" if wanted == "folder" else "is no plain file"
    if path.is_symlink():
        return f"is a link to {path.readlink()}, where nothing is"
    for parent in path.parents:
        if parent.exists() and not parent.is_dir():
            return f"{parent} is a file, not a folder"
    return f"there is no such {wanted}"
