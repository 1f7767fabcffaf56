"""The table of docs/performance.md, from the lines that gpu.py wrote: `python benchmarks/gpu.py --table FILE`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
NOT_MEASURED = "not measured"
HEAD = ("| what | aim | measured |", "|---|---|---|")


def read_lines(path: Path) -> tuple[Record, dict[str, Record]]:
    """The machine and, by name, the phases that a file of results has.

    Raises ValueError, in one line, for a file of anything else, or of no GPU.
    """
    try:
        machine, *phases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        found = {phase["phase"]: phase for phase in phases}
        is_of_gpu = not machine["rehearsal"] and machine["gpu"] == "present"
        if not isinstance(machine["machine"], dict):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"--table {path}: is no file of benchmarks/gpu.py's lines; give its --results") from None
    if not is_of_gpu:
        raise ValueError(f"--table {path}: has no figures of a GPU; run benchmarks/gpu.py on one, without --rehearse")
    return machine["machine"], found


def table_lines(machine: Record, phases: Mapping[str, Record]) -> list[str]:
    """The table in Markdown, below a line that says of what it is."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    card = f"{machine['card']}, driver {machine['driver']}"
    of_what = f"{card}, {machine['date'][:10]}, commit {machine['commit']}; {versions}."
    return [of_what, "", *HEAD, *(f"| {what} | {aim} | {_said(phases, *found)} |" for what, aim, *found in ROWS)]


def _said(phases: Mapping[str, Record], phase: str, say: Callable[[Record], str]) -> str:
    """What a phase measured, or why it did not."""
    record = phases.get(phase)
    if record is None:
        return NOT_MEASURED
    if record["status"] != "passed":
        reason = str(record.get("reason", "")).replace("|", "/")
        return f"{record['status']}: {reason}"
    return say(record)


def _mfu(memory: Record) -> str:
    update = memory["as_published"]
    rate = memory["matrix_product_flops"] / 1e12
    return f"{update['update_mfu']:.0%} of {rate:,.0f} TFLOP/s; {update['update_peak_gib']:.1f} GiB at most"


def _refit(engine: Record) -> str:
    seconds = engine["to_rollouts_seconds_1"]  # the first has what is done once
    return (
        f"{seconds:.2f} s for {engine['bytes_moved'] / 1e9:.1f} GB, "
        f"{seconds / engine['copy_floor_seconds']:.1f} times the copy"
    )


def _mismatch(mismatch: Record) -> str:
    means = {name: figures["mean_nats"] for name, figures in mismatch.items() if name.startswith("logits_both")}
    worst = max(means, key=lambda name: means[name])
    return f"{means[worst]:.4f} nats at most, of {len(means)} settings with fp32 logits on both sides"


def _determinism(determinism: Record) -> str:
    plain, ordered = determinism["plain"], determinism["deterministic"]
    if "update_seconds" not in ordered:  # its process did not end as it should
        return f"{ordered['status']}: {ordered.get('reason', '')}".replace("|", "/")
    price = ordered["update_seconds"] / plain["update_seconds"] - 1
    bits = {True: "the same bits", False: "other bits"}
    return f"{price:+.0%}; {bits[ordered['same_bits']]} again, without it {bits[plain['same_bits']]}"


# What, its aim, the phase that shows it, and how that is said.
ROWS: Sequence[tuple[str, str, str, Callable[[Record], str]]] = (
    (
        "MFU of the bf16 update at the 1.5B shape, packs of 17,408 tokens, against the measured matrix product",
        ">= 45 %",
        "memory",
        _mfu,
    ),
    ("a step's refit of 3.5 GB", "< 0.5 s, and at most twice the copy", "engine", _refit),
    ("mismatch of actor and rollout, mean", "< 0.01 nats", "mismatch", _mismatch),
    ("the price of `scale.deterministic`", "-", "determinism", _determinism),
    (
        "the start on 64 GPUs, where vLLM makes some 700 process groups one after the other",
        "-",
        "no phase: one GPU cannot",
        str,
    ),
)
