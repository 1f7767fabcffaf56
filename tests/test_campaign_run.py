"""The campaigns of the README as written, on the real engines: from v1 to BroRL, and three from one policy, one killed.

The trainings are short ones; tests/docs/checkout.py says how.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from megatron_rl.config.lineage import read_parent
from tests.docs.checkout import environment, make_checkout
from tests.docs.pages import CAMPAIGN, SIDE_BY_SIDE
from tests.test_end_to_end import alive_after, descendants, repeatable, rows, steps

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ONE_AFTER_THE_OTHER = {"1_prorl_v1": 8, "2_prorl_v2_after_v1": 4, "3_brorl": 1}  # steps of 2,000, 1,000 and 191
FROM_ONE_PARENT = {"1_prorl_v2": 12, "2_brorl": 1, "3_brorl_control_n16": 2, "4_dler": 1}  # of 3,000, 191, 535 and 300


def start(place: Path, line: str) -> subprocess.Popen[bytes]:
    with (place / "said.log").open("ab") as output:
        return subprocess.Popen(
            ["bash", "-c", f"source .venv/bin/activate; exec {line}"],
            cwd=place,
            env=environment(place),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(place: Path, line: str) -> Path:
    """The campaign's directory after its end."""
    process = start(place, line)
    try:
        assert process.wait(600) == 0, (place / "said.log").read_text()[-3000:]
    finally:
        if process.poll() is None:
            process.kill()  # its run dies with it
            process.wait()
    return place / line.rpartition(" ")[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("campaigns").resolve() / "checkout")


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    return finish(place, SIDE_BY_SIDE)


@pytest.fixture(scope="module")
def killed(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same campaign, killed in its second run, and started again."""
    place = make_checkout(tmp_path_factory.mktemp("killed").resolve() / "checkout")
    process, second = start(place, SIDE_BY_SIDE), place / "runs" / "side_by_side" / "2_brorl"
    deadline = time.monotonic() + 400
    while not rows(second):
        assert process.poll() is None and time.monotonic() < deadline, (place / "said.log").read_text()[-3000:]
        time.sleep(0.05)
    below = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    assert alive_after(below, 20) == []
    assert not (second / "model").exists() and not (second.parent / "3_brorl_control_n16").exists()
    return finish(place, SIDE_BY_SIDE)


def test_each_recipe_goes_on_from_the_one_before(place: Path) -> None:
    directory = finish(place, CAMPAIGN)
    assert {name: len(steps(directory / name)) for name in ONE_AFTER_THE_OTHER} == ONE_AFTER_THE_OTHER
    first, second, third = (read_parent(directory / name)[0] for name in ONE_AFTER_THE_OTHER)
    assert (first.parent, second.parent, third.parent) == (None, first, second)


def test_three_recipes_go_on_from_one_parent(whole: Path) -> None:
    assert {name: len(steps(whole / name)) for name in FROM_ONE_PARENT} == FROM_ONE_PARENT
    first, *others = (read_parent(whole / name)[0] for name in FROM_ONE_PARENT)
    assert first.parent is None and [one.parent for one in others] == [first] * 3
    shared = read_parent(whole / "1_prorl_v2")[1]
    for name in list(FROM_ONE_PARENT)[1:]:
        facts = json.loads((whole / name / "run.json").read_text())["run"]
        assert whole.parents[1] / facts["model_folder"] == shared


def test_a_killed_campaign_comes_to_the_same_bits(whole: Path, killed: Path) -> None:
    for name in FROM_ONE_PARENT:
        assert repeatable(killed / name) == repeatable(whole / name), name
        digests = [
            hashlib.sha256((read_parent(place / name)[1] / "model.safetensors").read_bytes()).hexdigest()
            for place in (whole, killed)
        ]
        assert digests[0] == digests[1], name
        assert read_parent(killed / name)[0] == read_parent(whole / name)[0]
    attempts = [len(json.loads((killed / name / "run.json").read_text())["attempts"]) for name in FROM_ONE_PARENT]
    assert attempts == [1, 2, 1, 1]


def test_the_campaign_has_a_page_of_all_its_runs(whole: Path) -> None:
    text = (whole / "comparison.html").read_text()
    assert "<h2>Final scores</h2>" in text and "values of the recipe differ" in text
    for name in FROM_ONE_PARENT:
        assert f"<td >{name}</td>" in text
