"""What slurm/launch.py submits is what was reviewed, and what cannot work is refused before it is submitted."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from megatron_rl.commands.cli import app
from megatron_rl.config.mounts import on_host
from slurm import launch, sites
from slurm.sites import Site, check_site
from slurm.snapshot import REPOSITORY
from tests.folders import write_finished_run

GOLDEN = Path(__file__).parent / "golden"
SITE = {"SBATCH_ACCOUNT": "research", "SBATCH_PARTITION": "batch", "CONTAINER_IMAGE": "", "CONTAINER_MOUNTS": ""}
Done = subprocess.CompletedProcess[str]
CONTAINER = {"CONTAINER_IMAGE": "registry#megatron-rl:1", "CONTAINER_MOUNTS": "data:/data:ro"}


def python_with_nemo_run() -> str:
    """The interpreter that has NeMo-Run, which is kept apart from the engines."""
    here = str(REPOSITORY / ".venv" / "nemo_run" / "bin" / "python")
    found = os.environ.get("NEMO_RUN_PYTHON") or (sys.executable if importlib.util.find_spec("nemo_run") else here)
    if not Path(found).exists():
        pytest.skip("NeMo-Run is not installed; run containers/setup_nemo_run.sh")
    return found


def launched(folder: Path, *words: str, python: str = sys.executable, **variables: str) -> Done:
    """slurm/launch.py with these words, run to its end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    return subprocess.run(
        [python, REPOSITORY / "slurm" / "launch.py", *words],
        env=environment | SITE | {"NEMORUN_HOME": str(folder / "home"), "COLUMNS": "200"} | variables,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


def rendered(output: str, folder: Path) -> str:
    """The scripts of a dry run without what differs from one machine and run to the next."""
    scripts = output[output.index("# ----") :]
    scripts = re.sub(r"(experiments/\w+/\w+)_\d{19}", r"\1_ID", scripts)
    return scripts.replace(str(folder), "FOLDER").replace(str(REPOSITORY), "REPOSITORY").rstrip("\n") + "\n"


@pytest.mark.parametrize(
    ("name", "words", "variables"),
    [
        ("prorl_v2", ("--set", "run.data_folder=data"), {}),
        ("prorl_v2_container", ("--set", "run.data_folder=/data", "--set", "run.seed=2"), CONTAINER),
        ("prorl_v2_chain", ("--jobs", "2", "--set", "run.data_folder=data"), {}),
        ("prorl_v2_evaluate", ("--evaluate", "prorl", "--set", "run.data_folder=data"), {}),
    ],
)
def test_the_submitted_script_is_the_reviewed_one(
    name: str, words: tuple[str, ...], variables: dict[str, str], tmp_path: Path
) -> None:
    """`REGENERATE=1` writes the golden files anew, which is a commit of its own."""
    shutil.copytree(REPOSITORY / "tests" / "data" / "five_domains", tmp_path / "data")
    done = launched(
        tmp_path, str(REPOSITORY / "recipes" / "prorl_v2.py"), "--scale", "h100x32", "--dry-run", *words,
        python=python_with_nemo_run(), **variables,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("REGENERATE"):
        golden.write_text(rendered(done.stdout, tmp_path))
    assert rendered(done.stdout, tmp_path) == golden.read_text()
    assert not list((tmp_path / "home").rglob("*_sbatch.sh")), "a dry run leaves nothing"


def test_help_needs_no_nemo_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", REPOSITORY / "slurm" / "launch.py", "--help"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "--dry-run" in done.stdout
    assert not re.search(r"\| +(nemo_run|torch)$", done.stderr, re.MULTILINE)


@pytest.mark.skipif(importlib.util.find_spec("nemo_run") is not None, reason="NeMo-Run is installed")
def test_without_nemo_run_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    done = launched(tmp_path, "prorl_v2", "--scale", "cpu", "--dry-run")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: package nemo-run is not installed; pip install -e '.[slurm]', best in an environment of its own"
    ]


@pytest.mark.parametrize(
    ("words", "variables", "expected"),
    [
        (("--scale", "h100"), {}, "scale 'h100': there is none; did you mean 'h100x8'?"),
        (("--scale", "cpu", "--jobs", "0"), {}, "--jobs 0: must be at least 1"),
        (("--scale", "cpu"), {"SBATCH_ACCOUNT": ""}, "SBATCH_ACCOUNT: is not set; copy slurm/site.env.example"),
        (("--scale", "cpu"), {"CONTAINER_IMAGE": "/none.sqsh"}, "CONTAINER_IMAGE=/none.sqsh: there is no such file"),
        (("--scale", "cpu"), {"CONTAINER_IMAGE": "a.sif"}, "for Apptainer use sbatch slurm/RECIPE.sh"),
        (("--scale", "cpu"), CONTAINER | {"CONTAINER_MOUNTS": "/none:/x"}, "/none does not exist on this machine"),
        (("--scale", "h100x8"), CONTAINER | {"CONTAINER_MOUNTS": ""}, "run.data_folder: the job is given none"),
        (
            ("--scale", "cpu", "--directory", "lr:1"),
            CONTAINER | {"CONTAINER_MOUNTS": ""},
            "/lr:1: a container mounts no",
        ),
        (("--scale", "cpu", "--set", "run.data_folder=none"), {}, "there is no such folder"),
        (
            ("--scale", "cpu", "--set", "run.data_folder=/data/none"),
            CONTAINER | {"CONTAINER_MOUNTS": "/etc:/data"},
            "/etc/none",
        ),
        (("--scale", "cpu", "--set", "sampling.temperatur=1"), {}, "did you mean 'sampling.temperature'?"),
        (("--scale", "cpu", "--model", "none/such"), {}, "--model none/such: is no folder, and not in the Hugging"),
        (("--scale", "cpu", "--parent", "none/such"), {}, "parent none/such: is no run's directory"),
        (("--scale", "cpu", "--domains", "maths"), {}, "--domains maths: prorl_v2 has math, "),
        (("--scale", "cpu", "--domains", "math", "--set", "domains=code"), {}, "is given twice"),
    ],
)
def test_what_can_not_work_is_refused_in_one_line(
    words: tuple[str, ...], variables: dict[str, str], expected: str, tmp_path: Path
) -> None:
    done = launched(tmp_path, "prorl_v2", *words, **variables)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and expected in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "required: --scale"),
        (("--scale", "cpu", "--jobs", "two"), "--jobs: two: must be a whole number"),
        (("--scal",), "--scale"),
    ],
)
def test_wrong_words_end_in_one_line(words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        launch.parse(["prorl_v2", *words])
    said = capsys.readouterr().err
    assert (ending.value.code, said.count("\n")) == (2, 1)
    assert said.startswith("error: ") and expected in said


def test_a_path_in_the_container_is_looked_for_on_the_host() -> None:
    site = Site(account="a", partition="p", image="i", mounts=("/big/data:/data:ro", "/home/me", "/x/:/dat/"))
    assert on_host(Path("/data/math"), site.mounts) == Path("/big/data/math")
    assert on_host(Path("/data"), site.mounts) == Path("/big/data")
    assert on_host(Path("/home/me/x"), site.mounts) == Path("/home/me/x")
    assert on_host(Path("/dat/a"), site.mounts) == Path("/x/a")
    assert on_host(Path("/datas"), site.mounts) is None
    check_site(Site(account="a", partition="p", image="", mounts=("/none:/x",)))  # unused without an image


def test_the_environment_wins_over_the_site_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites, "SITE_FILE", REPOSITORY / "slurm" / "site.env.example")
    for name in SITE:
        monkeypatch.delenv(name, raising=False)
    assert sites.read_site().account == "my_account"
    assert sites.read_site().mounts == ("/shared/data:/data:ro", "/shared/huggingface:/huggingface")
    monkeypatch.setenv("SBATCH_ACCOUNT", "other")
    monkeypatch.setenv("CONTAINER_IMAGE", "")
    monkeypatch.setenv("CONTAINER_MOUNTS", "")
    assert sites.read_site() == Site(account="other", partition="batch", image="", mounts=())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of its own with this launcher in it."""
    folder = tmp_path / "checkout"
    for name in ("slurm", "megatron_rl", "recipes", "demo"):
        shutil.copytree(
            REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("site.env", "__pycache__", "*.safetensors")
        )
    (folder / ".gitignore").write_text("__pycache__/\nruns/\n")
    for words in (
        ["init", "-q"],
        ["add", "--all"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


SNAPSHOT = "from slurm.snapshot import snapshot; print(*snapshot({}), sep='\\n')"


def snapshot_of(checkout: Path, allows_changes: bool) -> Done:
    return subprocess.run(
        [sys.executable, "-c", SNAPSHOT.format(allows_changes)],
        cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)}, capture_output=True, text=True,
    )  # fmt: skip


def test_a_dirty_checkout_is_refused_or_kept_with_its_changes(checkout: Path) -> None:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=checkout, capture_output=True, text=True, check=True).stdout

    assert snapshot_of(checkout, False).stdout.split() == [git("rev-parse", "HEAD").strip()]
    (checkout / "recipes" / "mine.py").write_text("RECIPE = 1\n")
    (checkout / "recipes" / "scales.py").write_text("SCALES = {}\n")
    refused = snapshot_of(checkout, False)
    assert "UserError: the checkout has 2 uncommitted changes" in refused.stderr
    before = git("status", "--porcelain"), git("stash", "list"), git("rev-parse", "HEAD")
    tree, _, changes = snapshot_of(checkout, True).stdout.partition("\n")
    assert git("show", f"{tree}:recipes/mine.py") == "RECIPE = 1\n"
    assert git("show", f"{tree}:recipes/scales.py") == "SCALES = {}\n"
    assert "+RECIPE = 1" in changes and "+SCALES = {}" in changes
    assert (git("status", "--porcelain"), git("stash", "list"), git("rev-parse", "HEAD")) == before


class Recorded:
    """Stands for NeMo-Run where it is not installed: keeps what a chain is made of."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda **fields: SimpleNamespace(kind=name, **fields)

    def add(self, task: Any, **fields: Any) -> str:
        self.jobs.append({"words": task.args, **fields})
        return str(fields["name"])


