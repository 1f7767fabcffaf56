"""What `check` shows of a run before anything starts: the resolved recipe, the batch algebra, the memory."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from megatron_rl.commands.choose import released_fingerprint
from megatron_rl.commands.estimate import total_line
from megatron_rl.config.checks import UserError
from megatron_rl.config.pretrained import unknown_fields
from megatron_rl.config.records import Scale
from megatron_rl.config.run import Run, batch_algebra
from megatron_rl.config.tokenizer import prompt_lengths
from megatron_rl.data.files import missing_parts
from megatron_rl.estimate.memory import RESERVED_BYTES, estimate, shortage
from megatron_rl.estimate.step import OURS, parts_of_run
from megatron_rl.runtime.rundir import check_free


def warnings(run: Run, lacking: Sequence[str]) -> Iterator[str]:
    """What a training of this run would refuse, or not bear, one line each; `lacking` is what build_run noted."""
    refusals = list(lacking)
    try:
        check_free(run.directory)
    except UserError as error:
        refusals.append(str(error))
    hours, lead = run.scale.time_limit_hours, run.preemption_lead_seconds
    if hours is not None and 3600 * hours <= lead:
        refusals.append(
            f"scale.time_limit_hours={hours:g}: run.preemption_lead_seconds={lead:g} before it the run has to leave, "
            "which is at once; give more, or set less"
        )
    yield from (f"`train` would refuse this: {refusal}" for refusal in refusals)
    if not missing_parts(run.data_folder) and run.scale.miniature is None:  # the demo's model knows no words
        yield from unasked(run)
    if not missing_parts(run.data_folder):
        yield from overlap(run)
    if (lacks := shortage(estimate(run), run.scale)) > 0:
        yield (
            f"does not fit: a device of scale {run.scale.name} has {gib(run.scale.device_memory_bytes)}, and "
            f"{gib(lacks)} more are needed, {gib(RESERVED_BYTES[run.scale.device])} for what is not estimated "
            "included; set less scale.kv_cache_bytes or scale.max_tokens_per_microbatch, or take more devices"
        )


# What a verifier reads, and a text by which a prompt may ask for it.
ASKED_FOR = {
    "math": ("box", ("\\boxed", "\\fbox")),
    "code": ("block in triple backticks", ("```", "backtick", "code block")),
    "logic": ("answer tags", ("<answer>",)),
}


def show(run: Run, out: Console) -> None:
    """Prints the resolved run: recipe, scale, batch algebra, memory, fingerprint."""
    out.print(f"{run.published.release} at scale {run.scale.name} in {run.directory}", style="bold", soft_wrap=True)
    table = Table(box=None, pad_edge=False, show_header=True)
    for column in ("recipe", "value", "published", "changed by"):
        table.add_column(column, overflow="fold")
    names = [setting.partition("=")[0].strip() for setting in run.modified]
    published = dict(leaves(dataclasses.asdict(run.published)))
    for name, value in leaves(dataclasses.asdict(run.recipe)):
        changed = value != published.get(name)
        by_setting = any(name == given or name.startswith(f"{given}.") for given in names)
        cause = "--set" if by_setting else f"scale {run.scale.name}" if changed else ""
        row = (name, str(value), str(published.get(name, "-")) if changed else "", cause)
        table.add_row(*row, style="yellow" if changed else "")
    out.print(table)
    out.print()
    out.print(", ".join(f"{name}={value}" for name, value in placement(run.scale)), style="dim", soft_wrap=True)
    out.print(batch_algebra(run), soft_wrap=True)
    show_memory(run, out)
    for kind, folder in (("model", run.model_folder), ("data", run.data_folder)):
        is_cut = kind == "data" and bool(missing_parts(folder))
        out.print(f"{kind}: {folder}" + (is_cut * " (incomplete)" if folder.is_dir() else " (not on this machine)"))
    if run.model_folder.is_dir() and (unknown := unknown_fields(run.model_folder)):
        out.print(f"config.json has fields that nothing is known to read: {', '.join(unknown)}", soft_wrap=True)
    if not missing_parts(run.data_folder):
        out.print(f"prompts: {prompts(run)}", soft_wrap=True)
        for line, is_large in too_long(run):
            out.print(line, style="yellow" if is_large else "", soft_wrap=True)
    if (parent := run.parent) is not None:
        prompts_of = f", trained on {parent.data_mixture}" * bool(parent.data_mixture)
        out.print(f"starts from {parent.release} after step {parent.step}{prompts_of}", soft_wrap=True)
    if run.is_variant:
        out.print(f"a variant of {run.published.release}, which never counts as it:", style="yellow")
        for line in run.differences:
            out.print(f"  {line}", style="yellow", soft_wrap=True)
    out.print(f"recipe fingerprint {run.published.fingerprint}: {release_status(run)}")
    out.print(f"run fingerprint    {run.recipe.fingerprint}" + (f", modified: {', '.join(run.modified)}" * bool(names)))


def show_memory(run: Run, out: Console) -> None:
    """Prints what a device will need, by part and by phase, and that it fits where it does."""
    memory = estimate(run)
    parts = [f"{name} {gib(num_bytes)}" for name, num_bytes in dataclasses.asdict(memory).items() if num_bytes]
    out.print(f"memory per device, estimated: {', '.join(parts)} (reference in host memory)", soft_wrap=True)
    out.print(
        f"  while training {gib(memory.training)}, while generating {gib(memory.generation)}, "
        f"all at once {gib(memory.everything)}"
    )
    if shortage(memory, run.scale) <= 0:
        out.print(f"  fits into the {gib(run.scale.device_memory_bytes)} of a device of scale {run.scale.name}")


def show_time(run: Run, out: Console) -> None:
    """Prints what a step and the run will take, in one line, where something is published of the device."""
    if run.scale.device == "cuda":
        seconds = sum(parts_of_run(run, OURS).values())
        out.print(f"time, estimated: {total_line(run, seconds)}; `megatron-rl estimate` says of what", soft_wrap=True)


def prompts(run: Run) -> str:
    """How many prompts the data has of each domain, and how many the papers trained on."""
    from megatron_rl.data.items import read_data

    found = Counter(item.domain for item in read_data(run.data_folder).train)
    return ", ".join(
        f"{domain.name} {found[domain.name]:,} (published {domain.num_prompts:,} of {domain.source})"
        for domain in run.recipe.domains
    )


def too_long(run: Run) -> Iterator[tuple[str, bool]]:
    """What of each data file is left out as too long, and whether that is a large share of a domain."""
    from megatron_rl.data.items import read_data
    from megatron_rl.data.prompts import is_a_large_share, left_out, left_out_in_words

    data, limit = read_data(run.data_folder), run.recipe.sampling.max_prompt_tokens
    data = data.of({domain.name for domain in run.recipe.domains})
    for file, items in (("train", data.train), ("validation", data.validation)):
        lengths = prompt_lengths(run.model_folder, [item.prompt for item in items])
        kept = [item for item, length in zip(items, lengths, strict=False) if length <= limit]
        if lengths and (found := left_out(items, kept)):
            yield left_out_in_words(file, found, limit), is_a_large_share(found)


def overlap(run: Run) -> Iterator[str]:
    """One line where validation has prompts that are trained on."""
    from megatron_rl.data.items import read_data
    from megatron_rl.data.prompts import overlap_in_words

    if found := read_data(run.data_folder).of({domain.name for domain in run.recipe.domains}).overlap():
        yield overlap_in_words(found)


def unasked(run: Run) -> Iterator[str]:
    """One line for each domain whose prompts do not ask for the answer in the form that its verifier reads."""
    from megatron_rl.data.items import read_data

    trained_on = {domain.name for domain in run.recipe.domains}
    for domain, (form, marks) in ASKED_FOR.items():
        if domain not in trained_on:
            continue
        prompts = [item.prompt for item in read_data(run.data_folder).train if item.domain == domain]
        silent = sum(not any(mark in prompt for mark in marks) for prompt in prompts)
        if silent:
            yield (
                f"{silent:,} of {len(prompts):,} {domain} prompts ask for no {form}, which is all that their verifier "
                "reads; make the data by `megatron-rl data prepare`, or say it in the prompts"
            )


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every leaf of nested dictionaries; a record of a tuple goes by its own name or place.

    >>> list(leaves({"a": {"b": 1}, "c": ({"name": "x", "d": 2},), "e": (), "f": ("y", "z")}))
    [('a.b', 1), ('c.x.d', 2), ('e', ()), ('f', ('y', 'z'))]
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, tuple | list) and value and isinstance(value[0], dict):
        for place, inner in enumerate(value):
            inner = dict(inner)
            yield from leaves(inner, f"{name}.{inner.pop('name', place)}")
    else:
        yield name, value


def placement(scale: Scale) -> list[tuple[str, Any]]:
    """Name and value of what a scale says about hardware and layout."""
    return [
        (field.name, getattr(scale, field.name))
        for field in dataclasses.fields(scale)
        if field.name not in ("name", "caps", "miniature")
    ]


def release_status(run: Run) -> str:
    """What recipes/released.json says about the published recipe."""
    if (released := released_fingerprint(run.published.release)) is None:
        return f"{run.published.release} is not a released recipe"
    same = released == run.published.fingerprint
    if same and run.is_variant:
        return f"is the released {run.published.release}, which this run is a variant of"
    return f"is the released {run.published.release}" if same else f"DIFFERS from the released one, {released}"


def gib(num_bytes: int) -> str:
    """Bytes for reading.

    >>> gib(3 * 2**30), gib(2**20)
    ('3.0 GiB', '1 MiB')
    """
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**29 else f"{num_bytes / 2**20:.0f} MiB"
