"""An exported policy has the bits of the one that was trained, on any layout, and its lineage beside it."""

from __future__ import annotations

import json
import os
import re
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_rl import device, export
from megatron_rl.config.lineage import FILE_NAME, read_parent
from megatron_rl.export import _write, in_parts
from megatron_rl.runtime import parallel
from megatron_rl.runtime.files import machine
from megatron_rl.types import State
from tests.folders import parent_facts
from tests.models import make_run
from tests.ranks import run_ranks

MODEL = Path(__file__).parents[1] / "demo" / "model"
FOUR = {"devices_per_node": 4, "tensor_parallel": 2, "pipeline_parallel": 2}


def exported(to: str, max_file_bytes: int, **scale: Any) -> list[str]:
    """Runs on every rank: the model of MODEL through an Actor into folders of `to`; what went wrong on the way."""
    import dataclasses

    from megatron_rl import export
    from megatron_rl.actor.actor import Actor

    run = make_run(MODEL, **scale)
    hardware = device.select(run.scale)
    actor = Actor(run, parallel.start(run.scale, hardware, 60), hardware)
    one, parts, taken = Path(to) / "one", Path(to) / "parts", Path(to) / "taken"
    export.export(run, State.fresh(), actor, one)
    if actor.ranks.is_main:
        (one / "mark").write_text("not written again")
    parallel.barrier()
    export.export(run, State.fresh(), actor, one)
    export.MAX_FILE_BYTES = max_file_bytes
    export.export(run, State.fresh(), actor, parts)
    if actor.ranks.is_main:
        (parts / "mark").write_text("of the step before")
    export.export(run, dataclasses.replace(State.fresh(), step=3, policy_digest="abc"), actor, parts)
    errors = []
    for folder in (taken, Path(to) / "broken"):
        try:
            export.export(run, State.fresh(), actor, folder)
        except RuntimeError as error:
            errors.append(str(error))
        with torch.no_grad():
            next(reversed(list(actor.chunks[-1].parameters())))[0] = float("nan")
    return errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    (folder / "taken").mkdir()
    (folder / "taken" / "thesis.tex").write_text("mine")
    for name in ("one", "parts"):  # of an export that was killed
        (folder / f".{name}.{machine()}.{2**22 + 1}.partial").mkdir()
    errors = run_ranks("tests.test_export:exported", 4, to=str(folder), max_file_bytes=400_000, **FOUR)
    (folder / "errors.json").write_text(json.dumps(errors))
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


@pytest.mark.ranks
@pytest.mark.parametrize("name", ["one", "parts"])
def test_the_weights_are_bitwise_those_that_were_loaded(folder: Path, name: str) -> None:
    assert same_bits(tensors(folder / name), tensors(MODEL))


@pytest.mark.ranks
@pytest.mark.parametrize("name", ["one", "parts"])
def test_transformers_loads_the_folder(folder: Path, name: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, loading = AutoModelForCausalLM.from_pretrained(folder / name, output_loading_info=True)
    assert not any(loading.values()), loading
    assert model.dtype == torch.float32
    assert same_bits(model.state_dict(), AutoModelForCausalLM.from_pretrained(MODEL).state_dict())
    text = "What is the median of 3 8 5?"
    assert AutoTokenizer.from_pretrained(folder / name)(text) == AutoTokenizer.from_pretrained(MODEL)(text)


@pytest.mark.ranks
def test_large_weights_are_cut_into_files_with_an_index(folder: Path) -> None:
    parts = sorted(path.name for path in (folder / "parts").glob("*.safetensors"))
    assert len(parts) > 2
    assert parts == [f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors" for i in range(len(parts))]
    index = json.loads((folder / "parts" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(tensors(MODEL))
    assert not (folder / "one" / "model.safetensors.index.json").exists()


@pytest.mark.ranks
def test_the_lineage_stands_beside_the_weights(folder: Path) -> None:
    parent, found = read_parent(folder / "parts")
    assert (parent.release, parent.step, parent.policy_digest, parent.parent) == ("prorl_v2 2.1.0", 3, "abc", None)
    assert found == folder / "parts"


@pytest.mark.ranks
def test_the_same_policy_is_not_written_twice_and_another_replaces_it_whole(folder: Path) -> None:
    assert (folder / "one" / "mark").exists()
    assert not (folder / "parts" / "mark").exists()
    assert {path.name for path in folder.iterdir()} == {"one", "parts", "taken", "errors.json"}


@pytest.mark.ranks
def test_a_policy_that_is_not_finite_is_not_exported_and_every_rank_says_which_tensor(folder: Path) -> None:
    for _, error in json.loads((folder / "errors.json").read_text()):
        assert re.search(
            r"after step 0 is not exported: tensor model\.\S+\.weight has a value that is not finite", error
        )
    assert not (folder / "broken").exists()


@pytest.mark.ranks
def test_a_folder_that_is_no_export_is_left_alone_and_every_rank_ends(folder: Path) -> None:
    errors = json.loads((folder / "errors.json").read_text())
    assert len(errors) == 4
    for error, _ in errors:
        assert "is there and is no export of a run; move it away" in error
    assert [path.name for path in (folder / "taken").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(("umask", "of_files", "of_folder"), [(0o022, 0o644, 0o755), (0o007, 0o660, 0o770)])
def test_an_exported_policy_is_readable_as_the_umask_says(
    umask: int, of_files: int, of_folder: int, tmp_path: Path
) -> None:
    before = os.umask(umask)
    try:
        _write(MODEL, tmp_path / "policy", [("a", torch.zeros(2))], parent_facts("prorl_v2 2.0.0"))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "policy").iterdir()}
    assert modes == dict.fromkeys(modes, of_files) and "model.safetensors" in modes
    assert stat.S_IMODE((tmp_path / "policy").stat().st_mode) == of_folder


def test_no_more_than_one_file_of_weights_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of a 32B model is 65 GB; beside a file there is the tensor that did not fit into it."""
    monkeypatch.setattr(export, "MAX_FILE_BYTES", 3000)
    made, held = list[weakref.ref[torch.Tensor]](), list[int]()

    def stream() -> Iterator[tuple[str, torch.Tensor]]:
        for number in range(20):
            tensor = torch.full((1000,), number, dtype=torch.uint8)
            made.append(weakref.ref(tensor))
            held.append(sum(ref() is not None for ref in made))
            yield str(number), tensor

    _write(MODEL, tmp_path / "policy", stream(), parent_facts("prorl_v2 2.0.0"))
    assert max(held) == 4
    assert {name: int(tensor[0]) for name, tensor in tensors(tmp_path / "policy").items()} == {
        str(number): number for number in range(20)
    }


def test_tensors_are_cut_in_order_and_none_is_lost() -> None:
    sizes = {"a": 3, "b": 3, "c": 1, "d": 9, "e": 1}
    tensors = {name: torch.zeros(size, dtype=torch.uint8) for name, size in sizes.items()}
    assert [list(part) for part in in_parts(tensors.items(), 6)] == [["a", "b"], ["c"], ["d"], ["e"]]
    assert [list(part) for part in in_parts(tensors.items(), 100)] == [list(sizes)]
    assert all(part[name] is tensors[name] for part in in_parts(tensors.items(), 6) for name in part)
    assert FILE_NAME.endswith(".json")
