"""What the readers of rows share: a column of the right kind, and a row that is left out with its reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
MAX_JSON_DIGITS = 4300  # Python refuses longer integers; APPS and TACO hold some


class LeftOut(Exception):
    """A row in the published layout that can not be judged; the message is the reason, by which rows are counted."""


def text(row: Row, column: str, *, may_be_empty: bool = False) -> str:
    """The text in a column. Raises ValueError where it is missing, no text, or blank and may not be."""
    value = need(row, column)
    if not isinstance(value, str) or not (may_be_empty or value.strip()):
        raise ValueError(f"column '{column}' is {shown(value)}; the published rows have a text there")
    return value


def whole(row: Row, column: str) -> int:
    """The whole number in a column, as a number or as digits. Raises ValueError."""
    value = need(row, column)
    written = value.strip().removesuffix(r"^\circ").strip(" $") if isinstance(value, str) else value
    is_digits = isinstance(written, str) and written.isascii() and written.isdigit()
    is_number = isinstance(written, int | float) and not isinstance(written, bool) and written == written // 1
    if not is_digits and not is_number:
        raise ValueError(f"column '{column}' is {shown(value)}; the published rows have a whole number there")
    return int(written)


def need(row: Row, column: str) -> Any:
    """The value of a column. Raises ValueError where the row has no such column."""
    if column not in row:
        raise ValueError(f"column '{column}' is missing among {', '.join(sorted(map(str, row)))}; is this the file?")
    return row[column]


def nested(row: Row, column: str) -> Any:
    """The value of a column that holds JSON as a text. Raises ValueError, LeftOut where a number is too long."""
    value = text(row, column)
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"column '{column}' is no JSON ({error.msg} at character {error.pos})") from None
    except RecursionError:
        raise ValueError(f"column '{column}' is JSON that nests too deep") from None
    except ValueError:
        raise LeftOut(f"a number of more than {MAX_JSON_DIGITS} digits") from None


def shown(value: Any) -> str:
    """A value in an error message, shortened."""
    written = repr(value)
    return written if len(written) <= 60 else f"{written[:57]}..."
