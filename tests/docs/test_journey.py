"""The pages' commands that train and look at a training run as written, one after the other, as a newcomer gives them.

The tests go on from one another in one checkout, whose trainings are short; tests/docs/checkout.py says how.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from tests.docs.checkout import environment, given, make_checkout
from tests.docs.hub import Hub, hub
from tests.docs.pages import JOURNEY, SERVES
from tests.test_end_to_end import repeatable, steps

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DOMAIN = "my_rewards.py:Sum"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("journey").resolve() / "checkout")


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with hub({}) as found:
        yield found


@pytest.mark.parametrize("line", JOURNEY)
def test_a_newcomer_s_command_runs_as_written(line: str, place: Path, server: Hub) -> None:
    done = given(place, line, HF_ENDPOINT=server.address, HF_TOKEN="hf_of_me")
    assert done.returncode == 0 and done.stdout + done.stderr, (done.stdout + done.stderr)[-3000:]
    assert "Traceback" not in done.stdout + done.stderr


def test_the_page_is_served_as_written(place: Path) -> None:
    with socket.socket() as port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            port.bind(("127.0.0.1", 8000))
        except OSError:
            pytest.skip("another program has port 8000 of this machine")
    words = ["bash", "-c", f"source .venv/bin/activate; exec {SERVES}"]
    served = subprocess.Popen(
        words, cwd=place, env=environment(place), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert served.stdout is not None and served.stdout.readline().startswith("http://127.0.0.1:8000/ ")
        assert b'id="plots-learning"' in urllib.request.urlopen("http://127.0.0.1:8000/").read()
    finally:
        os.killpg(served.pid, signal.SIGINT)
        began = time.monotonic()
        served.communicate(timeout=30)
    assert served.returncode == 130 and time.monotonic() - began < 5


def test_the_evaluation_of_the_demo_shows_the_boundary_before_and_after(place: Path) -> None:
    folder = place / "runs" / "demo" / "evaluation"
    lines = (folder / "table.csv").read_text().splitlines()
    for policy in ("step_000000", "step_000012"):
        for figure in ("pass@1", "pass@128 (unbiased)"):
            (line,) = [one for one in lines if one.startswith(f"mini_math,{policy},ours,{figure},")]
            value, low, high = map(float, line.split(",")[4:7])
            assert low <= value <= high
    assert "The boundary" in (folder / "evaluation.html").read_text()


def test_what_is_pushed_is_the_exported_folder_with_a_card_that_has_the_scores(place: Path, server: Hub) -> None:
    files = {path.name: path.read_bytes() for path in (place / "policy").iterdir()}
    assert server.uploaded == {"me/policy": files} and server.private == {"me/policy": True}
    card = ModelCard.load(place / "policy" / "README.md").text
    assert "prorl_v2" in card and "12 of 12" in card
    assert re.search(r"\| mini_math \| ours \| pass@1 \| [\d.]+ \([\d.]+ to [\d.]+\) \|", card)


def test_the_first_step_is_the_same_on_another_layout(place: Path) -> None:
    expected, found = (repeatable(place / "runs" / name)[:2] for name in ("v2", "prorl_v2-cpu_tp2_pp2"))
    assert found[0] == expected[0]  # the first validation
    for name, value in expected[1].items():
        if name.startswith(("actor/", "mismatch/")):
            absolute = 1e-6 if name.startswith("actor/") else 1e-5
            assert found[1][name] == pytest.approx(value, rel=1e-4, abs=absolute), name
        else:
            assert found[1][name] == value, name


def test_a_reward_from_a_file_trains_and_the_run_is_a_variant(place: Path) -> None:
    directory = place / "runs" / "grpo_control_variant-cpu"
    rows = steps(directory)
    assert sum(row[f"verifier/judged_count/{DOMAIN}"] for row in rows) > 0
    assert sum(row[f"rollout/reward_mean/{DOMAIN}"] for row in rows) > 0
    assert sum(row.get("actor/gradient_norm", 0) > 0 for row in rows) > 0
    facts = json.loads((directory / "run.json").read_text())
    assert facts["variant_of"] and facts["release"].split()[0].endswith("_variant")
    assert f"domains: math, code, stem, logic, instruct -> {DOMAIN}" in facts["differences"]
    assert len(facts["data"]["rewards"][DOMAIN]) == 64
    assert "a variant of" in (directory / "report.html").read_text()
    lineage = json.loads((directory / "model" / "megatron_rl.json").read_text())
    assert lineage["release"] == facts["release"] and lineage["data_digest"] == facts["data"]["digest"]
