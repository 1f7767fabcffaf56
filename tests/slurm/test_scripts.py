"""The batch scripts ask for what the published scales are, and hold no number of a recipe."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from megatron_rl.launch import GRACE_SECONDS
from recipes.scales import SCALES

ROOT = Path(__file__).parents[2]
SCRIPTS = {"prorl_v1": "h100x32", "prorl_v2": "h100x32", "brorl": "h100x64"}


def script(name: str) -> str:
    return (ROOT / "slurm" / f"{name}.sh").read_text()


def requests(name: str) -> dict[str, str]:
    """The #SBATCH lines of a script."""
    return {key: value for key, _, value in re.findall(r"^#SBATCH --([\w-]+)(=(\S+))?$", script(name), re.MULTILINE)}


@pytest.mark.parametrize(("name", "scale_name"), SCRIPTS.items())
def test_a_script_asks_for_the_hardware_of_its_published_scale(name: str, scale_name: str) -> None:
    scale, asked = SCALES[scale_name], requests(name)
    assert f'"${{SCALE:={scale_name}}}"' in script(name)
    assert asked["nodes"] == str(scale.num_nodes)
    assert asked["ntasks-per-node"] == asked["gpus-per-node"] == str(scale.devices_per_node)
    assert scale.time_limit_hours is not None and asked["time"] == f"{scale.time_limit_hours:02.0f}:00:00"
    assert asked["job-name"] == name
    assert {"exclusive", "requeue"} <= asked.keys() and asked["open-mode"] == "append"


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_notice_leaves_the_time_a_rank_may_take_to_stop(name: str) -> None:
    import signal

    lead = re.fullmatch(r"B:USR1@(\d+)", requests(name)["signal"])
    assert lead is not None and int(lead[1]) == GRACE_SECONDS[signal.SIGUSR1]
    grace = re.search(r"GRACE_SECONDS:-(\d+)", (ROOT / "slurm" / "job.sh").read_text())
    assert grace is not None and int(grace[1]) < int(lead[1])


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_trains_by_its_recipe_and_sets_nothing(name: str) -> None:
    command = f'run_job "$RUN_DIR" python -m megatron_rl train recipes/{name}.py --scale "$SCALE" '
    assert script(name).splitlines()[-1] == command + '--directory "$RUN_DIR" "$@"'
    assert "--set" not in "".join(line for line in script(name).splitlines() if not line.startswith("#"))


def test_the_scripts_differ_in_name_and_size_only() -> None:
    def same(name: str) -> list[str]:
        text = script(name).replace(name, "NAME").replace(SCRIPTS[name], "SCALE")
        return [line for line in text.splitlines() if not line.startswith(("# ", "#SBATCH --nodes"))]

    assert same("prorl_v1") == same("prorl_v2") == same("brorl")


@pytest.mark.parametrize("path", sorted((ROOT / "slurm").glob("*.sh")) + sorted((ROOT / "containers").glob("*.sh")))
def test_a_script_is_clean_shell(path: Path) -> None:
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed; apt-get install shellcheck")
    found = subprocess.run(
        ["shellcheck", "--shell=bash", "--exclude=SC1091", path], capture_output=True, text=True, cwd=ROOT
    )
    assert found.stdout == ""
