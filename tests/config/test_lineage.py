"""A policy tells which runs it came from, and nothing that is no finished run is taken for one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from megatron_rl.config.lineage import FILE_NAME, Parent, model_folder_of, parent_of, read_parent
from tests.folders import parent_facts


def test_a_lineage_comes_back_from_its_text_whole() -> None:
    eldest = parent_facts("prorl_v1 1.2.0")
    middle = parent_facts("prorl_v2_after_v1 1.1.0", older=eldest)
    youngest = parent_facts("brorl 1.1.0", older=middle)
    assert parent_of(json.loads(youngest.to_json())) == youngest
    assert youngest.ancestors == [youngest, middle, eldest]


def test_a_parent_is_found_in_its_run_s_directory_and_in_its_exported_folder(tmp_path: Path) -> None:
    parent = parent_facts("prorl_v2 2.1.0")
    folder = model_folder_of(tmp_path)
    folder.mkdir()
    (folder / FILE_NAME).write_text(parent.to_json())
    assert read_parent(tmp_path) == read_parent(folder) == (parent, folder)


def test_a_folder_that_is_no_run_and_a_run_that_has_not_finished_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no run's directory, for it holds no run.json; give the one"):
        read_parent(tmp_path)
    with pytest.raises(ValueError, match="is no run's directory"):
        read_parent(tmp_path / "none")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"has not finished; .*megatron-rl export {tmp_path} --to {tmp_path}/model"):
        read_parent(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"release": "prorl_v2 2.1.0"}', '{"wrong": 1}'])
def test_a_damaged_lineage_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ValueError, match=rf"parent {tmp_path / FILE_NAME}: .*; export the run again"):
        read_parent(tmp_path)


def test_a_lineage_has_no_place_of_this_machine(tmp_path: Path) -> None:
    fields = {field.name for field in dataclasses.fields(Parent)}
    names = ("release", "fingerprint", "scale", "step", "samples_seen", "policy_digest", "parent")
    assert fields == {*names, "data_digest", "data_mixture", "branch", "commit", "weights_digest"}