def test_an_evaluation_is_a_step_of_the_chain_after_the_last_training(tmp_path: Path) -> None:
    chain: Any = Recorded()
    words = ["prorl_v2", "--scale", "cpu", "--jobs", "2", "--evaluate", "mini", "--directory", str(tmp_path / "run")]
    words += ["--set", "scale.threads_per_process=2", "--set", "num_steps=3"]
    request = launch.parse(words)
    site = Site(account="a", partition="p", image="", mounts=())
    run, _ = launch.plan(request, site)
    launch.add_jobs(chain, chain, run, request, site, "tree")
    first, second, evaluate = chain.jobs
    assert (second["dependencies"], evaluate["dependencies"]) == (["train_1"], ["train_2"])
    assert evaluate["words"][:4] == ["evaluate", str(tmp_path / "run"), "--suite", "mini"]
    assert evaluate["words"][4:] == ["--scale", "cpu", "--set", "scale.threads_per_process=2"], "the job's own layout"
    asked = evaluate["executor"]
    assert asked.dependency_type == "afterok" and asked.env_vars["REQUEUE"] == "yes"
    results = tmp_path / "run" / "evaluation"
    assert asked.setup_lines.endswith(f"\nrm -f {results}/DONE\nbegin_attempt {results}"), "as done as it was before"
    assert asked.additional_parameters == {"kill_on_invalid_dep": "yes"}
    assert asked.ntasks_per_node == first["executor"].ntasks_per_node


