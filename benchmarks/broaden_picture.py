"""The picture of broaden.py: the policy that stalls, and the ways on from there."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_rl.report.plots import COLOURS, INK, draw_grid, save_png

if TYPE_CHECKING:
    from broaden import Curve
    from matplotlib.axes import Axes

LABELS = {
    "n16": "16 samples each, as before",
    "n512": "512 samples each, learning rate x 2.8",
    "n512_slow": "512 samples each, learning rate as before",
}
AXES = {"samples": "thousands of generated samples", "seconds": "seconds of the loop"}


def write_picture(path: Path, stalled: Curve, curves: Mapping[str, Sequence[Curve]]) -> None:
    """Draws held-out accuracy: until it stalls, then by samples and by seconds, the mean and the range of the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 3.7), layout="constrained", facecolor="white")
    first, *others = figure.subplots(1, 3, sharey=True)
    draw(first, "samples", [stalled], COLOURS[6], "ProRL v2, 16 samples each")
    first.set_title("Until it gains no more", loc="left", fontsize=10, fontweight="bold", color=INK)
    first.set_xlabel(AXES["samples"], fontsize=8.5, color=INK)
    first.set_ylabel("held-out accuracy", fontsize=8.5, color=INK)
    for ax, kind in zip(others, AXES, strict=True):
        for colour, (name, seeds) in zip(COLOURS, curves.items(), strict=False):
            draw(ax, kind, seeds, colour, LABELS[name])
        ax.axhline(stalled.accuracy[-1], color=COLOURS[6], lw=0.9, ls=":")
        ax.set_title(f"From there, by {kind}", loc="left", fontsize=10, fontweight="bold", color=INK)
        ax.set_xlabel(AXES[kind], fontsize=8.5, color=INK)
    for ax in (first, *others):
        draw_grid(ax)
        ax.margins(x=0)
        ax.legend(loc="lower right", frameon=False, fontsize=8.5, labelcolor=INK)
    save_png(figure, path)


def draw(ax: Axes, kind: str, seeds: Sequence[Curve], colour: str, label: str) -> None:
    """Draws the mean of the seeds, validation by validation, over what was spent on the average, and their range."""
    unit = 1000 if kind == "samples" else 1
    spent = [statistics.fmean(at) / unit for at in zip(*(getattr(seed, kind) for seed in seeds), strict=True)]
    values: list[tuple[Any, ...]] = list(zip(*(seed.accuracy for seed in seeds), strict=True))
    ax.plot(spent, [statistics.fmean(at) for at in values], color=colour, lw=1.9, marker="o", ms=3, label=label)
    ax.fill_between(spent, [min(at) for at in values], [max(at) for at in values], color=colour, alpha=0.15, lw=0)
