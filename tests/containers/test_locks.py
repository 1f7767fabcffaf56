"""What pyproject.toml asks for is what the locks hold, and what the images install is the lock."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.test_architecture import imports

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = ("megatron_rl", "recipes", "slurm")
# A lock -> the Python that it is made for, and the extras that it holds beside what every environment needs.
LOCKS = {"cpu.lock": ("3.11", ("cpu", "track", "dev")), "cuda.lock": ("3.12", ("cuda", "track", "slurm", "dev"))}


def pinned(text: str) -> dict[str, str]:
    """Canonical name -> version of a lock's text. Raises ValueError for a line that pins nothing."""
    found = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, separator, version = line.partition("==")
        if not separator:
            raise ValueError(f"{line}: is not NAME==VERSION")
        found[canonicalize_name(name)] = version
    return found


def unmet(requirements: list[str], lock: dict[str, str], python: str) -> list[str]:
    """The requirements that a lock does not meet on a Python, as they are written."""
    missed = []
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"python_version": python}):
            continue
        version = lock.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(Version(version), prereleases=True):
            missed.append(text)
    return missed


def asked(extras: tuple[str, ...]) -> list[str]:
    listed: dict[str, list[str]] = PROJECT["optional-dependencies"]
    return [*PROJECT["dependencies"], *(text for extra in extras for text in listed[extra])]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_all_that_the_project_asks_for(name: str) -> None:
    python, extras = LOCKS[name]
    assert unmet(asked(extras), pinned((ROOT / "containers" / name).read_text()), python) == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_that_lacks_any_one_of_them_is_found_out(name: str) -> None:
    python, extras = LOCKS[name]
    lock = pinned((ROOT / "containers" / name).read_text())
    for text in asked(extras):
        requirement = canonicalize_name(Requirement(text).name)
        rest = {package: version for package, version in lock.items() if package != requirement}
        assert text in unmet(asked(extras), rest, python)


def test_a_version_that_is_not_asked_for_is_found_out() -> None:
    assert unmet(["torch==2.11.0; python_version >= '3.12'"], {"torch": "2.12.0"}, "3.12") != []
    assert unmet(["torch==2.11.0; python_version >= '3.12'"], {"torch": "2.12.0"}, "3.11") == []


@pytest.mark.parametrize("name", [*LOCKS, "nemo_run.lock"])
def test_a_lock_names_every_package_once_in_order(name: str) -> None:
    lines = [line for line in (ROOT / "containers" / name).read_text().splitlines() if line and line[0] != "#"]
    names = [line.partition("==")[0] for line in lines]
    assert len({canonicalize_name(package) for package in names}) == len(names)


def test_what_the_package_imports_is_what_the_project_asks_for() -> None:
    of_module = metadata.packages_distributions()
    declared = {canonicalize_name(Requirement(text).name) for text in asked(("cpu", "cuda", "track", "slurm", "dev"))}
    for path in [*(ROOT / "megatron_rl").rglob("*.py"), *(ROOT / "slurm").rglob("*.py")]:
        for module in {name.partition(".")[0] for name in imports(ast.parse(path.read_text()))}:
            if module in sys.stdlib_module_names or module in OWN or module not in of_module:
                continue  # what this environment lacks, such as nemo_run, is declared by the tests of its own file
            owners = {canonicalize_name(name) for name in of_module[module]}
            assert owners & declared, f"{path.name} imports {module} of {owners}, which pyproject.toml does not name"


def test_both_locks_pin_the_same_verifiers() -> None:
    cpu, cuda = (pinned((ROOT / "containers" / name).read_text()) for name in LOCKS)
    for package in ("langdetect", "math-verify", "reasoning-gym", "latex2sympy2-extended", "sympy"):
        assert cpu[package] == cuda[package], package


def test_the_cuda_image_installs_the_lock_and_nothing_else() -> None:
    image = (ROOT / "Dockerfile").read_text().partition(" AS cuda\n")[2]
    installs = re.findall(r"pip install ([^&;]*?)(?:\n\n|\n#|; \\|\\\n    && python)", image + "\n\n", re.DOTALL)
    assert len(installs) == 4  # the lock, Transformer Engine's extension from the lock, apex if asked for, this project
    assert all("--no-deps" in install for install in installs)
    assert "grep '^transformer-engine-torch==' /opt/cuda.lock" in image


def test_the_image_for_apptainer_is_made_of_the_cuda_image() -> None:
    definition = (ROOT / "containers" / "megatron-rl.def").read_text()
    path = re.search(r"^ENV PATH=(\S+?):", (ROOT / "Dockerfile").read_text().partition(" AS cuda\n")[2], re.MULTILINE)
    assert path is not None
    assert f"export PATH={path[1]}:$PATH" in definition
    assert "pip install" not in definition