def test_an_export_is_a_step_of_the_chain_that_its_command_understands(tmp_path: Path) -> None:
    chain: Any = Recorded()
    request = launch.parse(["prorl_v2", "--scale", "cpu", "--export", "--directory", str(tmp_path / "run")])
    site = Site(account="a", partition="p", image="", mounts=())
    run, _ = launch.plan(request, site)
    launch.add_jobs(chain, chain, run, request, site, "tree")
    train, export = chain.jobs
    assert export["words"] == ["export", str(run.directory), "--to", str(run.directory / "model")]
    assert "is no run's directory" in CliRunner().invoke(app, export["words"]).stderr, "nothing is wrong with the words"
    for name in ("nodes", "ntasks_per_node", "gpus_per_node"):  # it starts the run's ranks
        assert getattr(export["executor"], name) == getattr(train["executor"], name)
    assert (export["dependencies"], export["executor"].dependency_type) == (["train"], "afterok")
    assert export["executor"].additional_parameters == {"kill_on_invalid_dep": "yes"}


def test_another_model_and_other_domains_reach_the_job_and_the_run_has_a_directory_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    request = launch.parse(["prorl_v2", "--scale", "cpu", "--model", "demo/model", "--domains", "math=2,logic=1"])
    run, settings = launch.plan(request, Site(account="a", partition="p", image="", mounts=()))
    assert settings == (f"model={REPOSITORY / 'demo' / 'model'}", "domains=math=2,logic=1")
    assert run.is_variant and run.directory == REPOSITORY / "runs" / "prorl_v2_variant-cpu"


@pytest.mark.parametrize("container", ["", "registry#megatron-rl:1"])
def test_the_run_to_go_on_from_reaches_the_job_which_finds_it(
    container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = write_finished_run(tmp_path / "older", "prorl_v2 2.1.0")
    monkeypatch.chdir(tmp_path)
    data = f"run.data_folder={REPOSITORY / 'demo' / 'data'}"
    site = Site(account="a", partition="p", image=container, mounts=(f"{tmp_path}:/runs", "/:/host:ro"))
    for given, word in (("older", str(older)), ("/runs/older", "/runs/older")):
        if given.startswith("/runs") and not container:
            continue
        request = launch.parse(["brorl", "--scale", "cpu", "--parent", given, "--set", data])
        run, _ = launch.plan(request, site)
        assert run.parent is not None and run.parent.release == "prorl_v2 2.1.0"
        here, in_job = launch.older_run(request, site)
        assert (here, in_job) == (older, word)
        chain: Any = Recorded()
        request = dataclasses.replace(request, parent=in_job)
        launch.add_jobs(chain, chain, run, request, site, "tree")
        (train,) = chain.jobs
        assert train["words"][-2:] == ["--parent", word]
        mounts = [f"{older}:{older}:ro"] if container and given == "older" else []
        assert train["executor"].container_mounts[1:] == ([*site.mounts, *mounts] if container else [])


def test_a_suite_that_is_none_is_refused_before_anything_is_submitted(tmp_path: Path) -> None:
    done = launched(tmp_path, "prorl_v2", "--scale", "cpu", "--evaluate", "mimi")
    assert done.returncode == 2 and "suite 'mimi': there is none; did you mean 'mini'?" in done.stderr
