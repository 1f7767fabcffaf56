"""The picture of the simulator shows the curves it was given, named, on linear axes."""

from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from megatron_rl.algorithms.simulator import Curves
from megatron_rl.report.simulation import PANELS, draw_panel, write_png

CURVES = {
    num_samples: Curves(
        correct_mass=0.63 + slope * torch.arange(5.0),
        improved_fraction=torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0]),
        worst_change=-1e-5 * torch.arange(5.0),
    )
    for num_samples, slope in ((4, -1e-2), (51_200, 5e-3))
}
FACTORS = {"correct_mass": 1, "improved_fraction": 100, "worst_change": 1e5}


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_shows_every_curve_whole_under_its_name(name: str) -> None:
    ax = Figure().add_subplot()
    draw_panel(ax, name, CURVES)
    assert [line.get_label() for line in ax.get_lines()] == ["N = 4", "N = 51,200"]
    for line, curves in zip(ax.get_lines(), CURVES.values(), strict=True):
        expected = FACTORS[name] * getattr(curves, name)
        assert list(line.get_xdata()) == [0, 1, 2, 3, 4]
        assert list(line.get_ydata()) == pytest.approx(expected.tolist())
        low, high = ax.get_ylim()
        assert low < expected.min() and expected.max() < high
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "linear")


def test_there_is_a_panel_for_each_curve() -> None:
    assert tuple(PANELS) == Curves._fields


def test_a_picture_has_a_row_for_each_choice(tmp_path: Path) -> None:
    for name, rows in (("one", {"a": CURVES}), ("two", {"a": CURVES, "b": CURVES})):
        write_png(tmp_path / f"{name}.png", rows)
    one, two = (imread(tmp_path / f"{name}.png") for name in ("one", "two"))
    assert one.shape[1] == two.shape[1] and 1.5 * one.shape[0] < two.shape[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]
