"""Whether a record holds what its annotations say: a recipe of the user's own is Python, which checks nothing."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any

from megatron_rl.config.checks import require


@functools.cache
def field_types(record: type) -> Mapping[str, Any]:
    """Field -> annotation of a record class, resolved once: that takes a millisecond, and a command asks many times."""
    return types.MappingProxyType(typing.get_type_hints(record))


def check_types(value: Any, annotation: Any, name: str) -> None:
    """Raises UserError unless `value`, and all within it, is of the annotated type; a whole number may be a float."""
    origin, options = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in options:
            return
        (annotation,) = (option for option in options if option is not type(None))
        check_types(value, annotation, name)
    elif origin is typing.Literal:
        known = ", ".join(map(repr, options))
        require(isinstance(value, str) and value in options, f"{name}={value!r}: must be one of {known}")
    elif origin is tuple:
        require(isinstance(value, tuple), f"{name}={value!r}: must be a tuple")
        for place, inner in enumerate(value):
            check_types(inner, options[0], f"{name}[{place}]")
    elif dataclasses.is_dataclass(annotation):
        kind = typing.cast(type, annotation)
        require(isinstance(value, kind), f"{name}={value!r}: must be {kind.__name__}(...)")
        for field, inner in field_types(kind).items():
            check_types(getattr(value, field), inner, f"{name}.{field}" if name else field)
    else:
        is_whole = annotation is float and type(value) is int
        require(
            type(value) is annotation or is_whole,
            f"{name}={value!r}: must be of type {annotation.__name__}, not {type(value).__name__}",
        )
