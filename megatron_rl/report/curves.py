"""Curves: a journal's numbers as columns that stay small, however long the run, and thinned for a page."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_rl.report.journal import Row, is_validation

MAX_POINTS = 1000  # of a curve on a page; a longer one shows means over equal spans
MAX_NUMBERS = 230_000  # on a page
DIGITS, STEP_DIGITS = 5, 9
AXES = {"samples": "run/samples_count", "tokens": "run/tokens_count"}  # what a curve can be drawn along beside steps


class Columns:
    """One array for each metric, with NaN where a line has none: 8 bytes a number."""

    def __init__(self) -> None:
        self.steps = array("d")
        self.values: dict[str, array[float]] = {}

    def add(self, row: Row) -> None:
        """Takes one more line."""
        for name in row.keys() - self.values.keys() - {"step", "decisions"}:
            self.values[name] = array("d", [math.nan]) * len(self.steps)
        for name, values in self.values.items():
            values.append(row.get(name, math.nan))
        self.steps.append(row["step"])


class Curves:
    """All that a page draws of a journal."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.steps, self.validations = Columns(), Columns()
        self.decisions: list[tuple[int, str]] = []
        self.add(*rows)

    def add(self, *rows: Row) -> None:
        """Takes more lines, in order."""
        for row in rows:
            (self.validations if is_validation(row) else self.steps).add(row)
            self.decisions += [(row["step"], text) for text in row.get("decisions", ())]

    def __len__(self) -> int:
        return len(self.steps.steps) + len(self.validations.steps)

    @property
    def last_step(self) -> int:
        return int(max([*self.steps.steps[-1:], *self.validations.steps[-1:], 0]))

    def values(self, name: str) -> list[float]:
        """The known values of a metric, oldest first."""
        for columns in (self.steps, self.validations):
            if name in columns.values:
                return [value for value in columns.values[name] if not math.isnan(value)]
        return []

    @property
    def last_values(self) -> dict[str, float]:
        """Every metric's newest value."""
        names = [*self.steps.values, *self.validations.values]
        return {name: values[-1] for name in names if (values := self.values(name))}

    @property
    def domains(self) -> list[str]:
        """Domains that any metric was given for."""
        names = [*self.steps.values, *self.validations.values]
        return sorted({name.split("/")[2] for name in names if name.count("/") == 2})

    @property
    def length_term_spans(self) -> list[tuple[int, int]]:
        """First and last step of each span with the length term on.

        >>> Curves({"step": step, "length_term/is_on": float(step != 3)} for step in (1, 2, 3, 4)).length_term_spans
        [(1, 2), (4, 4)]
        """
        spans: list[tuple[int, int]] = []
        for step, is_on in zip(self.steps.steps, self.steps.values.get("length_term/is_on", ()), strict=False):
            if is_on != 1:
                continue
            if spans and spans[-1][1] == step - 1:
                spans[-1] = (spans[-1][0], int(step))
            else:
                spans.append((int(step), int(step)))
        return spans

    def drawn(self, names: Iterable[str], num_runs: int = 1) -> dict[str, Any]:
        """What the page's script reads: axes and metrics of steps and validations, few enough for one page.

        A point is the mean of equal spans of steps; of a metric that is a largest value, the largest.
        """
        wanted = {name for name in [*self.steps.values, *self.validations.values] if _base(name) in set(names)}
        points = max(50, min(MAX_POINTS, MAX_NUMBERS // max(1, len(wanted) * num_runs)))
        return {"steps": self._steps(wanted, points), "validations": self._validations(wanted, points)}

    def _steps(self, wanted: set[str], points: int) -> dict[str, Any]:
        columns = self.steps
        seconds = columns.values.get("time/step_seconds", array("d", [0.0]) * len(columns.steps))
        hours = np.nancumsum(np.frombuffer(seconds)) / 3600 if len(seconds) else np.zeros(0)
        axes = {name: columns.values.get(metric) for name, metric in AXES.items()}
        return {
            "step": thinned(np.array(columns.steps), points, digits=STEP_DIGITS),
            "hours": thinned(hours, points),
            **{
                name: thinned(np.array(columns.steps if found is None else found), points)
                for name, found in axes.items()
            },
            "metrics": _metrics(columns, wanted, points),
        }

    def _validations(self, wanted: set[str], points: int) -> dict[str, Any]:
        columns = self.validations
        return {
            "step": thinned(np.array(columns.steps), points, digits=STEP_DIGITS),
            "metrics": _metrics(columns, wanted, points),
        }


def _base(name: str) -> str:
    return "/".join(name.split("/")[:2])


def _metrics(columns: Columns, wanted: set[str], points: int) -> dict[str, list[float | None]]:
    found = {name: values for name, values in columns.values.items() if name in wanted}
    return {
        name: thinned(np.array(values), points, takes_largest=_base(name).endswith("_max") or "/max_" in name)
        for name, values in found.items()
    }


def thinned(
    values: NDArray[np.float64], points: int, *, takes_largest: bool = False, digits: int = DIGITS
) -> list[float | None]:
    """At most `points` numbers of few digits: the means of equal spans, or their largest values; None for NaN.

    >>> thinned(np.array([1.0, 3.0, 5.0, math.nan]), 2), thinned(np.array([1.0, 3.0, 5.0, 7.0]), 2, takes_largest=True)
    ([2.0, 5.0], [3.0, 7.0])
    """
    count = min(points, len(values))
    if count == 0:
        return []
    starts = len(values) * np.arange(count) // count
    is_known = ~np.isnan(values)
    num_known = np.add.reduceat(is_known, starts, dtype=np.int64)
    if takes_largest:
        merged = np.maximum.reduceat(np.where(is_known, values, -np.inf), starts)
    else:
        merged = np.add.reduceat(np.where(is_known, values, 0.0), starts) / np.maximum(num_known, 1)
    return [float(f"{value:.{digits}g}") if known else None for value, known in zip(merged, num_known, strict=True)]
