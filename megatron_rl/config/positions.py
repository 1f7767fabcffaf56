"""Rotary positions as config.json declares them: base and scaling, resolved as transformers resolves its fields."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_rl.config.checks import UserError, require
from megatron_rl.config.records import LinearScaling, Llama3Scaling, Model, RopeScaling, YarnScaling

DEFAULT_BASE = 10000.0


@dataclass(frozen=True, kw_only=True)
class Positions:
    """What a config.json says about positions."""

    base: float
    scaling: RopeScaling | None
    max_positions: int  # that both engines can compute


def read_positions(path: Path, config: Mapping[str, Any]) -> Positions:
    """The positions that the config at `path` declares.

    `rope_scaling`, which old versions of transformers wrote, wins over `rope_parameters` as a whole where it holds
    anything; what the winner leaves out comes from the fields beside it. Raises UserError naming the field where the
    kind is not supported or a value can not be meant.
    """
    field = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    rope = config.get(field) or {}
    require(isinstance(rope, dict), f"{path}: {field}={rope!r} must be an object")
    nested = [key for key, value in rope.items() if isinstance(value, dict)]
    require(not nested, f"{path}: {field} differs by the kind of layer ({', '.join(nested)}); that is not supported")
    kind = rope.get("rope_type", rope.get("type", "default"))
    require(
        kind == "default" or kind in SCALINGS,
        f"{path}: {field} asks for rope scaling {kind!r}, which is not supported; {', '.join(SCALINGS)} are",
    )
    partial = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    require(partial in (None, 1.0), f"{path}: partial_rotary_factor={partial} is not supported")
    number = _reader(path, field, rope)
    max_positions = config["max_position_embeddings"]
    base = number("rope_theta", config.get("rope_theta", DEFAULT_BASE))
    if kind == "default":
        return Positions(base=base, scaling=None, max_positions=max_positions)
    # transformers lets a field beside rope_scaling win, and takes the whole context where there is neither.
    original = config.get("original_max_position_embeddings") or rope.get(
        "original_max_position_embeddings", max_positions
    )
    require(
        type(original) is int and original >= 1,
        f"{path}: {field}.original_max_position_embeddings={original!r} must be a whole number above 0",
    )
    scaling = SCALINGS[kind](number, original, max_positions / original)
    if isinstance(scaling, Llama3Scaling):
        low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
        require(low < high, f"{path}: {field}.low_freq_factor={low:g} must be below high_freq_factor={high:g}")
    return Positions(base=base, scaling=scaling, max_positions=_reach(scaling, max_positions))


def rope_parameters(model: Model) -> dict[str, Any]:
    """The positions of a model as transformers 5 and vLLM read them from a config's `rope_parameters`."""
    found: dict[str, Any] = {"rope_theta": model.rope_theta, "rope_type": "default"}
    scaling = model.rope_scaling
    if scaling is None:
        return found
    found |= {"factor": scaling.factor}
    if isinstance(scaling, LinearScaling):
        return found | {"rope_type": "linear"}
    found |= {"original_max_position_embeddings": scaling.original_max_positions}
    if isinstance(scaling, Llama3Scaling):
        return found | {
            "rope_type": "llama3",
            "low_freq_factor": scaling.low_frequency_factor,
            "high_freq_factor": scaling.high_frequency_factor,
        }
    return found | {
        "rope_type": "yarn",
        "beta_fast": scaling.beta_fast,
        "beta_slow": scaling.beta_slow,
        "attention_factor": scaling.attention_factor,
        "truncate": scaling.truncates,
    }


Number = Callable[..., float]  # (key, default if there is one) -> its value


def _linear(number: Number, original: int, ratio: float) -> RopeScaling:
    return LinearScaling(factor=number("factor"))


def _llama3(number: Number, original: int, ratio: float) -> RopeScaling:
    return Llama3Scaling(
        factor=number("factor"),
        low_frequency_factor=number("low_freq_factor"),
        high_frequency_factor=number("high_freq_factor"),
        original_max_positions=original,
    )


def _yarn(number: Number, original: int, ratio: float) -> RopeScaling:
    factor = number("factor", ratio, is_needed=True)
    whole, half = number("mscale", 0.0), number("mscale_all_dim", 0.0)
    sharpness = attention_factor(factor, whole) / attention_factor(factor, half) if whole and half else None
    return YarnScaling(
        factor=factor,
        original_max_positions=original,
        beta_fast=number("beta_fast", 32.0),
        beta_slow=number("beta_slow", 1.0),
        attention_factor=number("attention_factor", sharpness or attention_factor(factor)),
        truncates=bool(number("truncate", True)),
    )


SCALINGS: Mapping[str, Callable[[Number, int, float], RopeScaling]] = {
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}


def attention_factor(factor: float, scale: float = 1.0) -> float:
    """YaRN's factor of queries and keys for a context that is `factor` times as long.

    >>> attention_factor(1.0), round(attention_factor(4.0), 4)
    (1.0, 1.1386)
    """
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _reach(scaling: RopeScaling, max_positions: int) -> int:
    """How many positions there are; vLLM makes a table of so many."""
    if isinstance(scaling, LinearScaling):
        return int(max_positions * scaling.factor)
    return int(scaling.original_max_positions * scaling.factor) if isinstance(scaling, YarnScaling) else max_positions


def _reader(path: Path, field: str, rope: Mapping[str, Any]) -> Number:
    def number(key: str, default: float | None = None, is_needed: bool = False) -> float:
        if key not in rope and (default is None or is_needed):
            raise UserError(f"{path}: {field} has no {key}, which this kind of rope scaling needs")
        value: Any = rope.get(key)
        value = default if value is None else value
        if isinstance(value, bool) and key == "truncate":
            return value
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        require(
            is_number and (value > 0 or value == default), f"{path}: {field}.{key}={value!r} must be a number above 0"
        )
        return float(value)

    return number
