"""Export: the policy as a Hugging Face folder that transformers and vLLM load, with its lineage beside it."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from megatron_rl.actor.actor import Actor
from megatron_rl.config import lineage
from megatron_rl.config.run import Run
from megatron_rl.data.files import mixture_of
from megatron_rl.runtime import parallel
from megatron_rl.runtime.files import own_aside, replace_folder, sync
from megatron_rl.runtime.log import get_logger
from megatron_rl.runtime.spans import span
from megatron_rl.types import State

MAX_FILE_BYTES = 5 * 10**9
WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth")  # what is not copied of the model folder


@span("save")
def export(run: Run, state: State, actor: Actor, folder: Path) -> None:
    """Writes the policy, tokenizer and lineage into `folder`, which appears whole or not at all.

    The tensors have the bits that the actor has. Collective over the world; rank 0 holds one file's weights in host
    memory at a time. Raises RuntimeError on every rank when the folder is there and holds something else, and when a
    weight is not finite.
    """
    facts = lineage.Parent(
        release=run.recipe.release,
        fingerprint=run.recipe.fingerprint,
        scale=run.scale.name,
        step=state.step,
        samples_seen=state.samples_seen,
        policy_digest=state.policy_digest,
        parent=run.parent,
        data_digest=run.data_digest,
        data_mixture=mixture_of(run.data_folder),
    )
    found = parallel.gather(_found(folder, facts) if actor.ranks.is_main else None)[0]
    if found == "something else":
        raise RuntimeError(f"{folder}: is there and is no export of a run; move it away, or export to another folder")
    if found == "this policy":
        return
    folder = folder.resolve()  # what a link leads to is replaced, not the link
    aside, broken = own_aside(folder), list[str]()
    if actor.ranks.is_main:
        _write(run.model_folder, aside, _on_host(actor.stream(), broken), facts)
    else:
        for _ in actor.stream():
            pass
    if broken:
        shutil.rmtree(aside)
    parallel.raise_together(
        f"the policy after step {state.step} is not exported: tensor {broken[0]} has a value that is not finite; go on "
        "from an older checkpoint"
        if broken
        else None
    )
    if actor.ranks.is_main:
        replace_folder(aside, folder)
        get_logger().info("the policy after step %d: %s", state.step, folder)
    parallel.barrier()


def _found(
    folder: Path, facts: lineage.Parent
) -> Literal["nothing", "another policy", "this policy", "something else"]:
    """What stands in the place of the export."""
    if lineage.is_taken(folder):
        return "something else"
    if not (folder / lineage.FILE_NAME).is_file():
        return "nothing"
    is_same = (folder / lineage.FILE_NAME).read_text(encoding="utf-8") == facts.to_json()
    return "this policy" if is_same else "another policy"


def _on_host(stream: Iterable[tuple[str, Tensor]], broken: list[str]) -> Iterator[tuple[str, Tensor]]:
    """Copies of the tensors in host memory; the names of those with a value that is not finite go into `broken`."""
    for name, tensor in stream:
        here = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
        if not here.isfinite().all():
            broken.append(name)
        yield name, here


def _write(source: Path, aside: Path, tensors: Iterable[tuple[str, Tensor]], facts: lineage.Parent) -> None:
    """Fills a new folder with the tensors, what `source` has beside its weights, and the lineage; all of it synced."""
    from safetensors.torch import save_file

    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file() and not path.name.endswith(WEIGHTS) and path.name != lineage.FILE_NAME:
            shutil.copyfile(path, aside / path.name)
    config = json.loads((aside / "config.json").read_text(encoding="utf-8"))
    mode = stat.S_IMODE((aside / "config.json").stat().st_mode)
    files: list[list[str]] = []  # the names of each file's tensors
    dtypes, size = set[torch.dtype](), 0
    for part in in_parts(tensors, MAX_FILE_BYTES):
        path = aside / str(len(files))
        save_file(part, path, metadata={"format": "pt"})
        path.chmod(mode)  # else for the owner's eyes alone
        files.append(list(part))
        dtypes |= {tensor.dtype for tensor in part.values()}
        size += sum(tensor.nbytes for tensor in part.values())
        del part  # before the next is filled
    (dtype,) = {str(dtype).removeprefix("torch.") for dtype in dtypes}
    config.pop("torch_dtype", None)
    (aside / "config.json").write_text(json.dumps(config | {"dtype": dtype}, indent=2), encoding="utf-8")
    names = [f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)]
    names = names if len(files) > 1 else ["model.safetensors"]
    for number, name in enumerate(names):
        (aside / str(number)).rename(aside / name)
    if len(files) > 1:
        where = {tensor: name for name, held in zip(names, files, strict=True) for tensor in held}
        index = {"metadata": {"total_size": size}, "weight_map": where}
        (aside / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    (aside / lineage.FILE_NAME).write_text(facts.to_json(), encoding="utf-8")
    for path in aside.iterdir():
        sync(path)


def in_parts(tensors: Iterable[tuple[str, Tensor]], max_bytes: int) -> Iterator[dict[str, Tensor]]:
    """The tensors in order, cut into files of at most `max_bytes`, one tensor at least; drawn as they are wanted."""
    part: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        if part and size + tensor.nbytes > max_bytes:
            yield part
            part, size = {}, 0
        part[name] = tensor
        size += tensor.nbytes
    if part:
        yield part
