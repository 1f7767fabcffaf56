"""`--set name=value`: which values of a run a command line can change, and how their texts are read."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from megatron_rl.config.checks import UserError, require
from megatron_rl.config.records import Recipe, Scale
from megatron_rl.config.run import Run

# The identity of a recipe, and the shape that its model folder declares, are not a matter of a command line.
FIXED = ("name", "version", "model", "scale.name")
GIVEN_OTHERWISE = {"recipe", "published", "scale", "directory", "asked_for", "modified", "parent", "data_digest"}
RUN_FIELDS = {
    **{name: kind for name, kind in typing.get_type_hints(Run).items() if name not in GIVEN_OTHERWISE},
    "model_folder": Path,
    "data_folder": Path,
}

Record = TypeVar("Record")


def sort_settings(settings: Sequence[str]) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """`name=value` texts as names and values of the scale, the run and the recipe, prefixes off; a later one wins.

    Raises UserError where a name is unknown.
    """
    known = (
        list(settable(Recipe)) + [f"scale.{name}" for name in settable(Scale)] + [f"run.{name}" for name in RUN_FIELDS]
    )
    scale: dict[str, str] = {}
    run: dict[str, str] = {}
    recipe: dict[str, str] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        require(bool(equals), f"--set '{setting}': write it as name=value")
        fixed = [key for key in FIXED if name == key or name.startswith(f"{key}.")]
        require(not fixed, f"--set {name}: {fixed and fixed[0]} cannot be set; write a recipe or scale of your own")
        require(name in known, f"--set {name}: there is no such key; {nearest(name, known)}")
        if name.startswith("scale."):
            scale[name.removeprefix("scale.")] = text.strip()
        elif name.startswith("run."):
            run[name.removeprefix("run.")] = text.strip()
        else:
            recipe[name] = text.strip()
    return scale, run, recipe


def settable(record: type) -> dict[str, Any]:
    """Dotted name -> annotation of every field of a record, those of nested records included.

    >>> from megatron_rl.config.records import DynamicSampling
    >>> settable(DynamicSampling)
    {'keeps': typing.Literal['reward_std_above_zero'], 'max_rounds': <class 'int'>}
    """
    names: dict[str, Any] = {}
    for field, annotation in typing.get_type_hints(record).items():
        names[field] = annotation
        for option in (annotation, *typing.get_args(annotation)):
            if dataclasses.is_dataclass(option) and typing.get_origin(annotation) is not tuple:
                names |= {f"{field}.{name}": inner for name, inner in settable(typing.cast(type, option)).items()}
    return names


def change(record: Record, settings: Mapping[str, str], prefix: str = "") -> Record:
    """The record with every dotted name of `settings` replaced by its parsed value. Raises UserError."""
    annotations = settable(type(record))
    for name, text in settings.items():
        record = _replace(record, name.split("."), parse(prefix + name, annotations[name], text), prefix + name)
    return record


def parse(name: str, annotation: Any, text: str) -> Any:
    """`text` as a value of the annotated type. Raises UserError.

    >>> parse("sampling.temperature", float, "1.2"), parse("scale.time_limit_hours", float | None, "none")
    (1.2, None)
    """
    options = typing.get_args(annotation)
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        if text.lower() in ("none", "null"):
            return None
        (annotation,) = (option for option in options if option is not type(None))
        return parse(name, annotation, text)
    if typing.get_origin(annotation) is typing.Literal:
        require(text in options, f"--set {name}={text}: must be one of {', '.join(map(repr, options))}")
        return text
    if annotation is bool:
        require(text.lower() in ("true", "false"), f"--set {name}={text}: must be true or false")
        return text.lower() == "true"
    if annotation in (str, Path):
        require(bool(text), f"--set {name}=: must not be empty")
        return annotation(text)
    if annotation in (int, float):
        kind = "a whole number" if annotation is int else "a number"
        try:
            value = annotation(text)
        except ValueError:
            raise UserError(f"--set {name}={text}: must be {kind}") from None
        require(math.isfinite(value), f"--set {name}={text}: must be finite")
        return value
    raise UserError(f"--set {name}={text}: not a single value; set a field of it, or write a recipe of your own")


def nearest(name: str, known: Collection[str]) -> str:
    """`did you mean 'x'?` for the most alike known name, else the list of them all.

    >>> nearest("prorl_v3", ["prorl_v1", "prorl_v2", "cpu"]), nearest("temp", ["cpu", "gpu1"])
    ("did you mean 'prorl_v2'?", 'known: cpu, gpu1')
    >>> nearest("clip_hihg", ["algorithm.clip_low", "algorithm.clip_high", "scale.name"])
    "did you mean 'algorithm.clip_high'?"
    """
    best = max(known, key=lambda candidate: (_likeness(name, candidate), candidate))
    return f"did you mean '{best}'?" if _likeness(name, best) >= 0.5 else f"known: {', '.join(known)}"


def _likeness(name: str, candidate: str) -> float:
    """0..1; a name given without its path is compared with the last part of a path."""
    shorter = candidate if "." in name else candidate.rpartition(".")[2]
    return difflib.SequenceMatcher(None, name, shorter).ratio()


def _replace(record: Any, path: Sequence[str], value: Any, name: str) -> Any:
    if not path:
        return value
    require(record is not None, f"--set {name}: its record is None here, so that it has no fields")
    inner = _replace(getattr(record, path[0]), path[1:], value, name)
    return dataclasses.replace(record, **{path[0]: inner})
