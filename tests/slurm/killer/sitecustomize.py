"""Ends a rank, or holds it until something else does, at a moment that a test chose. Python imports this by itself.

A test puts this folder on the PYTHONPATH of a job and a plan beside its run: one entry per attempt, written by
tests/slurm/kills.py. The kill is a SIGKILL from within the process; the program that is killed knows nothing of it.
Every rank also writes down each span that begins and ends, with the time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

POLL_SECONDS = 0.002
MAX_HOLD_SECONDS = 300
# Where a phase begins and ends, as spans are named; `wave` is a wave about to be stored, `partial` and `commit` are for
# the files of a checkpoint.
PHASES = {
    "rollout": ("generate", "after generate"),
    "wave": ("wave", "after generate"),
    "scoring": ("score", "after score"),
    "update": ("update", "after update"),
    "save": ("partial", "after save"),
    "commit": ("commit", "commit"),
}


class Rank:
    """Owns the files that this rank writes for the test: its number, its trace, and what was done to it."""

    def __init__(self, plan: Path) -> None:
        self.folder, self.pid, self.rank = plan.parent, os.getpid(), int(os.environ["SLURM_PROCID"])
        run = Path(os.environ["RUN_DIR"])
        self.attempt = len(list((run / "logs").glob("attempt_*"))) - 1
        entries = json.loads(plan.read_text())
        self.plan = entries[self.attempt] if self.attempt < len(entries) else None
        saved = max((int(path.name[5:]) for path in (run / "checkpoints").glob("step_??????")), default=0)
        self.step = saved - 1  # before the first step's refit comes the one after which the two engines are compared
        self.num_begun, self.is_validating, self.is_armed = 0, False, False
        (self.folder / f"pid_{self.attempt}_{self.rank}").write_text(str(self.pid))
        self.trace = (self.folder / f"trace_{self.attempt}_{self.rank}").open("a", buffering=1)

    def watch(self) -> None:
        """Waits until the program's spans are there, and listens to them."""
        while not hasattr(spans := sys.modules.get("megatron_rl.runtime.spans"), "take"):
            time.sleep(POLL_SECONDS)
        original = spans._mark

        def mark(where: str) -> None:
            self.meet(where, before_it=True)
            original(where)
            self.meet(where, before_it=False)

        spans._mark = mark
        sys.addaudithook(self.audit)

    def audit(self, event: str, arguments: tuple[object, ...]) -> None:
        """Sees the files of waves and of a checkpoint: called before the thing itself is done."""
        if event not in ("open", "os.rename"):
            return
        path = str(arguments[0])
        is_written = event == "open" and "w" in str(arguments[1])
        if is_written and ".partial/rank_" in path:
            self.meet("partial", before_it=False)
        elif is_written and path.endswith(".wave.partial"):
            self.meet("wave", before_it=False)
        elif event == "os.rename" and Path(path).name.startswith("step_") and path.endswith(".partial"):
            self.meet("after save", before_it=True)
            self.meet("commit", before_it=False)

    def meet(self, where: str, before_it: bool) -> None:
        """Goes on to what is planned, where this is the moment for it."""
        if os.getpid() != self.pid:  # a fork keeps the listeners
            return
        if not before_it:
            self.step += where == "refit"
            self.is_validating = where == "validate" or (self.is_validating and where != "after validate")
            self.trace.write(f"{time.time()} {self.step} {where}\n")
        if self.plan is None or self.rank != self.plan["rank"] or self.step != self.plan["step"]:
            return
        begin, end = PHASES[self.plan["phase"]]
        if before_it and where == end and self.is_armed:
            self.strike()  # the delay is longer than the phase
        elif not before_it and where == begin and not self.is_armed and not self.is_validating:
            self.num_begun += 1
            if self.num_begun == self.plan["nth"]:
                self.begin(where)

    def begin(self, where: str) -> None:
        if self.plan["how"] not in ("one", "all"):
            self.hold()
        elif where in ("commit", "wave"):
            self.strike()
        else:
            self.is_armed = True
            threading.Thread(target=self.strike, args=(self.plan["delay_seconds"],), daemon=True).start()

    def strike(self, delay_seconds: float = 0.0) -> None:
        """Kills this rank; or all, with the processes of Python's own that would clear up after them."""
        time.sleep(delay_seconds)
        self.report("struck")
        if self.plan["how"] == "all":
            ranks = [int(path.read_text()) for path in self.folder.glob(f"pid_{self.attempt}_*")]
            for group in sorted({os.getpgid(pid) for pid in ranks}, key=lambda group: group == os.getpgid(0)):
                os.killpg(group, signal.SIGKILL)
        os.kill(self.pid, signal.SIGKILL)

    def hold(self) -> None:
        """Stands still until a signal asks this rank to leave, or ends it, or the test lets it go on."""
        self.report("held")
        received, release = sys.modules["megatron_rl.runtime.preempt"]._received, self.folder / "release"
        deadline = time.monotonic() + MAX_HOLD_SECONDS
        while not received and not release.exists() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def report(self, what: str) -> None:
        run = Path(os.environ["RUN_DIR"])
        seen = {
            "where": sys.modules["megatron_rl.runtime.spans"].progress().where,
            "step": self.step,
            "partial": [path.name for path in (run / "checkpoints").glob("*.partial/*")],
            "committed": sorted(path.name for path in (run / "checkpoints").glob("step_??????")),
            "waves": len(list((run / "rollouts").glob(f"step_{self.step - 1:06d}/*.wave"))),
        }
        aside = self.folder / f".{what}_{self.attempt}"
        aside.write_text(json.dumps(seen))
        aside.rename(self.folder / f"{what}_{self.attempt}")


if "KILLS_PLAN" in os.environ and b"megatron_rl\0train" in Path("/proc/self/cmdline").read_bytes():
    threading.Thread(target=Rank(Path(os.environ["KILLS_PLAN"])).watch, daemon=True).start()
