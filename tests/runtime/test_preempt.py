import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_rl.config.checks import UserError
from megatron_rl.runtime.preempt import Preemption

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys, time
from megatron_rl.runtime.preempt import Preemption, listen
listen()
preemption = Preemption(None, 0.0)
print("ready", flush=True)
while (reason := preemption.reason) is None:
    time.sleep(0.01)
print(reason)
"""


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_to_leave_is_remembered_and_ends_nothing(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, number)
        assert process.stdout.readline() == f"{number.name} was received\n"
        assert process.wait(10) == 0


def test_ctrl_c_is_remembered_and_a_second_one_ends_the_process() -> None:
    waits = PROGRAM.replace("print(reason)", "print(reason, flush=True)\ntime.sleep(60)")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", waits], text=True, cwd=ROOT, **pipes) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "Ctrl-C\n"
        assert "press it again to leave at once" in process.stderr.readline()
        time.sleep(0.6)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == ""


def test_a_run_leaves_before_its_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    assert Preemption(None, 60.0).reason is None
    assert Preemption(1.0, 60.0).reason is None
    soon = Preemption(1.0, 3599.8)
    time.sleep(0.3)
    assert soon.reason == "the time limit is near"


def test_slurm_knows_the_end_of_a_job_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 50))
    assert Preemption(4.0, 10.0).reason is None
    assert Preemption(4.0, 10.0).deadline < time.time() + 41


def test_a_limit_that_leaves_no_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 50))
    with pytest.raises(UserError, match="run.preemption_lead_seconds=60 before it the run has to leave"):
        Preemption(4.0, 60.0)
