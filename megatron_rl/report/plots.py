"""Plots: the two curves one looks at first, as one picture beside the page, and what all pictures look like."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_rl.report.curves import Columns, Curves
from megatron_rl.runtime.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#3b82f6", "#f97316", "#10b981", "#e11d8f", "#8b5cf6", "#eab308", "#64748b", "#06b6d4", "#ef4444", "#a8b0bb")
INK = "#1f2937"
HEADLINES = {"validation/accuracy": "Validation accuracy", "rollout/reward_mean": "Reward"}
MAX_POINTS = 400  # of a curve; a longer one shows means over equal spans
POINTS_PER_MEAN = 130  # a curve is the mean with one neighbour on either side for each so many points


def write_png(path: Path, curves: Curves, title: str) -> None:
    """Writes reward and accuracy, with each domain, as a picture; it is replaced as a whole."""
    from matplotlib.figure import Figure

    shown = [name for name in HEADLINES if curves.values(name)]
    if not shown:
        return
    figure = Figure(figsize=(5.6 * len(shown), 3.4), layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.012, ha="left", fontsize=11, color=INK)
    for ax, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        columns = curves.validations if name in curves.validations.values else curves.steps
        draw_domains(ax, columns, name, curves.domains, is_sparse=columns is curves.validations)
        for first, last in curves.length_term_spans:
            ax.axvspan(first - 0.5, last + 0.5, color=COLOURS[5], alpha=0.13, lw=0)
        ax.set_ylim(-0.02, 1.02)
        ax.set_xlim(left=0, right=curves.last_step + 0.5)
        ax.set_title(HEADLINES[name], loc="left", pad=20, fontsize=10, fontweight="bold", color=INK)
        ax.set_xlabel("step", fontsize=8.5, color=INK)
        draw_grid(ax)
        ax.locator_params(axis="x", integer=True)
    save_png(figure, path)


def draw_domains(ax: Axes, columns: Columns, name: str, domains: Sequence[str], *, is_sparse: bool) -> None:
    """Draws a metric and, thinner, what it is in each domain: every point where there are few, else means."""
    labels = {name: "mean"} | {f"{name}/{domain}": domain for domain in domains}
    labels = {one: label for one, label in labels.items() if one in columns.values}
    if len(labels) == 2:  # one domain is the mean
        del labels[list(labels)[1]]
    for colour, (one, label) in zip(COLOURS, labels.items(), strict=False):
        known = [(s, v) for s, v in zip(columns.steps, columns.values[one], strict=True) if v == v]
        steps = span_means([step for step, _ in known], MAX_POINTS)
        values = span_means([value for _, value in known], MAX_POINTS)
        values = values if is_sparse else neighbour_means(values, len(values) // POINTS_PER_MEAN)
        style: dict[str, Any] = {"marker": "o", "ms": 3, "clip_on": False} if is_sparse else {}
        ax.plot(steps, values, color=colour, lw=1.9 if one == name else 1.1, label=label, **style)
    if len(labels) > 1:
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=6,
            frameon=False,
            fontsize=8.5,
            labelcolor=INK,
            handlelength=1,
            columnspacing=1.2,
            borderpad=0,
        )


def draw_grid(ax: Axes) -> None:
    """Draws faint lines at the values, and of the frame the bottom alone."""
    ax.grid(axis="y", color=INK, alpha=0.12, lw=0.7)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set(color=INK, alpha=0.4)
    ax.tick_params(which="both", length=0, labelsize=8.5, colors=INK)


def save_png(figure: Figure, path: Path) -> None:
    """Writes a figure; the file is replaced as a whole."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    replace_file(path, buffer.getvalue(), is_shared=True)


def neighbour_means(values: Sequence[float], reach: int) -> list[float]:
    """Each value's mean with up to `reach` neighbours on either side.

    >>> neighbour_means([1.0, 2.0, 6.0], 1), neighbour_means([1.0, 2.0], 0)
    ([1.5, 3.0, 4.0], [1.0, 2.0])
    """
    spans = (values[max(0, i - reach) : i + reach + 1] for i in range(len(values)))
    return [sum(span) / len(span) for span in spans]


def span_means(values: Sequence[float], count: int) -> list[float]:
    """At most `count` values: the means of equal spans.

    >>> span_means([1, 3, 5, 7], 2), span_means([1, 2], 5)
    ([2.0, 6.0], [1.0, 2.0])
    """
    count = min(count, len(values))
    spans = (values[len(values) * i // count : len(values) * (i + 1) // count] for i in range(count))
    return [sum(span) / len(span) for span in spans]
