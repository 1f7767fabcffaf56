"""Export: the policy as a Hugging Face folder that transformers and vLLM load, with its lineage beside it."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor

from megatron_rl.actor.actor import Actor
from megatron_rl.config import lineage
from megatron_rl.config.run import Run
from megatron_rl.data.files import mixture_of
from megatron_rl.runtime import parallel
from megatron_rl.runtime.files import commit, sync
from megatron_rl.runtime.log import get_logger
from megatron_rl.runtime.spans import span
from megatron_rl.types import State

MAX_FILE_BYTES = 5 * 10**9
WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth")  # what is not copied of the model folder


@span("save")
def export(run: Run, state: State, actor: Actor, folder: Path) -> None:
    """Writes the policy, tokenizer and lineage into `folder`, which appears whole or not at all.

    The tensors have the bits that the actor has. Collective over the world; rank 0 holds all weights in host memory
    once. Raises RuntimeError on every rank when the folder is there and holds something else, and when a weight is not
    finite.
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
    tensors, broken = {}, None
    for name, tensor in actor.stream():
        if actor.ranks.is_main:
            tensors[name] = tensor.detach().cpu().clone()
            if broken is None and not tensors[name].isfinite().all():
                broken = name
    parallel.raise_together(
        f"the policy after step {state.step} is not exported: tensor {broken} has a value that is not finite; go on "
        "from an older checkpoint"
        if broken
        else None
    )
    if actor.ranks.is_main:
        _write(run.model_folder, folder, tensors, facts)
        get_logger().info("the policy after step %d: %s", state.step, folder)
    parallel.barrier()


def _found(
    folder: Path, facts: lineage.Parent
) -> Literal["nothing", "another policy", "this policy", "something else"]:
    """What stands in the place of the export."""
    if not folder.exists():
        return "nothing"
    if not (folder / lineage.FILE_NAME).is_file():
        return "something else"
    is_same = (folder / lineage.FILE_NAME).read_text(encoding="utf-8") == facts.to_json()
    return "this policy" if is_same else "another policy"


def _write(source: Path, folder: Path, tensors: Mapping[str, Tensor], facts: lineage.Parent) -> None:
    from safetensors.torch import save_file

    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file() and not path.name.endswith(WEIGHTS) and path.name != lineage.FILE_NAME:
            shutil.copyfile(path, aside / path.name)
    config = json.loads((aside / "config.json").read_text(encoding="utf-8"))
    (dtype,) = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}
    config.pop("torch_dtype", None)
    (aside / "config.json").write_text(json.dumps(config | {"dtype": dtype}, indent=2), encoding="utf-8")
    parts = in_parts(tensors, MAX_FILE_BYTES)
    names = [f"model-{i:05d}-of-{len(parts):05d}.safetensors" for i in range(1, len(parts) + 1)]
    names = names if len(parts) > 1 else ["model.safetensors"]
    for name, part in zip(names, parts, strict=True):
        save_file(part, aside / name, metadata={"format": "pt"})
        (aside / name).chmod(stat.S_IMODE((aside / "config.json").stat().st_mode))  # else for the owner's eyes alone
    if len(parts) > 1:
        where = {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part}
        size = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": size}, "weight_map": where}
        (aside / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    (aside / lineage.FILE_NAME).write_text(facts.to_json(), encoding="utf-8")
    for path in aside.iterdir():
        sync(path)
    shutil.rmtree(folder, ignore_errors=True)
    commit(aside, folder)


def in_parts(tensors: Mapping[str, Tensor], max_bytes: int) -> list[dict[str, Tensor]]:
    """The tensors in order, cut into files of at most `max_bytes`, one tensor at least."""
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if parts[-1] and size + tensor.nbytes > max_bytes:
            parts.append({})
            size = 0
        parts[-1][name] = tensor
        size += tensor.nbytes
    return parts
