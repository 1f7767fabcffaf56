"""What the sources say about a recipe beside its numbers: it changes no run, so that it is no part of one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of a publication."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]  # each begins with its label


@dataclass(frozen=True, kw_only=True)
class Publication:
    """The story round a recipe, for its page."""

    title: str
    lineage: str
    checkpoint: str | None  # what Hugging Face calls the trained policy, where it was published
    branch: str | None  # of that repository; it may move, and no source pins it
    hardware: str
    cost: str
    deviations: tuple[str, ...]  # where the recipe had to choose against, or without, a source
    results: tuple[Table, ...]