def test_every_test_that_starts_an_engine_is_left_out_of_compat() -> None:
    """cuda.lock's vLLM has no kernels for a CPU: there, such a test can only fail."""
    script = (ROOT / "containers" / "compat.sh").read_text()
    named = re.findall(r"tests/[\w/.]+", script.partition("engines=(")[2].partition(")")[0])
    assert named and all((ROOT / name).exists() for name in named)
    starting = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"import [^\n]*\bEngine\b", path.read_text()) and "mark.e2e" not in path.read_text()
    ]
    assert len(starting) > 4
    assert [path for path in starting if not path.startswith(tuple(named))] == []


README = (ROOT / "containers" / "README.md").read_text().replace("\\\n", " ")


def test_the_environment_without_containers_is_made_as_the_image_s_is() -> None:
    image = (ROOT / "Dockerfile").read_text().partition(" AS cuda\n")[2].replace("\\\n", " ")
    for name, value in re.findall(r"^ARG (\w+)=(.*)$", image, re.MULTILINE):
        image = image.replace(f'"${name}"', value)
    image = image.replace("/opt/cuda.lock", "containers/cuda.lock").replace("/opt/venv", "$VIRTUAL_ENV")
    image = " ".join(image.replace("CUDNN_HOME=$", 'CUDNN_HOME="$').split())
    begin, *lines = README[README.index("python3.12 -m venv .venv-cuda") :].partition("\n```")[0].splitlines()
    assert begin.endswith("source .venv-cuda/bin/activate") and len(lines) == 4
    for line in lines:
        words = " ".join(line.removeprefix("export ").split())
        assert words.removesuffix('"') in image, f"the image does otherwise than {line}"


def test_the_line_that_makes_nemo_run_lock_anew_has_its_pins() -> None:
    (line,) = re.findall(r"`pip install (nemo-run==[^`]+)`", README)
    lock = pinned((ROOT / "containers" / "nemo_run.lock").read_text())
    assert unmet(line.split(), lock, "3.11") == []


@pytest.mark.e2e
@pytest.mark.parametrize(("lock", "folder"), [("cpu.lock", "."), ("nemo_run.lock", "nemo_run")])
def test_what_an_environment_freezes_to_is_its_lock(lock: str, folder: str) -> None:
    binaries = Path(sys.prefix) / folder / "bin"
    if not (binaries / "pip").exists():
        pytest.skip(f"{binaries.parent} is not there; run containers/setup_nemo_run.sh")
    found = re.findall(r"(?:/tmp/lock/bin/)?(pip freeze --all [^\n`]+)", README)
    assert len(found) == 2 and len(set(found)) == 1
    done = subprocess.run(["bash", "-c", f"{binaries}/{found[0]}"], capture_output=True, text=True)
    assert pinned(done.stdout) == pinned((ROOT / "containers" / lock).read_text()), done.stderr


@pytest.mark.e2e
def test_an_environment_lacks_the_four_that_its_lock_leaves_out_and_nothing_else() -> None:
    (left_out,) = re.findall(r"^/tmp/lock/bin/pip uninstall -y (.*)$", README, re.MULTILINE)
    done = subprocess.run([Path(sys.prefix) / "bin" / "pip", "check"], capture_output=True, text=True)
    complaints = re.findall(r"^\S+ \S+ requires (\S+), which is not installed\.$", done.stdout, re.MULTILINE)
    assert set(complaints) == set(left_out.split()) and len(complaints) == len(done.stdout.splitlines()), done.stdout


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git says what it ignores")
def test_what_the_pages_have_one_make_in_a_checkout_is_no_change_of_it_and_no_part_of_the_image() -> None:
    """Else slurm/launch.py refuses to submit, or puts gigabytes into git with --allow-dirty."""
    environments = [line.split()[-1] for line in re.findall(r"python3\.12 -m venv \S+", README)]
    images = re.findall(r"megatron-rl\.s\w+", README)
    assert environments and {"megatron-rl.sqsh", "megatron-rl.sif"} <= set(images)
    made = {*environments, *images, ".venv", ".venv-compat", "runs", "data", "slurm/site.env"}
    asked = ["git", "check-ignore", *(name if "." in name[1:] else f"{name}/x" for name in made)]
    ignored = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert {name.removesuffix("/x") for name in ignored} == made
    patterns = (ROOT / ".dockerignore").read_text().split()
    assert [name for name in made if not any(fnmatchcase(name, pattern) for pattern in patterns)] == []
