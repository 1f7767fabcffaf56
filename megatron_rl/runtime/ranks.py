"""How ranks come to be: found in the environment of Slurm or torchrun, or started here, one process each."""

from __future__ import annotations

import gc
import importlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from megatron_rl.config.checks import UserError
from megatron_rl.config.records import Scale
from megatron_rl.runtime.log import get_logger
from megatron_rl.runtime.orphans import die_with_parent
from megatron_rl.runtime.preempt import INTERRUPTED, OF_CTRL_C

# What a rank may take to end by itself after a signal, before it is killed: it finishes what is worth finishing, and
# saves. SIGUSR1 is the notice that a limit is near; Ctrl-C can be pressed again; after SIGTERM others kill soon.
GRACE_SECONDS = {signal.SIGINT: 900.0, signal.SIGTERM: 30.0, signal.SIGUSR1: 900.0}
# The ranks that outlive a failed one mostly end by themselves, at their next collective.
GRACE_AFTER_FAILURE_SECONDS = 10.0
POLL_SECONDS = 0.05
MAX_PORT = 65535
RENDEZVOUS_PORTS = (20000, 30000)  # below those that a system hands out by itself
COMMAND = (sys.executable, "-m", "megatron_rl")

DEVICE_VARIABLES: Mapping[str, Mapping[str, str]] = {
    # Compiling small functions takes 17 s of a start on a CPU; torch reads this once, when it is imported.
    "cpu": {"TORCH_COMPILE_DISABLE": "1"},
    "cuda": {},
}
# The module that imports what every rank does: on a machine whose ranks are started together the first process imports
# it once and forks them. None on a GPU: vLLM looks at the card when it is imported, and CUDA does not survive a fork.
IMPORTED_BEFORE_FORK: Mapping[str, str | None] = {"cpu": "megatron_rl.device.imports_on_cpu", "cuda": None}
# Read when vLLM is imported: its engine lives in this process, says nothing and reports nothing.
ENGINE_VARIABLES = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1"}
# Packs differ in length, which cuts fixed segments of memory into pieces. vLLM turns this off around its own.
ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"


@dataclass(frozen=True, kw_only=True)
class World:
    """This process's place among processes that somebody else started."""

    rank: int
    local_rank: int
    size: int
    address: str  # host of rank 0
    port: int

    @property
    def variables(self) -> dict[str, str]:
        """The place as torchrun writes it into the environment, which is what torch and vLLM read."""
        return {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.local_rank),
            "WORLD_SIZE": str(self.size),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


