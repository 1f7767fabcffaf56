"""`--set name=value`: which values of a run a command line can change, and how their texts are read."""

from __future__ import annotations

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from megatron_rl.config.checks import UserError, require
from megatron_rl.config.records import Recipe, Scale
from megatron_rl.config.run import Run
from megatron_rl.config.typed import field_types
from megatron_rl.config.words import number_of

# The identity of a recipe, and the shape that its model folder declares, are not a matter of a command line.
FIXED = ("name", "version", "starts_from", "model", "scale.name")
VARIED = ("model", "domains")  # as --model and --domains give them: the run is then of a variant
GIVEN_OTHERWISE = {
    "recipe",
    "published",
    "scale",
    "directory",
    "asked_for",
    "modified",
    "parent",
    "data_digest",
    "identity",
}
GROUPS = ("scale", "run")
RUN_FIELDS = {
    **{name: kind for name, kind in field_types(Run).items() if name not in GIVEN_OTHERWISE},
    "model_folder": Path,
    "data_folder": Path,
}

MAX_NAME_BYTES = 255  # of one file or folder
NUM_NEAREST = 3  # names that a message proposes at most
ALIKE = 0.5  # of likeness 0..1: from here on it was probably meant

LARGEST = 2**63  # no number of a run comes near; the engines' own do not hold more
Record = TypeVar("Record")


def sort_settings(settings: Sequence[str]) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """`name=value` texts as names and values of the scale, the run and the recipe, prefixes off.

    Raises UserError where a name is unknown, or is given twice, or lies within another that is given.
    """
    known = (
        list(settable(Recipe)) + [f"scale.{name}" for name in settable(Scale)] + [f"run.{name}" for name in RUN_FIELDS]
    )
    given: dict[str, str] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        require(bool(equals), f"--set '{setting}': write it as name=value")
        require(
            name not in GROUPS, f"--set {name}={text.strip()}: not a single value; set a field of it, as {name}.NAME"
        )
        fixed = [key for key in FIXED if name not in VARIED and (name == key or name.startswith(f"{key}."))]
        require(not fixed, f"--set {name}: {fixed and fixed[0]} cannot be set; write a recipe or scale of your own")
        require_known(name, known, f"--set {name}: there is no such key")
        require(name not in given, f"--set {name}={text.strip()}: is given twice; give it once")
        for other in given:
            inner, outer = (name, other) if name.startswith(other) else (other, name)
            require(not inner.startswith(f"{outer}."), f"--set {inner}: {outer} is set, too; set one of the two")
        given[name] = text.strip()
    sorted_out: dict[str, dict[str, str]] = {"scale": {}, "run": {}, "": {}}
    for name, text in given.items():
        top, _, rest = name.partition(".")
        sorted_out[top if rest and top in sorted_out else ""][rest if top in GROUPS else name] = text
    return sorted_out["scale"], sorted_out["run"], sorted_out[""]


def settable(record: type) -> dict[str, Any]:
    """Dotted name -> annotation of every field of a record, those of nested records included.

    >>> from megatron_rl.config.records import Overlong
    >>> settable(Overlong)
    {'buffer_tokens': <class 'int'>, 'factor': <class 'float'>}
    """
    names: dict[str, Any] = {}
    for field, annotation in field_types(record).items():
        names[field] = annotation
        for option in (annotation, *typing.get_args(annotation)):
            if dataclasses.is_dataclass(option) and typing.get_origin(annotation) is not tuple:
                names |= {f"{field}.{name}": inner for name, inner in settable(typing.cast(type, option)).items()}
    return names


def change(record: Record, settings: Mapping[str, str], prefix: str = "") -> Record:
    """The record with every dotted name of `settings` replaced by its parsed value. Raises UserError."""
    annotations = settable(type(record))
    values = {name: parse(prefix + name, annotations[name], text) for name, text in settings.items()}
    for name, value in _with_whole_records(record, values, annotations, prefix).items():
        record = _replace(record, name.split("."), value)
    return record


