"""The picture of BroRL's simulator: Figure 3's three panels, a row for each choice of what the paper leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_rl.algorithms.simulator import Curves
from megatron_rl.report.plots import COLOURS, INK, draw_grid, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = {  # for each of `Curves` its heading, and what its values are multiplied by
    "correct_mass": ("Probability of all correct tokens", 1.0),
    "improved_fraction": ("Correct tokens improved, %", 100.0),
    "worst_change": ("Worst change of a correct token, in 1e-5", 1e5),
}


def write_png(path: Path, rows: Mapping[str, Mapping[int, Curves]]) -> None:
    """Writes one row of panels for each title, one curve for each number of samples; all axes linear, as published."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 0.7 + 3.4 * len(rows)), layout="constrained", facecolor="white")
    grid = figure.subplots(len(rows), len(PANELS), squeeze=False)
    for axes, (title, curves) in zip(grid, rows.items(), strict=True):
        for ax, name in zip(axes, PANELS, strict=True):
            draw_panel(ax, name, curves)
        axes[0].set_ylabel(title, fontsize=9.5, color=INK)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, labelcolor=INK)
    save_png(figure, path)


def draw_panel(ax: Axes, name: str, curves: Mapping[int, Curves]) -> None:
    """Draws one of `PANELS` over the steps."""
    heading, factor = PANELS[name]
    for colour, (num_samples, curve) in zip(COLOURS, curves.items(), strict=False):
        values = factor * getattr(curve, name)
        ax.plot(range(len(values)), values, color=colour, lw=1.8, label=f"N = {num_samples:,}")
    ax.set_title(heading, loc="left", fontsize=10, fontweight="bold", color=INK)
    ax.set_xlabel("step", fontsize=8.5, color=INK)
    ax.margins(x=0)
    draw_grid(ax)
