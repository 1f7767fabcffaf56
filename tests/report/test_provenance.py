"""run.json says what was run, and with what, at every attempt."""

import dataclasses
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.config.checks import UserError
from megatron_rl.report.provenance import (
    FILE_NAME,
    KEYS,
    LATER_KEYS,
    changed_software,
    git_commit,
    package_versions,
    read_run_file,
    write_run_file,
)
from tests.report.runs import make_run


def test_the_file_holds_the_resolved_run_and_every_attempt(tmp_path: Path) -> None:
    run = dataclasses.replace(make_run(tmp_path), modified=("run.seed=2",))
    write_run_file(run, 0)
    returned = write_run_file(run, 7)
    content = json.loads((tmp_path / FILE_NAME).read_text())
    assert content["attempts"] == returned["attempts"]
    assert [one["from_step"] for one in content["attempts"]] == [0, 7]
    assert content["fingerprint"] == run.recipe.fingerprint
    assert content["published_fingerprint"] == run.published.fingerprint
    assert content["modified"] == ["run.seed=2"]
    assert content["run"]["recipe"]["algorithm"]["clip_high"] == run.recipe.algorithm.clip_high
    assert "torch" in content["attempts"][0]["packages"]


def test_an_attempt_says_with_which_recipe_and_on_which_layout_it_was(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    later = dataclasses.replace(run.recipe, version="9.9.9")
    write_run_file(run, 0)
    wider = dataclasses.replace(run.scale, name="wider", devices_per_node=2 * run.scale.devices_per_node)
    content = write_run_file(dataclasses.replace(run, recipe=later, scale=wider, modified=("run.seed=2",)), 0)
    first, second = content["attempts"]
    assert [first["release"], second["release"]] == [run.recipe.release, later.release]
    assert [first["fingerprint"], second["fingerprint"]] == [run.recipe.fingerprint, later.fingerprint]
    assert [first["scale"], second["scale"]] == [run.scale.name, "wider"]
    assert second["layout"]["num_devices"] == 2 * first["layout"]["num_devices"]
    assert [first["modified"], second["modified"]] == [[], ["run.seed=2"]]


def test_software_that_has_changed_since_the_attempt_before_is_named(tmp_path: Path) -> None:
    write_run_file(make_run(tmp_path), 0)
    content = write_run_file(make_run(tmp_path), 7)
    assert changed_software(content) == []
    before, now = content["attempts"]
    before["packages"]["torch"], before["verifiers"], before["commit"] = "1.0", "a", "b"
    assert changed_software(content) == [
        f"commit: b -> {now['commit']}",
        f"packages.torch: 1.0 -> {now['packages']['torch']}",
        f"verifiers: a -> {now['verifiers']}",
    ]
    before["packages"]["torch"], before["commit"] = now["packages"]["torch"], now["commit"]
    del before["verifiers"]  # an older version did not note it
    assert changed_software(content) == []


@pytest.mark.parametrize(
    "text", ['{"attempts": [', "[]", "3", "[" * 100_000, '{"attempts": 3}', '{"attempts": [1]}', "\udcff"]
)
def test_a_damaged_file_is_said_in_one_line_and_written_anew(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match=r"run\.json: cannot be read .*; start the run again, which writes it anew"):
        read_run_file(tmp_path)
    write_run_file(make_run(tmp_path), 3)
    assert len(json.loads((tmp_path / FILE_NAME).read_text())["attempts"]) == 1


def test_a_file_of_an_older_version_is_read_and_what_no_version_lacks_is_named(tmp_path: Path) -> None:
    content = write_run_file(make_run(tmp_path), 0)
    assert content.keys() == {*KEYS, *LATER_KEYS}
    for key in content:
        (tmp_path / FILE_NAME).write_text(
            json.dumps({name: content[name] for name in content if name != key}, default=str)
        )
        if key in LATER_KEYS:
            assert read_run_file(tmp_path)[key] == LATER_KEYS[key]
        else:
            with pytest.raises(UserError, match="cannot be read .it (has no|holds no list of) "):
                read_run_file(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run": []}, "it has no run.recipe"),
        ({"run": {}}, "it has no run.recipe"),
        ({"run": {"recipe": {"num_steps": "x"}}}, "it has no run.recipe"),
        ({"modified": "x"}, "modified is 'x', and no list of texts"),
        ({"run": {"recipe": {"num_steps": 3}, "modified": [5]}}, "run.modified is"),
        ({"sources": 5}, "sources is no list"),
    ],
)
def test_a_file_that_no_version_writes_is_said_in_one_line(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    content = write_run_file(make_run(tmp_path), 0)
    (tmp_path / FILE_NAME).write_text(json.dumps(content | change, default=str))
    with pytest.raises(UserError, match=f"cannot be read .{said}"):
        read_run_file(tmp_path)


def test_only_installed_packages_are_named() -> None:
    assert all(package_versions().values())


def test_commit_tells_a_changed_tree_and_no_repository_is_none(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None

    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True)

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "one", "--no-verify")
    clean = git_commit(tmp_path)
    assert clean is not None and len(clean) == 40
    (tmp_path / "file").write_text("two")
    assert git_commit(tmp_path) == clean + "+changes"
    if os.geteuid() == 0:  # as a container's root may look at its user's checkout
        for path in (tmp_path, *tmp_path.rglob("*")):
            os.chown(path, 65534, 65534)
        assert git_commit(tmp_path) == clean + "+changes"
