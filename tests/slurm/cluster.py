"""A private, real Slurm cluster on this machine: nodes with their own names, processes and pretended GPUs.

Every node is a slurmd in its own process, mount and host-name namespace, so that killing it is a power cut. All that
is written lies in one folder, and everything ends with the process that started it. Needs root and Debian's packages
slurm-wlm and munge; with libslurm-dev and a C compiler the cluster also takes Pyxis' container options.

Not covered: accounting (`sacct` asks slurmctld), cgroups, several networks (the nodes share this machine's ports).
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

HERE = Path(__file__).parent
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
PR_SET_PDEATHSIG = 1

# cred_expire: a job is started again cred_expire + 1 s after a requeue, and 5 is the least that is heeded.
# config_overrides: the nodes have more CPUs than this machine. MinJobAge: scontrol shows jobs that have ended.
# FirstJobId: the port on which ranks meet follows from it, and other clusters may be at work on this machine.
CONFIGURATION = """\
ClusterName=private
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=0
KillWait=5
MinJobAge=86400
FirstJobId={first_job}
SlurmdTimeout=10
GresTypes=gpu
{plugins}
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=later Nodes=ALL MaxTime=INFINITE State=DOWN
"""
NODE = "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=16 RealMemory=8000 Gres=gpu:8"
NODE_PROGRAM = (
    "hostname {name}; mount --bind {folder}/hosts /etc/hosts; slurmd -D -N {name} & wait"  # bash reaps as pid 1
)


def missing() -> str:
    """What this machine lacks for a cluster, as one line with the remedy; empty when it lacks nothing."""
    if os.geteuid() != 0:
        return "a private Slurm cluster needs root, for its nodes have namespaces of their own"
    programs = [name for name in ("slurmctld", "slurmd", "munged", "unshare") if shutil.which(name) is None]
    if programs:
        return f"{', '.join(programs)} not installed; apt-get install slurm-wlm munge libslurm-dev"
    namespaces = subprocess.run(["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "true"])
    return (
        "" if namespaces.returncode == 0 else "this machine allows no namespaces; run in a container with CAP_SYS_ADMIN"
    )


class Cluster:
    """Nodes `node1`, `node2`, ... with 8 pretended GPUs each, while it is entered.

    Partition `main` runs jobs, `later` takes them and starts none.
    """

    def __init__(self, folder: Path, num_nodes: int = 2) -> None:
        self.folder = folder
        self.nodes = tuple(f"node{number}" for number in range(1, num_nodes + 1))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        # The kernel kills a daemon when the thread that started it ends; power_on may be called from any.
        self.starter = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        self._write_configuration()
        munge = self.folder / "munge"
        try:
            self._start(
                "munged",
                ["munged", "-F", "--force", f"--socket={munge}/socket", f"--key-file={munge}/key"]
                + [f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed"],
            )
            self._until("munged answers", (munge / "socket").exists)
            self._start("slurmctld", ["slurmctld", "-D", "-c"])
            for node in self.nodes:
                self.power_on(node)
            self._until(
                "all nodes are idle",
                lambda: self.run("sinfo", "-h", "-p", "main", "-o", "%T").stdout.split() == ["idle"],
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for name in list(self.processes):
            self.power_off(name)

    @property
    def environment(self) -> dict[str, str]:
        """The variables under which Slurm's commands talk to this cluster, and none of another one's."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
        return own | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": f"{self.folder}/bin:{own['PATH']}"}

    def run(
        self,
        *command: str | Path,
        cwd: Path | None = None,
        timeout: float = 60,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """One of Slurm's commands, or any that uses them, to its end; its errors are part of its output."""
        return subprocess.run(
            [str(word) for word in command],
            env=self.environment | dict(variables or {}),
            cwd=cwd,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )

    def submit(self, *arguments: str | Path, cwd: Path, **variables: str) -> str:
        """The number of the job that `sbatch arguments` makes."""
        done = self.run("sbatch", "--parsable", *arguments, cwd=cwd, variables=variables)
        assert done.returncode == 0, done.stdout
        return done.stdout.split()[-1]

    def show(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says."""
        text = self.run("scontrol", "-o", "show", "job", job).stdout
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def wait(self, job: str, *states: str, timeout: float = 60) -> dict[str, str]:
        """The job once it is in one of the states, or has ended where none are given."""
        deadline = time.monotonic() + timeout
        while (shown := self.show(job)).get("JobState") not in (states or ENDED):
            assert time.monotonic() < deadline, f"job {job} after {timeout} s: {shown}"
            time.sleep(0.1)
        return shown

    def power_on(self, node: str) -> None:
        """Starts a node that is off."""
        program = NODE_PROGRAM.format(name=node, folder=self.folder)
        namespaces = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
        self._start(node, [*namespaces, "bash", "-c", program])

    def power_off(self, name: str) -> None:
        """Ends a node with all that runs on it, or a daemon, without notice."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def orphans(self, node: str, seconds: float = 10) -> dict[int, str]:
        """Commands that still run on a node after so long, and belong to no job: their parent has gone before them."""
        deadline = time.monotonic() + seconds
        while True:
            (first,) = children(self.processes[node].pid)
            found = {pid: command for pid in children(first) if not is_daemon(command := command_of(pid))}
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.1)

    def _start(self, name: str, command: Sequence[str]) -> None:
        with (self.folder / "log" / f"{name}.out").open("ab") as output:
            self.processes[name] = self.starter.submit(
                subprocess.Popen,
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
            ).result()

    def _until(self, what: str, holds: Callable[[], bool], timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while not holds():
            ended = [name for name, process in self.processes.items() if process.poll() is not None]
            assert not ended and time.monotonic() < deadline, f"not so: {what}; ended: {ended}; see {self.folder}/log"
            time.sleep(0.02)

    def _write_configuration(self) -> None:
        folder = self.folder
        for name in ("munge", "state", "log", "devices", "bin", *(f"spool/{node}" for node in self.nodes)):
            (folder / name).mkdir(parents=True)
        (folder / "munge" / "key").write_bytes(os.urandom(128))
        (folder / "munge" / "key").chmod(0o600)
        for index in range(8):  # slurmd wants character devices, each under its own name
            (folder / "devices" / f"gpu{index}").symlink_to("/dev/null")
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/devices/gpu[0-7]\n")
        names = "".join(f"127.0.0.1 {node}\n" for node in self.nodes)
        (folder / "hosts").write_text(Path("/etc/hosts").read_text() + names)
        shutil.copy(HERE / "sacct", folder / "bin" / "sacct")
        ports = free_ports(1 + len(self.nodes))
        text = CONFIGURATION.format(
            folder=folder,
            ports=ports,
            first_job=random.randrange(1, 10000),
            plugins=f"PlugStackConfig={folder}/plugstack.conf" if self._build_pyxis() else "",
            nodes="\n".join(
                NODE.format(name=node, port=port) for node, port in zip(self.nodes, ports[1:], strict=True)
            ),
        )
        (folder / "slurm.conf").write_text(text)

    def _build_pyxis(self) -> bool:
        """Compiles the stand-in for Pyxis where that is possible."""
        compiler, library = shutil.which("cc"), self.folder / "pyxis.so"
        if compiler is None or not Path("/usr/include/slurm/spank.h").is_file():
            return False
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, HERE / "pyxis.c"], check=True)
        (self.folder / "plugstack.conf").write_text(f"required {library}\n")
        return True

    @property
    def has_containers(self) -> bool:
        """True where the cluster takes Pyxis' options."""
        return (self.folder / "plugstack.conf").exists()


def children(pid: int) -> list[int]:
    """The live processes that a process has started, or inherited."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def is_daemon(command: str) -> bool:
    """True for Slurm's own on a node, and for a process that has just ended."""
    return not command or Path(command.split()[0]).name.rstrip(":") in ("slurmd", "slurmstepd")


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
