"""Plots of a run's metrics over steps, as SVG that takes its text colour from the page, and as one PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_rl.report.journal import Row, is_validation
from megatron_rl.runtime.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#3b82f6", "#f97316", "#10b981", "#e11d8f", "#8b5cf6", "#eab308", "#64748b", "#06b6d4", "#ef4444", "#a8b0bb")
INK = "#1f2937"  # stands for the page's text colour until the SVG is put into it
MARGINS = {"left": 0.11, "right": 0.965, "bottom": 0.1}  # a computed layout takes as long as the drawing
PHASES = ("refit", "generate", "score", "pack", "logprob", "update", "validate", "save", "report", "other")
LEGEND_COLUMNS = 5
MAX_POINTS = 400  # of a curve; a longer one shows means over equal spans
POINTS_PER_MEAN = 130  # a curve is the mean with one neighbour on either side for each so many points


@dataclass(frozen=True, kw_only=True)
class Events:
    """What happened to the run that curves should be read against."""

    resets: tuple[int, ...]  # steps after which the reference was reset
    shaped: tuple[tuple[int, int], ...]  # first and last step of each span with the length term on


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One panel: which metrics it draws, and how."""

    title: str
    curves: Mapping[str, str]  # metric -> label
    caption: str = ""
    is_fraction: bool = False
    is_logarithmic: bool = False
    per_domain: bool = False
    is_stacked: bool = False  # the phases of `time/`, on top of each other


def events_of(rows: Sequence[Row]) -> Events:
    """Resets and length-term spans, read from the journal.

    >>> rows = [{"step": s, "reference/reset": float(s == 2), "length_term/is_on": float(s != 2)} for s in (1, 2, 3, 4)]
    >>> events_of(rows)
    Events(resets=(2,), shaped=((1, 1), (3, 4)))
    """
    resets: list[int] = []
    spans: list[tuple[int, int]] = []
    for row in rows:
        if row.get("reference/reset"):
            resets.append(row["step"])
        if row.get("length_term/is_on"):
            if spans and spans[-1][1] == row["step"] - 1:
                spans[-1] = (spans[-1][0], row["step"])
            else:
                spans.append((row["step"], row["step"]))
    return Events(resets=tuple(resets), shaped=tuple(spans))


