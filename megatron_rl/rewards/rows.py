"""One line of a data file or of a case file: a JSON object with an id, a domain and an item that its verifier reads."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from megatron_rl.rewards.own import is_own
from megatron_rl.rewards.score import VERIFIERS

BOM = b"\xef\xbb\xbf"  # which some editors put before a file
MAX_SHOWN = 80  # chosen: characters of a value that is wrong
FOREIGN = {
    b"\x1f\x8b": "packed by gzip; unpack the file",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack the file, or name it .jsonl.zst where a data folder has it",
    b"BZh": "packed by bzip2; unpack the file",
    b"\xfd7zXZ": "packed by xz; unpack the file",
    b"PK\x03\x04": "a zip archive; unpack the file",
    b"PAR1": "a parquet file; write its rows as JSON, one object a line",
    b"\xff\xfe": "UTF-16; save the file as UTF-8",
    b"\xfe\xff": "UTF-16; save the file as UTF-8",
    b"version https://git-lfs": "a pointer of Git LFS; run `git lfs pull`",
}


def parse_row(line: bytes, keys: Sequence[str], flags: Sequence[str] = ()) -> dict[str, Any]:
    """The object of a line, which has exactly these keys: texts, but for the item.

    It may have `flags` too, each true or false, and false where it is left out. A response may hold what it likes.

    Raises ValueError, what is wrong and the remedy, where the line cannot be meant.
    """
    row = _json_object(line)
    if missing := [key for key in keys if key not in row]:
        raise ValueError(f"key '{missing[0]}' is missing; a line has {', '.join(keys)}")
    if extra := sorted(row.keys() - {*keys, *flags}):
        also = f", and perhaps {', '.join(flags)}" if flags else ""
        raise ValueError(f"unknown key {shown(extra[0])}; a line has {', '.join(keys)}{also}")
    row = dict.fromkeys(flags, False) | row
    for flag in flags:
        if not isinstance(row[flag], bool):
            raise ValueError(f"{flag} is {shown(row[flag])}; write true or false, or leave it out")
    for key in keys:
        if key != "item" and not isinstance(row[key], str):
            raise ValueError(f"{key} is {shown(row[key])}; write a text")
    for key in ("id", "domain"):
        if not row[key].strip():
            raise ValueError(f"{key} is {row[key]!r}; write a text that is not empty")
    if row["domain"] not in VERIFIERS and not is_own(row["domain"]):
        raise ValueError(
            f"unknown domain {shown(row['domain'])}; use one of {', '.join(VERIFIERS)}, or a class as my_rewards.py:Sum"
        )
    if not isinstance(row["item"], dict):
        raise ValueError(f"item is a JSON {type(row['item']).__name__}; write an object as docs/data.md says")
    if b"\\u" in line:  # half a character can be written as an escape only
        for key in ("id", "prompt", "item"):
            _check_whole_characters(key, row.get(key))
    if row["domain"] in VERIFIERS:  # a class of one's own is asked in a confined process
        VERIFIERS[row["domain"]].check_item(row["item"])
    return row


def _check_whole_characters(key: str, value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{key} has half a character, {error.object[error.start]!r}; write whole ones") from None


def _json_object(line: bytes) -> dict[str, Any]:
    try:
        text = line.removeprefix(BOM).decode()
        row = json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_unique)
    except UnicodeDecodeError:
        raise ValueError(_foreign(line) or "not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(_foreign(line) or f"{_not_json(text, error)}; write one JSON object a line") from None
    except RecursionError:
        raise ValueError("JSON that nests too deep; write a flat object as docs/data.md says") from None
    except _Refused:
        raise
    except ValueError:  # of int(), which reads no more digits than this
        raise ValueError(f"a number of more than {sys.get_int_max_str_digits()} digits; write it as a text") from None
    if not isinstance(row, dict):
        raise ValueError(f"a JSON {type(row).__name__}; write one JSON object a line")
    return row


def _foreign(line: bytes) -> str:
    """What a file is that begins with this line, and the remedy; empty where that is not known."""
    return next((said for mark, said in FOREIGN.items() if line.startswith(mark)), "")


def _not_json(text: str, error: json.JSONDecodeError) -> str:
    """What is wrong with a line, by its columns: not where a text begins that is cut off, but where the line ends."""
    end = len(text.rstrip())
    if not end:
        return "an empty line"
    if error.pos >= end or error.msg.startswith("Unterminated string"):
        return f"not JSON (the line ends at column {end}, before its object does)"
    return f"not JSON ({error.msg.removesuffix(' at')} at column {error.pos + 1})"


class _Refused(ValueError):
    """What is JSON to Python and cannot be meant."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Refused(f"key {shown(twice)} is given twice; write it once")
    return found


def _refuse(name: str) -> NoReturn:
    raise _Refused(f"{name} is no number of JSON; write a finite one, or drop the line")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(f"{text[:40]} is larger than a number can be; write a smaller one, or drop the line")
    return value


def shown(value: object) -> str:
    """A value as a message shows it.

    >>> shown("a"), len(shown([1] * 1000))
    ("'a'", 80)
    """
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 4]} ..."
