"""Which fields of a record its fingerprint is made of."""

from __future__ import annotations

import dataclasses
from typing import Any


def later_field(absent: Any, *, default: Any = dataclasses.MISSING) -> Any:
    """A field that a record gained after recipes were released, and the value that says what its absence said.

    That value is not hashed, so that released fingerprints stay.
    """
    return dataclasses.field(default=default, metadata={"absent": absent})


def hashed(value: Any) -> Any:
    """What a fingerprint is made of: the records of `value` as dictionaries, without fields that say nothing new."""
    if dataclasses.is_dataclass(value):
        kept = [
            field
            for field in dataclasses.fields(value)
            if "absent" not in field.metadata or getattr(value, field.name) != field.metadata["absent"]
        ]
        return {field.name: hashed(getattr(value, field.name)) for field in kept}
    return [hashed(one) for one in value] if isinstance(value, tuple | list) else value
