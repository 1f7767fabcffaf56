"""Words of a command line: numbers as people write them, and why what is wanted does not stand at a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_rl.config.checks import one_line
from megatron_rl.config.words import lack, number_of

# Python reads all of these.
ONLY_PYTHON = ["1_0", "\u0661\u0660", "\uff11", "1_0.5", "infinity", "1_0e3", "\u0661.5"]


NO_NUMBERS = ["", " ", "0x10", "1e", "e3", ".", "1,5", "1 0", "--1", "ten", "1e3\x00"]


@pytest.mark.parametrize("text", [*ONLY_PYTHON, *NO_NUMBERS])
def test_what_only_python_reads_as_a_number_is_none(text: str) -> None:
    for kind in (int, float):
        with pytest.raises(ValueError, match=r"is no number|could not|invalid"):
            number_of(text, kind)


def test_numbers_are_read_as_people_write_them() -> None:
    assert [number_of(text, int) for text in ("7", " 7", "+7", "-7", "007")] == [7, 7, 7, -7, 7]
    assert [number_of(text, float) for text in ("1.", ".5", "1E-6", "-2.5e+3")] == [1.0, 0.5, 1e-6, -2500.0]
    with pytest.raises(ValueError, match="1e3"):
        number_of("1e3", int)


def test_what_stands_at_a_path_is_told_from_what_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("gone")
    assert lack(tmp_path / "file", "folder") == "is a file, not a folder"
    assert lack(tmp_path, "file") == "is a folder, not a file"
    assert lack(tmp_path / "link", "file") == "is a link to gone, where nothing is"
    assert lack(tmp_path / "file" / "a" / "b", "file") == f"{tmp_path / 'file'} is a file, not a folder"
    assert lack(tmp_path / "none", "folder") == "there is no such folder"
    assert lack(Path("/dev/null"), "file") == "is no plain file"


def test_a_message_is_one_line_that_a_terminal_only_shows() -> None:
    assert one_line("a\n b\t\x1b[31mc\x00 \u202e") == r"a b \x1b[31mc\x00 \u202e"
    long = one_line(f"begins {'x' * 10**6} and says what to do")
    assert len(long) < 2000 and long.startswith("begins x") and long.endswith("x and says what to do")
