"""Plots of an evaluation's page, as SVG that takes its text colour from the page."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from megatron_rl.evaluation.analyses import Boundary, bounds
from megatron_rl.evaluation.table import Result
from megatron_rl.report.plots import COLOURS, INK, draw_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pass_at_k_plot(results: Sequence[Result], titles: dict[str, str]) -> str:
    """pass@k over k for every policy on one benchmark, with intervals; dotted, the most its variance allows."""

    def draw(ax: Axes) -> None:
        for colour, one in zip(COLOURS, results, strict=False):
            ks = list(one.pass_at_k)
            values = [one.pass_at_k[k] for k in ks]
            ax.plot(ks, [one.value for one in values], color=colour, lw=1.8, marker="o", ms=3, label=titles[one.policy])
            ax.fill_between(ks, [v.low for v in values], [v.high for v in values], color=colour, alpha=0.15, lw=0)
            limit = bounds(one)
            ax.plot(list(limit), list(limit.values()), color=colour, lw=1, ls=(0, (1, 2)))
        ax.set_xscale("log", base=2)
        ax.set_xticks([k for k in results[0].pass_at_k if k.bit_length() % 2 or k == 1])
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.minorticks_off()
        ax.set_ylim(-0.02, 1.02)
        ax.set_xlabel("k", fontsize=8.5, color=INK)

    return svg_of(draw, results[0].benchmark.name)


def boundary_plot(boundaries: Sequence[Boundary]) -> str:
    """How much the boundary gains over where it stood: the paper's Figure 3, left; a point for every benchmark."""

    def draw(ax: Axes) -> None:
        ax.axhline(0, color=INK, lw=0.8, alpha=0.5)
        places: dict[tuple[float, float], list[str]] = {}  # points that lie on each other share a label
        for colour, one in zip(COLOURS * len(boundaries), boundaries, strict=False):
            ax.plot([one.before], [one.gain], "o", color=colour, ms=6, clip_on=False)
            places.setdefault((round(one.before, 2), round(one.gain, 2)), []).append(one.benchmark)
        for point, names in places.items():
            side, shift = ("right", -6) if point[0] > 0.5 else ("left", 6)  # towards the middle, where there is room
            ax.annotate(
                ", ".join(names), point, xytext=(shift, 4), textcoords="offset points", ha=side, fontsize=8, color=INK
            )
        ax.set_xlim(-0.02, 1.02)
        most = max(0.05, *(abs(one.gain) for one in boundaries))
        ax.set_ylim(-1.3 * most, 1.3 * most)
        ax.set_xlabel("boundary of the first policy", fontsize=8.5, color=INK)

    return svg_of(draw, "boundary")


def lengths_plot(results: Sequence[Result], titles: dict[str, str]) -> str:
    """Mean response tokens of every benchmark, a bar for each policy."""

    def draw(ax: Axes) -> None:
        names = list(dict.fromkeys(one.benchmark.name for one in results))
        policies = list(dict.fromkeys(one.policy for one in results))
        height = 0.8 / len(policies)
        for place, (colour, policy) in enumerate(zip(COLOURS, policies, strict=False)):
            mine = {one.benchmark.name: one.lengths.mean for one in results if one.policy == policy}
            rows = [names.index(name) + (place - (len(policies) - 1) / 2) * height for name in mine]
            ax.barh(rows, list(mine.values()), height=height, color=colour, label=titles[policy])
        ax.set_yticks(range(len(names)), names)
        ax.invert_yaxis()

    num_bars = len(results)
    return svg_of(draw, "lengths", height=max(2.2, 0.9 + 0.22 * num_bars), left=0.24)


def svg_of(draw: Callable[[Axes], None], salt: str, height: float = 2.8, left: float = 0.11) -> str:
    """One panel as an <svg> element without a background; `salt` keeps the ids of a page's panels apart."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, height))
    ax = figure.add_subplot()
    draw(ax)
    draw_grid(ax)
    labels = ax.get_legend_handles_labels()[1]
    if len(labels) > 1:
        ax.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=8.5, labelcolor=INK,
            handlelength=1, columnspacing=1.2, borderpad=0,
        )  # fmt: skip
    figure.subplots_adjust(left=left, right=0.965, bottom=0.5 / height, top=0.97 - (0.25 / height) * (len(labels) > 1))
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")
