"""`check --gpus N`: which layouts a recipe's model, or another, could have on so many GPUs, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from megatron_rl.commands.choose import build_run
from megatron_rl.config.checks import require
from megatron_rl.config.records import Scale
from megatron_rl.config.run import Run
from megatron_rl.estimate.layouts import Layout, layouts

SHOWN = 3  # of those that fit


def proposals(recipe: str, gpus: int, settings: Sequence[str]) -> list[Layout]:
    """The layouts of a run on GPUs of 80 GB, eight to a machine, the best first. Raises UserError."""
    from recipes.models import MODELS
    from recipes.scales import H100X8

    require(
        gpus >= 1 and (gpus < H100X8.devices_per_node or gpus % H100X8.devices_per_node == 0),
        f"--gpus {gpus}: must be fewer than {H100X8.devices_per_node}, or whole machines of them",
    )
    lacking: list[str] = []
    chosen = build_run(recipe, H100X8.name, settings, None, needs_files=False, lacking=lacking)
    unknown = [line for line in lacking if line.startswith("--model") and chosen.model.name not in line]
    require(not unknown, f"{unknown and unknown[0]}; known without it are {', '.join(MODELS)}")
    per_node = min(gpus, H100X8.devices_per_node)
    base = dataclasses.replace(chosen.scale, num_nodes=gpus // per_node, devices_per_node=per_node)

    def run_at(scale: Scale) -> Run:
        return dataclasses.replace(chosen, scale=scale)

    return layouts(run_at, base)


def show_proposals(found: Sequence[Layout], recipe: str, settings: Sequence[str], out: Console) -> None:
    """Prints the best layouts that fit, the nearest that do not, and the words that ask for the first."""
    fitting = [layout for layout in found if layout.fits]
    table = Table(box=None, pad_edge=False)
    for column in ("", "layout", "training", "generating", "sequences at once", "why"):
        table.add_column(column, overflow="fold")
    for layout in [*fitting[:SHOWN], *(layout for layout in found if not layout.fits)]:
        memory = layout.memory
        sizes = ("", "") if memory is None else (f"{memory.training / 2**30:.1f}", f"{memory.generation / 2**30:.1f}")
        mark = "fits" if layout.fits else "does not" if memory is not None else "cannot"
        held = str(layout.sequences_at_once) if layout.fits else ""
        table.add_row(mark, layout.name, *sizes, held, layout.verdict, style="" if layout.fits else "dim")
    out.print(table)
    out.print("GiB on the fullest GPU, estimated; sequences of full length in the cache of an engine")
    if fitting:
        words = " ".join(f"--set {setting}" for setting in (*settings, *_settings(fitting[0].scale)))
        out.print(f"proposed: megatron-rl check {recipe} --scale h100x8 {words}", soft_wrap=True)
        out.print(f"because no layout with less model parallelism fits: {fitting[0].verdict}", soft_wrap=True)


def _settings(scale: Scale) -> list[str]:
    """What makes the scale of scale h100x8."""
    from recipes.scales import H100X8

    fields = [field.name for field in dataclasses.fields(Scale) if field.name not in ("name", "caps", "miniature")]
    changed = [name for name in fields if getattr(scale, name) != getattr(H100X8, name)]
    return [f"scale.{name}={str(getattr(scale, name)).lower()}" for name in changed]