# What makes a GPU add up in a fixed order, beside Megatron's own `deterministic_mode`: Transformer Engine's attention,
# NCCL's reductions, cuBLAS. vLLM's VLLM_BATCH_INVARIANT is not among them: it would replace the actor's products too,
# which live in the same process.
DETERMINISTIC_VARIABLES = {
    "NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0",
    "NCCL_ALGO": "Ring",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


# Scales of blocks in fp32 on both sides, which an H100 takes. By themselves Transformer Engine and vLLM's DeepGEMM
# round them to powers of two, and vLLM rounds weights once more for it.
BLOCK_SCALE_VARIABLES = {"NVTE_FP8_BLOCK_SCALING_FP32_SCALES": "1", "VLLM_USE_DEEP_GEMM_E8M0": "0"}


def process_environment(scale: Scale, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment variables of a rank; they count from before torch is imported."""
    # Megatron's overlap of communication with tensor and with context parallelism rests on one queue.
    shares = scale.tensor_parallel > 1 or scale.context_parallel > 1
    queues = {"CUDA_DEVICE_MAX_CONNECTIONS": "1"} if scale.device == "cuda" and shares else {}
    return {
        "OMP_NUM_THREADS": str(scale.threads_per_process),
        "OMP_WAIT_POLICY": "passive",  # a thread that spins takes the core its neighbour needs
        "PYTHONHASHSEED": "0",  # vLLM's prefix cache hashes with it
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # else it tells of every NUMA binding
        "TOKENIZERS_PARALLELISM": "false",  # else it warns when verifiers fork
        **ENGINE_VARIABLES,
        "VLLM_LOGGING_LEVEL": environment.get("VLLM_LOGGING_LEVEL", "ERROR"),
        **DEVICE_VARIABLES[scale.device],
        **queues,
        **({ALLOCATOR: environment.get(ALLOCATOR, "expandable_segments:True")} if scale.device == "cuda" else {}),
        **(BLOCK_SCALE_VARIABLES if scale.fp8_actor == "blockwise" or scale.fp8_rollout else {}),
        **(DETERMINISTIC_VARIABLES if scale.deterministic and scale.device == "cuda" else {}),
    }


def world_from_environment(environment: Mapping[str, str] = os.environ) -> World | None:
    """The world that torchrun or srun started this process in; None when it was started plainly.

    A batch script and a shell inside a Slurm job are no world: only a step of several tasks is.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        missing = [name for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
        if missing:
            raise UserError(
                f"the environment has RANK and WORLD_SIZE but not {', '.join(missing)}; unset or complete it"
            )
        size = _number(environment, "WORLD_SIZE", 1)
        return World(
            rank=_number(environment, "RANK", 0, size - 1),
            local_rank=_number(environment, "LOCAL_RANK", 0, size - 1),
            size=size,
            address=environment["MASTER_ADDR"],
            port=_number(environment, "MASTER_PORT", 1, MAX_PORT),
        )
    if "SLURM_PROCID" in environment and _number(environment, "SLURM_STEP_NUM_TASKS", 1, default=1) > 1:
        nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
        if not nodes:
            raise UserError("the environment has SLURM_PROCID but not SLURM_JOB_NODELIST; unset or complete it")
        job, step = _number(environment, "SLURM_JOB_ID", 0), _number(environment, "SLURM_STEP_ID", 0, default=0)
        restarts = _number(environment, "SLURM_RESTART_COUNT", 0, default=0)
        size = _number(environment, "SLURM_STEP_NUM_TASKS", 1)
        _check_reachable(environment, _number(environment, "SLURM_STEP_NUM_NODES", 1, default=1))
        first, end = RENDEZVOUS_PORTS
        # Another one after a requeue: the last one may still be taken.
        port = first + (job + 101 * step + 1009 * restarts) % (end - first)
        return World(
            rank=_number(environment, "SLURM_PROCID", 0, size - 1),
            local_rank=_number(environment, "SLURM_LOCALID", 0, size - 1),
            size=size,
            address=environment.get("MASTER_ADDR") or first_host(nodes),
            port=_number(environment, "MASTER_PORT", 1, MAX_PORT, default=port),
        )
    for one, other in (("RANK", "WORLD_SIZE"), ("WORLD_SIZE", "RANK")):
        if one in environment and "SLURM_PROCID" not in environment:
            raise UserError(f"the environment has {one} but not {other}; unset or complete it")
    return None


def _check_reachable(environment: Mapping[str, str], num_nodes: int) -> None:
    """Raises UserError where ranks of several nodes are told to meet by what leads to no other machine."""
    for name, remedy in (
        ("MASTER_ADDR", "unset it, and they meet at the job's first node"),
        ("NCCL_SOCKET_IFNAME", "give the interface of the nodes' addresses"),
        ("GLOO_SOCKET_IFNAME", "give the interface of the nodes' addresses"),
    ):
        value = environment.get(name, "")
        if num_nodes > 1 and (value in ("localhost", "ip6-localhost", "::1", "lo") or value.startswith("127.")):
            raise UserError(
                f"environment variable {name}={value!r}: leads to no other machine, and the job has {num_nodes} nodes; "
                f"{remedy}"
            )


def _number(
    environment: Mapping[str, str], name: str, lowest: int, highest: int | None = None, default: int | None = None
) -> int:
    """A variable as a whole number; the default where it is not there, or empty."""
    text = environment.get(name, "").strip()
    if not text and default is not None:
        return default
    rule = f"at least {lowest}" if highest is None else f"from {lowest} to {highest}"
    if not (text.isascii() and text.isdigit()) or int(text) < lowest or (highest is not None and int(text) > highest):
        raise UserError(
            f"environment variable {name}={text!r}: must be a whole number {rule}; set it so, or unset it and start "
            "with srun, torchrun or one plain process"
        )
    return int(text)


def free_port() -> int:
    """A port that nothing listens on, outside the range from which a system takes ports for its own connections.

    Of those, any may be gone by the time that rank 0 has imported torch and listens.
    """
    while True:
        port = random.SystemRandom().randrange(*RENDEZVOUS_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def first_host(nodes: str) -> str:
    """The first host of a Slurm node list.

    >>> first_host("node[003-005,9],gpu1"), first_host("gpu1,gpu2"), first_host("rack[2-3]n[01-04]")
    ('node003', 'gpu1', 'rack2n01')
    """
    name = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", name[0] if name else "")


class Process(Protocol):
    """What is needed of a rank: a Popen is one, and so is a Forked."""

    pid: int
    returncode: int | None

    def wait(self) -> int: ...


class Forked:
    """A copy of this process that does `work` and ends with what that returns."""

    def __init__(self, work: Callable[[], int]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                code = work()
            except BaseException:  # noqa: BLE001 - nothing of the parent's may go on here; its traceback is shown
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def wait(self) -> int:
        """Waits for its end, and reaps it."""
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def import_ahead(module: str, variables: Mapping[str, str]) -> bool:
    """Imports what ranks need, with their environment; True where this process may be forked then.

    That is where it has one thread: a lock that another one held would stay closed in the copies for ever.
    """
    os.environ.update(variables)
    gc.disable()  # a third of the time of these imports would go into looking through what they bring
    importlib.import_module(module)
    gc.freeze()  # nor may it touch, and so copy, the pages that are shared from now on
    return len(list(Path("/proc/self/task").iterdir())) == 1


def launch_ranks(
    num_ranks: int,
    arguments: Sequence[str],
    variables: Mapping[str, str],
    module: str | None = None,
    work: Callable[[World], int] | None = None,
) -> int:
    """Runs `megatron-rl arguments` as `num_ranks` processes of this machine and returns the exit code of them all.

    With a `module` that is imported here, once, and each rank is a copy of this process that does `work` instead, where
    a copy can be made. 0 when all ended well, else the code of the first that did not: 128 + n for one ended by
    signal n, 130 after Ctrl-C. SIGTERM and SIGUSR1 are passed on once, Ctrl-C as OF_CTRL_C; what is asked twice is done
    at once. A rank that outlives its grace period is killed, as are all when this function ends or this process dies.
    Each rank leads a process group, which is killed with it. Not covered: a process that a rank put into a session of
    its own.
    """
    port = free_port()
    received: list[int] = []

    def remember(signal_number: int, frame: FrameType | None) -> None:
        received.append(signal_number)

    before = {number: signal.signal(number, remember) for number in GRACE_SECONDS}
    ranks: list[Process] = []
    try:
        can_fork = module is not None and import_ahead(module, variables)
        if received:
            return 128 + received[0]
        for rank in range(num_ranks):
            world = World(rank=rank, local_rank=rank, size=num_ranks, address="127.0.0.1", port=port)
            environment, dies = {**variables, **world.variables}, partial(die_with_parent, os.getpid())
            if work is not None and can_fork:
                ranks.append(Forked(partial(_work_as, world, environment, before, dies, work)))
            else:
                ranks.append(
                    subprocess.Popen(
                        [*COMMAND, *arguments],
                        env={**os.environ, **environment},
                        start_new_session=True,  # the terminal's Ctrl-C reaches this process, which passes it on
                        preexec_fn=dies,
                    )
                )
        return _wait(ranks, received)
    finally:
        for process in ranks:
            _kill_group(process)
        for number, handler in before.items():
            signal.signal(number, handler)


def _work_as(
    world: World,
    variables: Mapping[str, str],
    handlers: Mapping[signal.Signals, Any],
    dies: Callable[[], None],
    work: Callable[[World], int],
) -> int:
    """Does `work` as a rank whose session, parent's death, signals and environment are as after a Popen."""
    os.setsid()
    dies()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    os.environ.update(variables)
    return work(world)


def _wait(ranks: Sequence[Process], received: Sequence[int]) -> int:
    """Passes signals on until all ranks have ended or their time is up; returns the exit code of them all."""
    num_passed, deadline, first_failure = 0, float("inf"), 0
    running = list(ranks)
    while running:
        for number in received[num_passed:]:
            num_passed += 1
            if number in received[: num_passed - 1]:
                deadline = time.monotonic()  # asked twice: at once
                continue
            deadline = time.monotonic() + GRACE_SECONDS[signal.Signals(number)]
            if number == signal.SIGINT:
                get_logger().warning("%s", INTERRUPTED)
            for process in running:
                # Popen.send_signal would reap one that has just ended.
                os.kill(process.pid, OF_CTRL_C if number == signal.SIGINT else number)
        for process in [process for process in running if _has_ended(process)]:
            running.remove(process)
            code = _kill_group(process)
            if code != 0 and first_failure == 0:
                first_failure = code if code > 0 else 128 - code
                deadline = min(deadline, time.monotonic() + GRACE_AFTER_FAILURE_SECONDS)
                if code < 0 and not received:
                    name = signal.Signals(-code).name
                    get_logger().error("rank %d was ended by %s (out of memory, perhaps)", ranks.index(process), name)
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_SECONDS)
    if signal.SIGINT in received:
        return 128 + signal.SIGINT
    # What was left was killed: that is no success, whatever the others said.
    return first_failure or (128 + signal.SIGKILL if running else 0)


def _has_ended(process: Process) -> bool:
    """True once the process has ended; it is not reaped, so that its group's number stays its own."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(process: Process) -> int:
    """Kills what is left of a rank and of the processes it started, reaps it, and returns its code."""
    if process.returncode is not None:
        return process.returncode
    os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
