"""One line of a data file or of a case file: a JSON object with an id, a domain and an item that its verifier reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from megatron_rl.rewards.own import is_own
from megatron_rl.rewards.score import VERIFIERS


def parse_row(line: bytes, keys: Sequence[str], flags: Sequence[str] = ()) -> dict[str, Any]:
    """The object of a line, which has exactly these keys: texts, but for the item.

    It may have `flags` too, each true or false, and false where it is left out.

    Raises ValueError, what is wrong and the remedy, where the line cannot be meant.
    """
    row = _json_object(line)
    if missing := [key for key in keys if key not in row]:
        raise ValueError(f"key '{missing[0]}' is missing; a line has {', '.join(keys)}")
    if extra := sorted(row.keys() - {*keys, *flags}):
        also = f", and perhaps {', '.join(flags)}" if flags else ""
        raise ValueError(f"unknown key '{extra[0]}'; a line has {', '.join(keys)}{also}")
    row = dict.fromkeys(flags, False) | row
    for flag in flags:
        if not isinstance(row[flag], bool):
            raise ValueError(f"{flag} is {row[flag]!r}; write true or false, or leave it out")
    for key in keys:
        if key != "item" and not isinstance(row[key], str):
            raise ValueError(f"{key} is {row[key]!r}; write a text")
    for key in ("id", "domain"):
        if not row[key].strip():
            raise ValueError(f"{key} is {row[key]!r}; write a text that is not empty")
    if row["domain"] not in VERIFIERS and not is_own(row["domain"]):
        raise ValueError(
            f"unknown domain '{row['domain']}'; use one of {', '.join(VERIFIERS)}, or a class as my_rewards.py:Sum"
        )
    if not isinstance(row["item"], dict):
        raise ValueError(f"item is a JSON {type(row['item']).__name__}; write an object as docs/data.md says")
    if row["domain"] in VERIFIERS:  # a class of one's own is asked in a confined process
        VERIFIERS[row["domain"]].check_item(row["item"])
    return row


def _json_object(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_refuse, object_pairs_hook=_unique)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        wrong = "an empty line" if not line.strip() else f"not JSON ({error.msg} at column {error.colno})"
        raise ValueError(f"{wrong}; write one JSON object a line") from None
    except RecursionError:
        raise ValueError("JSON that nests too deep; write a flat object as docs/data.md says") from None
    if not isinstance(row, dict):
        raise ValueError(f"a JSON {type(row).__name__}; write one JSON object a line")
    return row


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key '{twice}' is given twice; write it once")
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON; write a finite one, or drop the line")
