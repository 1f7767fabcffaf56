"""What only a site knows: account, partition, image and mounts, from slurm/site.env and the environment."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from megatron_rl.config.checks import require

SITE_FILE = Path(__file__).resolve().parent / "site.env"


@dataclass(frozen=True, kw_only=True)
class Site:
    """What slurm/site.env and the environment say of this cluster."""

    account: str
    partition: str
    image: str  # empty to run on the host's own Python
    mounts: tuple[str, ...]  # SOURCE:TARGET[:ro]


def read_site() -> Site:
    """The site's values: those of slurm/site.env, where the environment does not give them."""
    variables = dict(os.environ)
    if SITE_FILE.is_file():
        done = subprocess.run(
            ["bash", "-c", 'source "$1" >&2 && env -0', "bash", str(SITE_FILE)], stdout=subprocess.PIPE, text=True
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"{SITE_FILE}: bash cannot read it, exit code {done.returncode}; correct what it says above"
            )
        variables = dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)
    return Site(
        account=variables.get("SBATCH_ACCOUNT", ""),
        partition=variables.get("SBATCH_PARTITION", ""),
        image=variables.get("CONTAINER_IMAGE", ""),
        mounts=tuple(filter(None, variables.get("CONTAINER_MOUNTS", "").split(","))),
    )


def check_site(site: Site) -> None:
    """Raises UserError where the site's values cannot be right."""
    for name, value in (("SBATCH_ACCOUNT", site.account), ("SBATCH_PARTITION", site.partition)):
        require(bool(value), f"{name}: is not set; copy slurm/site.env.example to slurm/site.env and edit it")
    if not site.image:
        return
    require(
        not site.image.endswith(".sif"),
        f"CONTAINER_IMAGE={site.image}: NeMo-Run runs containers by pyxis; for Apptainer use sbatch slurm/RECIPE.sh",
    )
    is_file = site.image.startswith(("/", ".")) or site.image.endswith(".sqsh")
    require(
        not is_file or Path(site.image).is_file(),
        f"CONTAINER_IMAGE={site.image}: there is no such file; containers/README.md says how to make one",
    )
    for mount in site.mounts:
        source = mount.partition(":")[0]
        require(Path(source).exists(), f"CONTAINER_MOUNTS: {source} does not exist on this machine; correct {mount}")