def _with_whole_records(
    record: Any, values: Mapping[str, Any], annotations: Mapping[str, Any], prefix: str
) -> dict[str, Any]:
    """The values, with those of all fields of a record that is None here as that record. Raises UserError for some."""
    found = dict(values)
    for name in values:
        *path, _ = name.split(".")
        places = [".".join(path[:length]) for length in range(1, len(path) + 1)]
        place = next((place for place in places if _get(record, place.split(".")) is None), None)
        if place is None or place in found:
            continue
        options = typing.get_args(annotations[place])
        kind = typing.cast(type, next(option for option in options if dataclasses.is_dataclass(option)))
        fields = [field.name for field in dataclasses.fields(kind)]
        given = {inner.removeprefix(f"{place}."): found[inner] for inner in values if inner.startswith(f"{place}.")}
        require(
            given.keys() == set(fields),
            f"--set {prefix}{name}: {prefix}{place} is None here, so that it has no fields; give all of it: "
            f"{', '.join(fields)}",
        )
        for inner in given:
            del found[f"{place}.{inner}"]
        found[place] = kind(**given)
    return found


def _get(record: Any, path: Sequence[str]) -> Any:
    """What lies at a dotted name; None where a record on the way is None."""
    for part in path:
        record = getattr(record, part, None)
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
        return text if annotation is str else path_of(f"--set {name}={text[:80]}", text)
    if annotation in (int, float):
        kind = "a whole number" if annotation is int else "a number"
        try:
            value = number_of(text, annotation)
        except ValueError:
            raise UserError(f"--set {name}={text}: must be {kind}, in the digits 0 to 9 alone") from None
        require(abs(value) < LARGEST, f"--set {name}={text[:40]}: must be finite, and below {LARGEST:g}")
        return value
    raise UserError(f"--set {name}={text}: not a single value; set a field of it, or write a recipe of your own")


def path_of(what: str, text: str) -> Path:
    """A path with `~` expanded. Raises UserError, which begins with `what`."""
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{what}: this machine has no such user's home; write the path out") from None
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    require(longest <= MAX_NAME_BYTES, f"{what}: a name of {longest} bytes; a file system takes {MAX_NAME_BYTES}")
    return path


def require_known(name: str, known: Collection[str], what: str) -> None:
    """Raises UserError with `what` and the nearest names, which take milliseconds to find, unless `name` is known."""
    if name not in known:
        raise UserError(f"{what}; {nearest(name, known)}")


def nearest(name: str, known: Collection[str]) -> str:
    """`did you mean 'x'?` for the most alike known names, all that are equally so but three at most.

    >>> nearest("prorl_v3", ["prorl_v1", "prorl_v2", "cpu"]), nearest("temp", ["h100x8", "cpu", "gpu1", "none"])
    ("did you mean 'prorl_v1' or 'prorl_v2'?", "the nearest are 'cpu', 'gpu1' and 'none'")
    >>> nearest("clip_hihg", ["algorithm.clip_low", "algorithm.clip_high", "scale.name"])
    "did you mean 'algorithm.clip_high'?"
    """
    ranked = sorted(known, key=lambda candidate: -_likeness(name, candidate))[:NUM_NEAREST]
    best = _likeness(name, ranked[0])
    if best < ALIKE:
        return f"the nearest are {_listed(ranked, 'and')}"
    return f"did you mean {_listed([one for one in ranked if _likeness(name, one) == best], 'or')}?"


def _listed(names: Sequence[str], word: str) -> str:
    """`'a', 'b' or 'c'`."""
    *first, last = (f"'{name}'" for name in names)
    return f"{', '.join(first)} {word} {last}" if first else last


def _likeness(name: str, candidate: str) -> float:
    """0..1; the last part of a path counts, and the whole as much where a path was given."""
    pairs = [(name.rpartition(".")[2], candidate.rpartition(".")[2])] + [(name, candidate)] * ("." in name)
    ratios = [difflib.SequenceMatcher(None, one.lower(), other.lower()).ratio() for one, other in pairs]
    return sum(ratios) / len(ratios)


def _replace(record: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    inner = _replace(getattr(record, path[0]), path[1:], value)
    return dataclasses.replace(record, **{path[0]: inner})
