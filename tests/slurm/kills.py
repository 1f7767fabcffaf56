"""Runs that are ended again and again, on a real Slurm, and what is left of them.

A run is a job of slurm/prorl_v2.sh with both engines and two ranks. killer/sitecustomize.py ends a rank from within, at
a moment of a phase; what Slurm or the power does is done from here, while a rank stands still in a phase.
"""

from __future__ import annotations

import dataclasses
import json
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_rl.report.journal import FILE_NAME, read_rows
from megatron_rl.report.metrics import MEASURED
from megatron_rl.runtime.rundir import SHARED_MEMORY, checkpoints, manifest_of, shared_memory_name
from tests.slurm.cluster import Cluster

ROOT = Path(__file__).parents[2]
KILLER = Path(__file__).parent / "killer"
NUM_RANKS = 2
NUM_STEPS = 7  # a kill in each of the five between the first and the last
SETTINGS: Mapping[str, Any] = {
    "num_steps": NUM_STEPS,
    "sampling.prompts_per_step": 4,
    "run.data_folder": ROOT / "tests" / "data" / "five_domains",
    "run.validate_every_steps": 100,
    "run.save_every_steps": 1,
    "run.max_validation_prompts": 8,
    "scale.sequences_per_wave": 16,  # two waves a step of each engine, or more
    "run.store_waves_longer_than_seconds": 0,
}

PHASES = ("rollout", "scoring", "update", "save", "commit")  # commit: the manifest stands, the rename is to come
WAVE = "wave"  # a phase, too: one is about to be stored
BY_SIGNAL = ("one", "all")  # of the ranks, by SIGKILL
BY_SLURM = ("usr1", "time_limit", "requeue", "scancel", "power_cut")
MAX_DELAY_SECONDS = {"rollout": 0.15, "scoring": 0.005, "update": 0.05, "save": 0.005, "commit": 0.0}
MAX_KILLS_PER_RUN = 5
ATTEMPT_SECONDS = 400  # most of it the start of the engines; a machine with other work takes a minute or two