def draw_curves(ax: Axes, rows: Sequence[Row], plot: Plot) -> None:
    """Draws each metric as a line; where there are many steps, faintly, under a mean over neighbouring steps."""
    names = dict(plot.curves)
    if plot.per_domain:
        for name in [name for row in rows for name in row]:
            base, _, domain = name.rpartition("/")
            if base in plot.curves:
                names.setdefault(name, domain)
    if plot.per_domain and len(names) == 2:  # one domain is the mean
        names = dict(plot.curves)
    for colour, (name, label) in zip(COLOURS, names.items(), strict=False):
        having = [row for row in rows if name in row]
        if not having:
            continue
        steps = span_means([row["step"] for row in having], MAX_POINTS)
        values = span_means([row[name] for row in having], MAX_POINTS)
        is_main = name in plot.curves
        if name.startswith("validation/"):
            ax.plot(steps, values, color=colour, lw=2 if is_main else 1.2, marker="o", ms=3, label=label, clip_on=False)
            continue
        smooth = neighbour_means(values, len(values) // POINTS_PER_MEAN)
        if smooth != values:
            ax.plot(steps, values, color=colour, lw=0.8, alpha=0.25)
        ax.plot(steps, smooth, color=colour, lw=1.8 if is_main else 1.1, label=label)


def draw_phases(ax: Axes, rows: Sequence[Row]) -> None:
    """Draws the seconds of each phase on top of each other."""
    rows = [row for row in rows if not is_validation(row)]
    present = [name for name in PHASES if any(f"time/{name}_seconds" in row for row in rows)]
    layers = [
        span_means([max(row.get(f"time/{name}_seconds", 0.0), 0.0) for row in rows], MAX_POINTS) for name in present
    ]
    smooth = [neighbour_means(layer, len(layer) // POINTS_PER_MEAN) for layer in layers]
    steps = span_means([row["step"] for row in rows], MAX_POINTS)
    ax.stackplot(steps, smooth, labels=present, colors=COLOURS, alpha=0.85, lw=0)


PLOTS = (
    Plot(
        title="Validation accuracy",
        curves={"validation/accuracy": "mean"},
        caption="held-out problems, every domain counting the same",
        is_fraction=True,
        per_domain=True,
    ),
    Plot(
        title="Reward",
        curves={"rollout/reward_mean": "mean"},
        caption="raw verdicts of everything generated, before shaping and filtering",
        is_fraction=True,
        per_domain=True,
    ),
    Plot(
        title="Response length",
        curves={"rollout/response_tokens_mean": "mean"},
        caption="tokens; the length term acts in the shaded spans",
    ),
    Plot(
        title="Entropy",
        curves={"actor/entropy_nats": "entropy"},
        caption="nats per token, at the sampling temperature",
    ),
    Plot(
        title="KL to reference",
        curves={"actor/kl_reference_nats": "k2"},
        caption="nats per token; falls to zero when the reference is reset",
    ),
    Plot(
        title="Dynamic sampling",
        curves={
            "dynamic_sampling/keep_rate": "kept",
            "dynamic_sampling/all_right_fraction": "all right",
            "rollout/truncated_fraction": "truncated samples",
        },
        caption="fraction of the groups tried",
        is_fraction=True,
    ),
    Plot(
        title="Clipping",
        curves={"actor/clip_high_fraction": "upper bound", "actor/clip_low_fraction": "lower bound"},
        caption="fraction of tokens held",
    ),
    Plot(
        title="Gradient norm",
        curves={"actor/gradient_norm": "mean of the step"},
        caption="before clipping",
    ),
    Plot(
        title="Actor against rollout engine",
        curves={"mismatch/max_nats": "largest", "mismatch/mean_nats": "mean"},
        caption="gap of log-probabilities, nats; grows when a refit goes wrong",
        is_logarithmic=True,
    ),
    Plot(
        title="Where a step's time goes",
        curves={"time/step_seconds": "step"},
        caption="seconds per step",
        is_stacked=True,
    ),
)
HEADLINES = PLOTS[:2]


def render(ax: Axes, rows: Sequence[Row], plot: Plot, events: Events) -> None:
    """Draws one panel with its events, axes and legend."""
    if plot.is_stacked:
        draw_phases(ax, rows)
    else:
        draw_curves(ax, rows, plot)
    for first, last in events.shaped:
        ax.axvspan(first - 0.5, last + 0.5, color=COLOURS[5], alpha=0.13, lw=0)
    for step in events.resets:
        ax.axvline(step + 0.5, color=INK, lw=0.9, ls=(0, (2, 3)), alpha=0.6)
    values = [row[name] for row in rows for name in plot.curves if name in row]
    if plot.is_logarithmic and any(value > 0 for value in values):
        ax.set_yscale("log")
        ax.minorticks_off()
    elif plot.is_fraction:
        ax.set_ylim(-0.02, 1.02)
    else:
        ax.set_ylim(bottom=min(0.0, *values))
    ax.set_xlim(left=0, right=max(row["step"] for row in rows) + 0.5)
    draw_grid(ax)
    ax.locator_params(axis="x", integer=True)
    if len(ax.get_legend_handles_labels()[1]) > 1:
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=LEGEND_COLUMNS,
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


def svg_of(rows: Sequence[Row], plot: Plot, events: Events) -> str:
    """One panel as an <svg> element without a background, its text in the page's colour."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 2.6))
    ax = figure.add_subplot()
    render(ax, rows, plot, events)
    num_labels = len(ax.get_legend_handles_labels()[1])
    legend_rows = math.ceil(num_labels / LEGEND_COLUMNS) if num_labels > 1 else 0
    figure.subplots_adjust(**MARGINS, top=0.97 - 0.075 * legend_rows)
    buffer = io.StringIO()
    # The salt keeps the ids of several panels in one page apart, and the same from one writing to the next.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": plot.title}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def write_png(path: Path, rows: Sequence[Row], title: str) -> None:
    """Writes the two curves one looks at first, reward and accuracy, as a picture."""
    from matplotlib.figure import Figure

    events = events_of(rows)
    plots = [plot for plot in HEADLINES if has_points(rows, plot)]
    figure = Figure(figsize=(5.6 * max(len(plots), 1), 3.4), layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.012, ha="left", fontsize=11, color=INK)
    for ax, plot in zip(figure.subplots(1, len(plots), squeeze=False)[0], plots, strict=True):
        render(ax, rows, plot, events)
        ax.set_title(plot.title, loc="left", pad=20, fontsize=10, fontweight="bold", color=INK)
        ax.set_xlabel("step", fontsize=8.5, color=INK)
    save_png(figure, path)


def save_png(figure: Figure, path: Path) -> None:
    """Writes a figure; the file is replaced as a whole."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    replace_file(path, buffer.getvalue())


def has_points(rows: Sequence[Row], plot: Plot) -> bool:
    """True where there is something to draw."""
    return any(name in row for row in rows for name in plot.curves)


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
