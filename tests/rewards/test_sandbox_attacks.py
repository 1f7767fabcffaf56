"""Every attack fails in the sandbox: as root, as an ordinary user, and where the kernel offers less."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.rewards import attacks
from tests.rewards.interpreters import readable_python

ROOT = Path(__file__).parents[2]
SLOW = [pytest.param(mode, marks=pytest.mark.e2e) for mode in ("no_namespaces", "no_landlock")]
MODES = ["root", "user", *SLOW]


@functools.cache
def results(mode: str) -> dict[str, Any]:
    """What the attacks did in one mode; they are run once."""
    if mode != "user" and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [readable_python(), str(ROOT / "tests" / "rewards" / "attacks.py"), mode],
        capture_output=True,
        text=True,
        env=environment,
        cwd="/",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("attack", attacks.ATTACKS)
@pytest.mark.parametrize("mode", MODES)
def test_an_attack_fails(mode: str, attack: str) -> None:
    traces = results(mode)["traces"][attack]
    if mode == "no_landlock" and attack in attacks.OPEN_WITHOUT_LANDLOCK:
        assert traces, "what is documented as open is closed: say so in layers.py"
    else:
        assert traces == []


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_left_after_the_attacks(mode: str) -> None:
    assert results(mode)["left"] == []


@pytest.mark.parametrize("mode", MODES)
def test_the_supervisor_stays_small(mode: str) -> None:
    assert results(mode)["supervisor_kib"] < 100 << 10, "of outputs of any length it keeps a few megabytes"


@pytest.mark.parametrize("mode", MODES)
def test_the_layers_that_a_machine_offers_are_used(mode: str) -> None:
    expected = {"rlimits", "seccomp"} | ({"landlock"} if mode != "no_landlock" else set())
    expected |= {"uid"} if mode != "user" else set()
    assert expected <= set(results(mode)["present"]) <= expected | {"bubblewrap"}


@pytest.mark.e2e
@pytest.mark.parametrize("attack", sorted(attacks.MUST_ESCAPE_WHEN_BARE))
def test_an_attack_succeeds_without_a_sandbox(attack: str) -> None:
    assert results("bare")["traces"][attack], "an attack that always fails shows nothing"