@dataclass(frozen=True, kw_only=True)
class Kill:
    """The end of one attempt."""

    how: str  # of BY_SIGNAL or BY_SLURM
    phase: str  # of PHASES, or WAVE
    step: int
    delay_seconds: float = 0.0  # after the phase began; the kill comes at the phase's end at the latest
    rank: int = 0  # that is killed, or held
    nth: int = 1  # time that the phase begins in the step, which has several updates and waves


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one kill came to."""

    kill: Kill
    where: str  # the newest span of the rank at that moment
    partial: tuple[str, ...]  # files of a checkpoint that was being written
    waves: int  # that were stored
    resumed_from: int  # step of the checkpoint that the next attempt found
    orphans: tuple[str, ...]
    seconds: float  # from the start of the attempt to the start of the next

    @property
    def lost_steps(self) -> int:
        """Steps that were done before the one under way, and had to be done again."""
        return max(0, self.kill.step - 1 - self.resumed_from)


def drawn(num_kills: int, seed: int) -> list[list[Kill]]:
    """Random kills, in the lists that one run each can bear: at another step each, in order.

    Half of them by SIGKILL; with the other means, what is left of an attempt has time to end well.
    """
    draw = random.Random(seed)
    runs = []
    while num_kills:
        steps = sorted(draw.sample(range(1, NUM_STEPS + 1), min(num_kills, MAX_KILLS_PER_RUN)))
        hows = [draw.choice(draw.choice((BY_SIGNAL, BY_SLURM))) for _ in steps]
        runs.append([moment(how, draw.choice(PHASES), step, draw) for how, step in zip(hows, steps, strict=True)])
        num_kills -= len(steps)
    return runs


def moment(how: str, phase: str, step: int, draw: random.Random) -> Kill:
    """A random moment of a phase. One rank alone commits."""
    return Kill(
        how=how,
        phase=phase,
        step=step,
        delay_seconds=draw.uniform(0, MAX_DELAY_SECONDS[phase]),
        rank=0 if phase == "commit" else draw.randrange(NUM_RANKS),
        nth=draw.randint(1, 2) if phase == "update" else 1,
    )


class Ordeal:
    """A run in a directory of its own on one node, and the kills that it has to bear."""

    def __init__(self, cluster: Cluster, run: Path, node: str, kills: Sequence[Kill] = (), **settings: Any) -> None:
        self.cluster, self.run, self.node, self.kills = cluster, run, node, kills
        self.words = [word for name, value in (SETTINGS | settings).items() for word in ("--set", f"{name}={value}")]
        self.notes = run.with_name(f"{run.name}.kills")
        self.notes.mkdir(parents=True)
        (self.notes / "plan.json").write_text(json.dumps([dataclasses.asdict(kill) for kill in kills]))
        self.job = self.submit()

    def submit(self) -> str:
        """The number of a new job for the run."""
        return self.cluster.submit(
            "--nodes=1", f"--ntasks-per-node={NUM_RANKS}", f"--nodelist={self.node}", "--time=60",
            "--oversubscribe", "--gpus-per-node=2", "--mem=3000",  # the script would have the node for itself
            "--signal=B:USR1@300", f"--output={self.notes}/job.out", "slurm/prorl_v2.sh", *self.words,
            cwd=ROOT, SCALE="cpu", RUN_DIR=str(self.run), SETTLE_SECONDS="2",
            KILLS_PLAN=str(self.notes / "plan.json"), PYTHONPATH=str(KILLER),
            PATH=f"{Path(sys.executable).parent}:{self.cluster.environment['PATH']}",
        )  # fmt: skip

    def endure(self) -> list[Seen]:
        """What every kill came to, once the run is done. Raises RuntimeError where it does not get there."""
        seen = [self._one(number, kill) for number, kill in enumerate(self.kills)]
        self.finish()
        return seen

    def finish(self) -> None:
        """Returns when the run is done and its job has ended."""
        self._wait_until(lambda: (self.run / "DONE").exists())
        self.cluster.wait(self.job, "COMPLETED", timeout=60)

    def meet(self, number: int = 0) -> dict[str, Any]:
        """What a rank wrote down when it was killed, or began to stand still, in an attempt; waits for it."""
        what = "struck" if self.kills[number].how in BY_SIGNAL else "held"
        self._wait_until((self.notes / f"{what}_{number}").exists)
        facts: dict[str, Any] = json.loads((self.notes / f"{what}_{number}").read_text())
        return facts

    def release(self) -> None:
        """Lets a rank go on that stands still."""
        (self.notes / "release").touch()

    def _one(self, number: int, kill: Kill) -> Seen:
        self._wait_until(self._attempt(number).exists)
        began = time.monotonic()
        facts = self.meet(number)
        if kill.how in BY_SLURM:
            getattr(self, f"_{kill.how}")(number)
        self._wait_until((self._attempt(number + 1) / "checkpoint").exists)
        seconds = time.monotonic() - began
        name = self._wait_for_text(self._attempt(number + 1) / "checkpoint")
        return Seen(
            kill=kill,
            where=facts["where"],
            partial=tuple(facts["partial"]),
            waves=facts["waves"],
            resumed_from=0 if name == "the start" else int(name.removeprefix("step_")),
            orphans=tuple(self.cluster.orphans(self.node).values()),
            seconds=seconds,
        )

    def _usr1(self, number: int) -> None:
        self.cluster.run("scancel", "--batch", "--signal=USR1", self.job)

    def _time_limit(self, number: int) -> None:
        hours, minutes, _ = self.cluster.show(self.job)["RunTime"].split(":")
        # Slurm finds, within 30 s, that the limit is less than --signal's five minutes away.
        self._set_time_limit(60 * int(hours) + int(minutes) + 4)
        self._wait_until((self._attempt(number) / "ending").exists)
        self._set_time_limit(60)  # the next attempt would else leave as it begins

    def _requeue(self, number: int) -> None:
        self.cluster.run("scontrol", "requeue", self.job)

    def _scancel(self, number: int) -> None:
        self.cluster.run("scancel", self.job)
        self.cluster.wait(self.job, "CANCELLED")
        self.job = self.submit()

    def _power_cut(self, number: int) -> None:
        self.cluster.power_off(self.node)
        self.cluster.power_on(self.node)

    def _set_time_limit(self, minutes: int) -> None:
        done = self.cluster.run("scontrol", "update", f"JobId={self.job}", f"TimeLimit={minutes}")
        assert done.returncode == 0, done.stdout

    def _attempt(self, number: int) -> Path:
        return self.run / "logs" / f"attempt_{number}"

    def _wait_for_text(self, path: Path) -> str:
        self._wait_until(lambda: bool(path.read_text()))
        return path.read_text().strip()

    def _wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + ATTEMPT_SECONDS
        while not holds():
            if time.monotonic() > deadline or (self.run / "FAILED").exists():
                logs = sorted(self.run.glob("logs/attempt_*/task_0.log"))
                texts = [path.read_text()[-2000:] for path in [self.notes / "job.out", *logs[-1:]] if path.exists()]
                raise RuntimeError(f"{self.run} does not get on: {self.cluster.show(self.job)}\n" + "\n".join(texts))
            time.sleep(0.05)


def endure(cluster: Cluster, plans: Mapping[str, Mapping[Path, Sequence[Kill]]]) -> dict[Path, list[Seen]]:
    """What the kills of each run came to. Takes the runs of each node in turn, and the nodes at the same time."""

    def in_turn(node: str) -> dict[Path, list[Seen]]:
        return {run: Ordeal(cluster, run, node, kills).endure() for run, kills in plans[node].items()}

    with ThreadPoolExecutor(len(plans)) as pool:
        return {run: seen for part in pool.map(in_turn, plans) for run, seen in part.items()}


def repeatable(run: Path) -> list[dict[str, Any]]:
    """The metrics that must be equal, to the bit, in a run and its repetition."""
    return [
        {name: value for name, value in row.items() if not name.startswith(MEASURED)}
        for row in read_rows(run / FILE_NAME)
    ]


def final_state(run: Path) -> dict[str, Any]:
    """What the newest checkpoint holds: a digest of each rank's file, and the manifest but for its checksums."""
    import torch

    from tests.test_checkpoint import digest

    newest = checkpoints(run)[-1]
    manifest = manifest_of(newest)
    assert manifest is not None, newest
    ranks = {file.name: digest(torch.load(file, weights_only=True)) for file in sorted(newest.glob("*.pt"))}
    assert len(ranks) == NUM_RANKS, f"{newest}: {sorted(ranks)}"
    return {"name": newest.name, **ranks, **{key: value for key, value in manifest.items() if key != "files"}}


