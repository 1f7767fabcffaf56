"""No two confined processes of a node have one user, whatever container they are in and however its owner died."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_rl.rewards.sandbox import slots
from megatron_rl.rewards.sandbox.layers import MAX_TASKS, NOT_ALONE, Level
from megatron_rl.rewards.sandbox.slots import ALL_TAKEN, FIRST_UID, MOST_TRIED, NONE_ALONE, spare_users
from tests.rewards.interpreters import readable_python

ROOT = Path(__file__).parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has users to spare")

# Two sandboxes that ask for the same users in the same order; a bomb goes off in one while the other runs programs.
_PAIR = """
import json, os, sys, threading
from megatron_rl.rewards.sandbox import slots
from megatron_rl.rewards.sandbox.kernel import libc
from megatron_rl.rewards.sandbox.run import Sandbox

slots.random.SystemRandom = lambda: slots.random.Random(0)
if sys.argv[1] == "user" and os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
first = Sandbox()
if sys.argv[1] == "container":  # a network of its own hides the claims of others
    assert libc().unshare(0x40000000) == 0
second = Sandbox()
bomb = '''
import os, threading, time
threading.stack_size(32768)
try:
    while True: threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
except RuntimeError: print(threading.active_count(), os.getuid(), flush=True)
time.sleep(0.1)
'''
found = []
thread = threading.Thread(target=lambda: found.append(first.run(bomb, seconds=5.0)))
thread.start()
good = "import os, threading; threading.Thread(target=lambda: print(os.getuid())).start()"
outputs = set()
while thread.is_alive():
    outputs.add(second.run(good, seconds=5.0).output.decode())
print(json.dumps([found[0].output.decode().split(), sorted(outputs), second.level.missing.get("uid", "")]))
"""


def pair(mode: str) -> tuple[list[str], list[str], str]:
    """Tasks and user of the bomb, what the programs beside it printed, and why they had no user of their own."""
    program = [readable_python(), "-B", "-c", _PAIR, mode]
    done = subprocess.run(program, capture_output=True, text=True, cwd="/", env={"PYTHONPATH": str(ROOT)}, timeout=60)
    assert done.returncode == 0, done.stderr
    bomb, outputs, reason = json.loads(done.stdout)
    return bomb, [line.strip() for line in outputs], reason


@needs_root
@pytest.mark.parametrize("mode", ["run", "container"])
def test_a_bomb_in_one_sandbox_is_no_matter_to_another(mode: str) -> None:
    (num_tasks, user), others, reason = pair(mode)
    assert reason == ""
    assert int(num_tasks) < MAX_TASKS
    assert len(others) == 1, "one user, and not one failed program"
    assert int(user) >= FIRST_UID and others[0] not in ("", user)


def test_without_root_tasks_are_counted_apart_where_the_kernel_can() -> None:
    user_namespace = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x10000000) != 0)"
    nobody = {"user": 65534} if os.geteuid() == 0 else {}
    if subprocess.run([readable_python(), "-c", user_namespace], **nobody).returncode != 0:
        pytest.skip("this machine lets no ordinary user make a user namespace")
    (num_tasks, _), others, reason = pair("user")
    assert reason == "only root can change its user"
    assert int(num_tasks) < MAX_TASKS
    assert len(others) == 1 and others[0]


@needs_root
def test_a_claim_lasts_until_its_owner_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    first = 70_000 + 3 * os.getpid()  # claimed alone: nobody becomes these, and no other test wants them
    monkeypatch.setattr(slots, "FIRST_UID", first)
    monkeypatch.setattr(slots, "NUM_UIDS", 3)
    program = f"""
from megatron_rl.rewards.sandbox import slots
slots.FIRST_UID, slots.NUM_UIDS, held = {first}, 3, []
print(*slots.spare_users(held), flush=True)
input()
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, text=True, **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip().endswith(ALL_TAKEN)
        assert list(spare_users([])) == [ALL_TAKEN]
        other.kill()
    held: list[socket.socket] = []
    *users, reason = spare_users(held)
    assert {*users} == {first, first + 1, first + 2} and reason == ALL_TAKEN
    for claim in held:
        claim.close()


@needs_root
def test_not_every_user_is_tried_where_none_is_alone() -> None:
    held: list[socket.socket] = []
    *users, reason = spare_users(held)
    assert len({*users}) == MOST_TRIED == len(held) and reason == NONE_ALONE
    for claim in held:
        claim.close()


@pytest.mark.parametrize(
    ("reason", "lacks"), [(ALL_TAKEN, True), (NONE_ALONE, True), (NOT_ALONE, False), ("only root can", False)]
)
def test_a_node_without_a_user_left_runs_no_programs(reason: str, lacks: bool) -> None:
    lacking = Level(missing={"uid": reason}).lacking
    assert lacking == (f"uid ({reason})" if lacks else "")
