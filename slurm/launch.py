"""Launches a recipe through NeMo-Run: as Slurm jobs at a scale, or on this machine.

    python slurm/launch.py recipes/prorl_v2.py --scale h100x32 --set run.data_folder=/data/prorl --dry-run
    python slurm/launch.py recipes/prorl_v2.py --scale h100x32 --set run.data_folder=/data/prorl --jobs 6
    python slurm/launch.py recipes/prorl_v2.py --scale cpu --local

The jobs run the commit that is checked out, from a copy, and follow the same rules as those of slurm/*.sh, which are in
slurm/job.sh. With NeMo-Run installed, `nemorun megatron_rl prorl_v2 scale=h100x32` does the same.
"""

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, only the script's folder is there

from megatron_rl.commands.choose import build_run, recipe_files  # noqa: E402
from megatron_rl.commands.evaluate import RESULTS  # noqa: E402
from megatron_rl.commands.settings import VARIED  # noqa: E402
from megatron_rl.commands.suites import find_suite  # noqa: E402
from megatron_rl.config.checks import UserError, one_line, require  # noqa: E402
from megatron_rl.config.lineage import model_folder_of  # noqa: E402
from megatron_rl.config.mounts import on_host
from megatron_rl.config.run import Run, batch_algebra  # noqa: E402
from megatron_rl.config.variant import SUFFIX  # noqa: E402
from megatron_rl.runtime.ranks import GRACE_SECONDS  # noqa: E402
from slurm.request import Request, parse  # noqa: E402
from slurm.sites import Site, check_site, read_site  # noqa: E402
from slurm.snapshot import REPOSITORY, git, snapshot  # noqa: E402

HOURS_WITHOUT_LIMIT = 1.0  # of a job whose scale names no time limit
NOTICE_SECONDS = max(GRACE_SECONDS.values())
JOB_SCRIPT = shlex.quote(str(REPOSITORY / "slurm" / "job.sh"))
INSTALL = "package nemo-run is not installed; pip install -e '.[slurm]', best in an environment of its own"


def main(words: Sequence[str] | None = None) -> int:
    """Launches what a command line asks for; returns the exit code."""
    return main_of(parse(words))