def differences(run: Path, whole: Path) -> list[str]:
    """What of a run is not as in one that nobody ended, to the bit; empty where all is."""
    found, wanted = repeatable(run), repeatable(whole)
    pairs = enumerate(zip(found, wanted, strict=False), start=1)
    rows = [f"line {number} of {FILE_NAME}" for number, (one, other) in pairs if one != other]
    if len(found) != len(wanted):
        rows.append(f"{len(found)} lines of {FILE_NAME} instead of {len(wanted)}")
    state, wanted_state = final_state(run), final_state(whole)
    return rows + [name for name in wanted_state if state.get(name) != wanted_state[name]]


def shared_memory(run: Path) -> list[str]:
    """The shared memory that belongs to a run, on this machine."""
    return [path.name for path in SHARED_MEMORY.glob("*") if shared_memory_name(run) in path.name]


def stored(run: Path, attempt: int, step: int) -> int:
    """The waves of a step that an attempt made: stored, or about to be when it was killed."""
    traces = run.with_name(f"{run.name}.kills").glob(f"trace_{attempt}_*")
    lines = [line.split(" ", 2)[1:] for trace in traces for line in trace.read_text().splitlines()]
    return lines.count([str(step), "wave"])


def plant_shared_memory(run: Path) -> None:
    """Leaves in the run's name what vLLM's collective leaves, which it uses on some CPUs only."""
    for number in (0, 1):
        (SHARED_MEMORY / f"-tp:0-[0-1]-cpushm_{shared_memory_name(run)}_{number}").touch()
