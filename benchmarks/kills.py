"""Does a run that is killed at random end with the same bits? Prints the tally as one line of JSON.

A private Slurm cluster of two nodes runs slurm/prorl_v2.sh at scale cpu: once in peace, then in runs that are killed up
to five times each, by every means of tests/slurm/kills.py. The exit code is 1 where anything differs or is left behind.
Not covered: GPUs, a cluster with more than two nodes, a file system that is not local.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.slurm.cluster import Cluster, missing
from tests.slurm.kills import Kill, Seen, differences, drawn, endure, shared_memory


def main() -> None:
    """Runs the kills, then prints the tally."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, metavar="N")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed when, and how")
    parser.add_argument("--directory", type=Path, help="keeps the runs, in a folder that does not exist yet")
    options = parser.parse_args()
    if options.kills < 1:
        parser.error(f"--kills {options.kills}: must be at least 1")
    if options.directory is not None and options.directory.exists():
        parser.error(f"--directory {options.directory}: exists; choose another")  # its runs would be resumed
    if lacks := missing():
        parser.error(lacks)
    # Short, for sockets have to fit, and open to the other users of the cluster.
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "cluster").mkdir()
        with Cluster(Path(folder) / "cluster") as cluster:
            figures = measured(
                cluster, (options.directory or Path(folder) / "runs").resolve(), options.kills, options.seed
            )
    print(json.dumps(figures))
    raise SystemExit(int(bool(figures["different_runs"] or figures["orphans"] or figures["shared_memory_left"])))


def measured(cluster: Cluster, folder: Path, num_kills: int, seed: int) -> dict[str, Any]:
    """The tally of so many random kills, in runs below `folder`."""
    whole = folder / "whole"
    plans: dict[str, dict[Path, Sequence[Kill]]] = {node: {} for node in reversed(cluster.nodes)}
    plans[cluster.nodes[0]][whole] = ()
    for number, kills in enumerate(drawn(num_kills, seed)):
        node = cluster.nodes[(number + 1) % 2]
        plans[node][folder / f"killed_{number}"] = kills
    seen = endure(cluster, plans)
    del seen[whole]
    return tally(seen, whole)


def tally(seen: Mapping[Path, Sequence[Seen]], whole: Path) -> dict[str, Any]:
    """The figures of runs that were killed, against one that was not."""
    different = {run.name: found for run in seen if (found := differences(run, whole))}
    for name, found in different.items():
        say(f"{name} differs: {', '.join(found)}")
    every = [one for kills in seen.values() for one in kills]
    for run, kills in seen.items():
        for one in kills:
            say(f"{run.name}: {one.kill.how} in '{one.where}' of step {one.kill.step}, {one.seconds:.0f} s")
    return {
        "kills": len(every),
        "identical": sum(len(kills) for run, kills in seen.items() if run.name not in different),
        "different_runs": len(different),
        "lost_steps": sum(one.lost_steps for one in every),
        "orphans": sum(len(one.orphans) for one in every),
        "shared_memory_left": sum(len(shared_memory(run)) for run in seen),
        "seconds_per_kill": round(sum(one.seconds for one in every) / len(every), 1),
        "waves_kept": sum(one.waves for one in every),
        **{f"by_{how}": count for how, count in sorted(Counter(one.kill.how for one in every).items())},
        **{f"in_{phase}": count for phase, count in sorted(Counter(one.kill.phase for one in every).items())},
    }


def say(line: str) -> None:
    """Writes a line of progress; standard output is for the figures."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