def main_of(request: Request) -> int:
    """Launches a request; returns the exit code, with every error as one line."""
    try:
        return launch(request)
    except (UserError, RuntimeError, OSError) as error:
        print(one_line(f"error: {error}"), file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except ModuleNotFoundError as error:
        if error.name != "nemo_run":
            raise
        print(f"error: {INSTALL}", file=sys.stderr)
        return 1


def launch(request: Request) -> int:
    """Checks a request and carries it out; returns the exit code. Raises UserError and RuntimeError."""
    for suite in request.suites:
        find_suite(suite)
    require(request.jobs >= 1, f"--jobs {request.jobs}: must be at least 1")
    site = read_site()
    run, settings = plan(request, site)
    if not request.is_local:
        check_site(site)
    tree, changes = snapshot(request.allows_changes or request.is_dry or request.is_local)
    print(batch_algebra(run))
    print(cost(run, request))
    import nemo_run

    _, older = older_run(request, site)
    request = dataclasses.replace(request, settings=settings, recipe=in_repository(request.recipe), parent=older)
    os.chdir(REPOSITORY)  # NeMo-Run asks git about the working directory; all paths are given from the root by now
    if request.is_local:
        return run_here(nemo_run, run, request)
    with nemo_run.Experiment(run.published.name) as trial:
        add_jobs(nemo_run, trial, run, request, site, tree)
        scripts = render(trial)
    if request.is_dry:
        for name, text in scripts.items():
            print(f"\n# ---- {name}\n{text}")
        return 0
    for text in scripts.values():
        ask_slurm(text)
    keep_record(run, request, tree, changes)
    with nemo_run.Experiment(run.published.name) as experiment:
        add_jobs(nemo_run, experiment, run, request, site, tree)
        experiment.run(detach=True)
    print(f"run directory {run.directory}")
    return 0


def plan(request: Request, site: Site) -> tuple[Run, tuple[str, ...]]:
    """The Run of a request as this host sees it, and its settings as the job will. Raises UserError.

    A job starts in another folder: without a container its folders are given from the root, within one as they are.
    """
    in_container = bool(site.image) and not request.is_local
    here, in_job = list[str](), list[str]()
    for setting in request.settings:
        name, _, value = setting.partition("=")
        is_folder = name.strip() in ("run.data_folder", "run.model_folder") or (
            name.strip() == "model" and (Path(value).is_absolute() or Path(value).expanduser().is_dir())
        )
        if not is_folder:
            here.append(setting)
            in_job.append(setting)
        elif in_container:
            there = on_host(Path(value), site.mounts)
            here += [] if there is None else [f"{name}={there}"]  # what the image holds is not seen from here
            in_job.append(setting)
        else:
            here.append(f"{name}={Path(value).expanduser().resolve()}")
            in_job.append(here[-1])
    is_variant = any(setting.partition("=")[0].strip() in VARIED for setting in request.settings)
    name = f"{Path(request.recipe).stem}{SUFFIX * is_variant}-{request.scale}"
    directory = request.directory or Path("runs") / name
    directory = directory.expanduser().resolve()
    for path in (str(directory), request.parent):
        require(
            not in_container or not set(path) & set(",:"),
            f"directory {path}: a container mounts no path with a comma or a colon; name another",
        )
    needs_files = not request.is_dry and not in_container
    older, _ = older_run(request, site)
    run = build_run(request.recipe, request.scale, here, directory, needs_files=needs_files, parent=older)
    has_data = run.scale.miniature is not None or any(word.startswith("run.data_folder") for word in in_job)
    if not has_data:
        require(
            not in_container,
            "run.data_folder: the job is given none; name the one in the container with --set run.data_folder=FOLDER",
        )
        in_job.append(f"run.data_folder={run.data_folder.resolve()}")
    return run, tuple(in_job)


def older_run(request: Request, site: Site) -> tuple[Path | None, str]:
    """Where this host has the run to go on from, and what the job calls it; a published policy goes by its name."""
    if not request.parent:
        return None, ""
    path = Path(request.parent).expanduser()
    there = on_host(path, site.mounts) if site.image and not request.is_local else None
    if there is not None or not path.is_dir():
        return there or path, request.parent
    return path.resolve(), str(path.resolve())


def in_repository(recipe: str) -> str:
    """A recipe's name as it is, its file from the repository's root. Raises UserError where it lies elsewhere."""
    if not recipe.endswith(".py"):
        return recipe
    path = Path(recipe).resolve()
    require(
        path.is_relative_to(REPOSITORY),
        f"recipe '{recipe}': lies outside the repository, of which the job has a copy; move it into {REPOSITORY}",
    )
    return str(path.relative_to(REPOSITORY))


def cost(run: Run, request: Request) -> str:
    """One line: what the jobs may use at most."""
    if request.is_local:
        return f"{run.scale.num_devices} processes on this machine"
    hours = run.scale.time_limit_hours or HOURS_WITHOUT_LIMIT
    devices = f"{run.scale.num_devices} {'GPUs' if run.scale.device == 'cuda' else 'CPU processes'}"
    total = f"{run.scale.num_devices * hours * request.jobs:g} device-hours at most"
    if request.jobs == 1:
        return f"cost: {devices} x {hours:g} h = {total}, and as much again each time the job is requeued"
    return f"cost: {devices} x {hours:g} h x {request.jobs} jobs = {total}"


def add_jobs(nemo_run: Any, experiment: Any, run: Run, request: Request, site: Site, tree: str) -> None:
    """The chain: training jobs one after the other, then export and evaluation where they were asked for."""
    before: list[str] = []
    for number in range(1, request.jobs + 1):
        name = "train" if request.jobs == 1 else f"train_{number}"
        runs_job = executor(nemo_run, run, request, site, tree)
        before = [experiment.add(command(nemo_run, run, request), executor=runs_job, name=name, dependencies=before)]
    if request.exports:
        last = executor(nemo_run, run, request, site, tree)  # the layout that the run's own ranks have
        last.signal = None
        last.setup_lines = f"source {JOB_SCRIPT}"
        only_after_success(last)
        words = ["export", str(run.directory), "--to", str(model_folder_of(run.directory))]
        experiment.add(script(nemo_run, *words), executor=last, name="export", dependencies=before)
    if request.suites:
        # A folder with attempts of its own: requeued, resumed and given up by the rules of training.
        last = executor(nemo_run, run, request, site, tree)
        results = shlex.quote(str(run.directory / RESULTS))
        # Done once may be other suites, or a shorter run: what was asked is known by its samples.
        last.setup_lines = f"source {JOB_SCRIPT}\nrm -f {results}/DONE\nbegin_attempt {results}"
        last.env_vars = {**last.env_vars, "REQUEUE": "yes"}
        only_after_success(last)
        asked = [word for suite in request.suites for word in ("--suite", suite)]
        of_scale = [word for one in request.settings if one.startswith("scale.") for word in ("--set", one)]
        words = ["evaluate", str(run.directory), *asked, "--scale", request.scale, *of_scale]
        experiment.add(script(nemo_run, *words), executor=last, name="evaluate", dependencies=before)


def only_after_success(executor: Any) -> None:
    """Has a job wait for those before it to end well, and go where one does not, instead of waiting for ever."""
    executor.dependency_type = "afterok"
    executor.additional_parameters = {"kill_on_invalid_dep": "yes"}


def command(nemo_run: Any, run: Run, request: Request) -> Any:
    """The training command."""
    words = [word for setting in request.settings for word in ("--set", setting)]
    words += ["--parent", request.parent] if request.parent else []
    return script(
        nemo_run, "train", request.recipe, "--scale", request.scale, "--directory", str(run.directory), *words
    )


def script(nemo_run: Any, *words: str) -> Any:
    """`python -m megatron_rl words` as NeMo-Run holds it, which puts it into a shell script as it is."""
    return nemo_run.Script(path="megatron_rl", entrypoint="python", m=True, args=[shlex.quote(word) for word in words])


def executor(nemo_run: Any, run: Run, request: Request, site: Site, tree: str) -> Any:
    """Slurm as the scale and the site describe it."""
    scale, directory = run.scale, run.directory
    minutes = round(60 * (scale.time_limit_hours or HOURS_WITHOUT_LIMIT))
    # 85 must not become the signal that the slower tasks are killed with; a task may use all cores of its node.
    srun_arguments = ["--kill-on-bad-exit=0", "--cpu-bind=none"]
    if site.image:
        srun_arguments += ["--container-writable", "--no-container-mount-home"]
    mounts = [f"{directory}:{directory}", *site.mounts]
    if Path(request.parent).is_absolute() and on_host(Path(request.parent), site.mounts) is None:
        mounts.append(f"{request.parent}:{request.parent}:ro")
    return nemo_run.SlurmExecutor(
        account=site.account,
        partition=site.partition,
        job_name_prefix=f"{run.published.name}.",
        nodes=scale.num_nodes,
        ntasks_per_node=scale.devices_per_node,
        gpus_per_node=scale.devices_per_node if scale.device == "cuda" else None,
        exclusive=True,
        mem="0",
        time=f"{minutes // 60:02}:{minutes % 60:02}:00",
        signal=f"USR1@{NOTICE_SECONDS:.0f}",
        container_image=site.image or None,
        container_mounts=mounts if site.image else [],
        srun_args=srun_arguments,
        env_vars={"REQUEUE": "yes" if request.jobs == 1 else "no"},  # in a chain the next job goes on
        setup_lines=f"source {JOB_SCRIPT}\nbegin_attempt {shlex.quote(str(directory))}",
        dependency_type="afterany",
        packager=nemo_run.GitArchivePackager(basepath=str(REPOSITORY), ref=tree, include_submodules=False),
        tunnel=nemo_run.LocalTunnel(job_dir=""),  # another folder would stay empty: NeMo-Run does not copy to it
        retries=0,  # job.sh decides
    )


def render(experiment: Any) -> dict[str, str]:
    """The batch script of each job, accepted by bash; the experiment's folder is removed. Raises RuntimeError."""
    experiment.dryrun(log=False, delete_exp_dir=False)
    folder = Path(experiment._exp_dir)
    scripts = {path.name: path.read_text() for path in sorted(folder.glob("*_sbatch.sh"))}
    assert scripts, f"NeMo-Run left no script in {folder}"
    for name, text in scripts.items():
        checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
        if checked.returncode != 0:
            raise RuntimeError(f"{name}: bash rejects what NeMo-Run made of it: {checked.stderr.strip()}")
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.rmdir()
    return scripts


def ask_slurm(text: str) -> None:
    """Raises RuntimeError where Slurm would not take a batch script."""
    if shutil.which("sbatch") is None:
        raise RuntimeError("sbatch: is not on this machine; launch from a login node, or with --dry-run or --local")
    asked = subprocess.run(["sbatch", "--test-only"], input=text, capture_output=True, text=True)
    if asked.returncode != 0:
        raise RuntimeError(f"Slurm would refuse the job: {' '.join(asked.stderr.split())}")


def run_here(nemo_run: Any, run: Run, request: Request) -> int:
    """Trains on this machine, in this checkout, until the end."""
    with nemo_run.Experiment(run.published.name) as experiment:
        local = nemo_run.LocalExecutor(packager=nemo_run.Packager(), env_vars={"PYTHONPATH": str(REPOSITORY)})
        experiment.add(command(nemo_run, run, request), executor=local, name="train", tail_logs=True)
        if request.is_dry:
            experiment.dryrun()
            return 0
        experiment.run(sequential=True)
        status = experiment.status(return_dict=True)["train"]["status"]
    return 0 if str(status) == "SUCCEEDED" else 1


def keep_record(run: Run, request: Request, tree: str, changes: str) -> None:
    """Notes in the run directory what was submitted, with the changes that no commit holds."""
    run.directory.mkdir(parents=True, exist_ok=True)
    record = {
        "submitted": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git("rev-parse", "HEAD"),
        "tree": tree,
        "recipe": request.recipe,
        "scale": request.scale,
        "settings": request.settings,
        "jobs": request.jobs,
    }
    with (run.directory / "submissions.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    if changes:
        (run.directory / f"changes_{tree[:12]}.diff").write_text(changes + "\n", encoding="utf-8")


def register_commands(nemo_run: Any) -> None:
    """Gives the command `nemorun` one command per recipe, as in `nemorun megatron_rl prorl_v2 scale=h100x32`."""

    def command_for(recipe: str) -> Any:
        def start(
            ctx: nemo_run.cli.RunContext,
            scale: str,
            directory: str = "",
            parent: str = "",
            settings: list[str] = [],  # noqa: B006  NeMo-Run wants the type's own default
            jobs: int = 1,
            allows_changes: bool = False,
        ) -> None:
            code = main_of(
                Request(
                    recipe=recipe,
                    scale=scale,
                    settings=tuple(settings),
                    directory=Path(directory) if directory else None,
                    parent=parent,
                    jobs=jobs,
                    is_dry=ctx.dryrun,
                    allows_changes=allows_changes,
                )
            )
            sys.exit(code)

        start.__name__ = recipe
        start.__doc__ = f"Train by {recipe} on Slurm; scale=NAME, and the options of slurm/launch.py."
        return start

    for name in recipe_files():
        nemo_run.cli.entrypoint(command_for(name), name=name, namespace="megatron_rl", type="experiment")


if __name__ == "__main__":
    sys.exit(main())
if "nemo_run" in sys.modules:  # imported by `nemorun`, which loads the modules of its entry points
    register_commands(sys.modules["nemo_run"])
