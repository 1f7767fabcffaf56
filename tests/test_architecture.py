"""Holds the directions of the design: which layer imports which, who owns a heavy package, how long things get."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "megatron_rl"
LAYERS = (
    ("__init__", "chunks", "config", "estimate", "types"),
    ("device",),
    ("runtime",),
    ("algorithms", "data", "rewards"),
    ("actor", "rollout"),
    ("refit",),
    ("checkpoint", "evaluation", "export", "report"),
    ("__main__", "commands", "train"),
)
LAYER = {module: layer for layer, modules in enumerate(LAYERS) for module in modules}
# A heavy package -> the files that may import it, as path prefixes.
OWNERS = {
    "megatron": ("device/", "runtime/parallel.py", "actor/", "refit/", "checkpoint.py"),
    "vllm": ("device/", "rollout/", "refit/"),
    "transformer_engine": ("device/", "actor/precision.py"),
    "recipes": ("commands/choose.py", "commands/data.py", "commands/layouts.py", "commands/suites.py"),
    "nemo_run": (),
    "mlflow": ("report/trackers/mlflow.py",),
    "tensorboard": ("report/trackers/tensorboard.py",),
    "wandb": ("report/trackers/wandb.py",),
}
# Modules of one layer that must not know each other, and modules that only some files may import, as path prefixes.
STRANGERS = {("actor", "rollout"), ("rollout", "actor")}
ONLY_FOR = {
    # The plots of an evaluation are drawn by the hand that draws a run's.
    "report": (
        "report/",
        "commands/estimate.py",
        "commands/readers.py",
        "commands/start.py",
        "commands/theory.py",
        "evaluation/plots.py",
        "train.py",
    )
}
# What a domain knows stands behind walls: a folder of rewards/ -> what of rewards/ it may import.
WALLS = {
    "instructions": ("instructions",),
    "mathematics": ("mathematics", "response"),
    "puzzles": ("puzzles",),
    "sandbox": ("sandbox",),
    "science": ("science", "mathematics"),
}
NO_TORCH = ("__init__.py", "__main__.py", "config/", "estimate/", "runtime/ranks.py", "runtime/preempt.py")
NO_TORCH += tuple(
    f"commands/{name}.py"
    for name in ("__init__", "campaign", "check", "choose", "cli", "errors", "layouts", "readers", "settings")
)
NO_TORCH += ("commands/evaluate.py", "commands/evaluation.py", "commands/suites.py")
NO_TORCH += ("evaluation/__init__.py", "evaluation/plan.py")
NO_TORCH += ("actor/__init__.py", "actor/slices.py", "refit/__init__.py", "refit/plan.py")
RECIPE_IMPORTS = tuple(f"{PACKAGE}.config.{name}" for name in ("records", "publication", "mixture"))
RECIPE_IMPORTS += ("recipes.domains", "recipes.models")
SUITE_IMPORTS = (f"{PACKAGE}.config.suites", "recipes.suites")
VAGUE = ("utils", "common", "helpers", "util", "helper", "misc")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything imported anywhere in a file, those under TYPE_CHECKING and in functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_level(tree: ast.Module) -> ast.Module:
    """The statements that an import of the file runs, save those under TYPE_CHECKING and in functions."""
    kept = [
        node
        for node in tree.body
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not (isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"))
    ]
    return ast.Module(body=kept, type_ignores=[])


def size_violations(path: Path, name: str, tree: ast.AST) -> Iterator[str]:
    """Files and functions that ask to be split, and names that say nothing."""
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    if num_lines > MAX_FILE_LINES:
        yield f"{name}: {num_lines} lines, at most {MAX_FILE_LINES}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{name}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"
    if set(name.removesuffix(".py").split("/")) & set(VAGUE):
        yield f"{name}: name it by what it is about"


def layer_violations(name: str, tree: ast.Module) -> Iterator[str]:
    """Imports of one file of the package that go up, to a stranger, or to a heavy package it does not own."""
    here = name.split("/")[0].removesuffix(".py")
    if here not in LAYER:
        yield f"{name}: {here} is in no layer; give it one here and in the design"
        return
    for imported in sorted(set(imports(tree))):
        top, *rest = imported.split(".")
        if top in OWNERS and not name.startswith(OWNERS[top]):
            yield f"{name}: imports {top}, which only {', '.join(OWNERS[top]) or 'slurm/launch.py'} may"
        room = name.split("/")[1] if name.count("/") > 1 else ""
        if here == "rewards" and room in WALLS and rest[:1] == ["rewards"] and len(rest) > 1:
            if rest[1] not in WALLS[room]:
                yield f"{name}: {room} imports {rest[1]}, and may only {', '.join(WALLS[room])} of rewards/"
            continue
        if top != PACKAGE or not rest or rest[0] not in LAYER or rest[0] == here:
            continue
        there = rest[0]
        if LAYER[there] > LAYER[here]:
            yield f"{name}: layer {LAYER[here]} imports {there} of layer {LAYER[there]}"
        if (here, there) in STRANGERS:
            yield f"{name}: {here} imports {there}"
        if there in ONLY_FOR and not name.startswith(ONLY_FOR[there]):
            yield f"{name}: imports {there}, which only {', '.join(ONLY_FOR[there])} may"
    if name.startswith(NO_TORCH) and "torch" in {imported.split(".")[0] for imported in imports(module_level(tree))}:
        yield f"{name}: imports torch when it is imported"


def recipe_violations(name: str, tree: ast.Module) -> Iterator[str]:
    """A recipe is data: it imports records and facts and nothing else; a variant one recipe, a suite suites too."""
    is_variant, bases = name.startswith("variants/") and not name.endswith("__init__.py"), []
    known = SUITE_IMPORTS if name.startswith("suites/") else RECIPE_IMPORTS
    for node in ast.walk(tree):
        module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        if is_variant and module.startswith("recipes.") and module.count(".") == 1 and module not in RECIPE_IMPORTS:
            bases.append(module)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            allowed = (*known, "dataclasses") if is_variant else known
            if module not in allowed:
                yield f"{name}: imports more than {', '.join(allowed)}"
    if is_variant and len(bases) != 1:
        yield f"{name}: a variant replaces fields of exactly one published recipe, not of {bases}"


def violations(root: Path) -> list[str]:
    """What is against the design in the tree at `root`, one line each."""
    found: list[str] = []
    for folder in (PACKAGE, "recipes", "slurm"):
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root / folder).as_posix()
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found += size_violations(path, f"{folder}/{name}", tree)
            if folder == PACKAGE:
                found += layer_violations(name, tree)
            elif folder == "recipes":
                found += recipe_violations(name, tree)
            elif "nemo_run" in {imported.split(".")[0] for imported in imports(tree)} and name != "launch.py":
                found.append(f"slurm/{name}: imports nemo_run, which only slurm/launch.py may")
    return list(dict.fromkeys(found))


def test_the_tree_is_as_designed() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("megatron_rl/config/records.py", "from megatron_rl import train\n", "layer 0 imports train of layer 7"),
        ("megatron_rl/config/run.py", "def f():\n    import megatron_rl.runtime.seeds\n", "layer 0 imports runtime"),
        ("megatron_rl/rewards/score.py", "from megatron_rl.actor.actor import Actor\n", "layer 3 imports actor"),
        ("megatron_rl/actor/pack.py", "import megatron_rl.rollout.engine\n", "actor imports rollout"),
        (
            "megatron_rl/rewards/mathematics/units.py",
            "from megatron_rl.rewards.science.measures import agree\n",
            "mathematics imports science",
        ),
        ("megatron_rl/rollout/engine.py", "from megatron_rl.actor import actor\n", "rollout imports actor"),
        ("megatron_rl/checkpoint.py", "from megatron_rl import report\n", "imports report, which only"),
        (
            "megatron_rl/commands/cli.py",
            "def f():\n    import megatron_rl.report.report\n",
            "imports report, which only",
        ),
        ("megatron_rl/manager.py", "", "manager is in no layer"),
        ("megatron_rl/algorithms/kl.py", "from megatron.core import parallel_state\n", "imports megatron, which only"),
        ("megatron_rl/train.py", "import vllm\n", "imports vllm, which only"),
        ("megatron_rl/actor/model.py", "import transformer_engine.pytorch\n", "imports transformer_engine, which only"),
        ("megatron_rl/train.py", "import nemo_run\n", "imports nemo_run"),
        ("megatron_rl/train.py", "from recipes import prorl_v2\n", "imports recipes"),
        ("megatron_rl/commands/cli.py", "import torch\n", "imports torch when it is imported"),
        (
            "megatron_rl/commands/choose.py",
            "try:\n    from torch import Tensor\nexcept ImportError: ...\n",
            "imports torch when",
        ),
        ("megatron_rl/actor/utils.py", "", "name it by what it is about"),
        ("megatron_rl/rollout/common/x.py", "", "name it by what it is about"),
        ("megatron_rl/train.py", "x = 1\n" * 401, "401 lines, at most 400"),
        ("megatron_rl/train.py", "def f():\n" + "    x = 1\n" * 60, "f has 61 lines, at most 60"),
        ("recipes/a.py", "from recipes.b import RECIPE\n", "imports more than megatron_rl.config.records"),
        ("recipes/a.py", "import math\n", "imports more than megatron_rl.config.records"),
        ("recipes/suites/a.py", "from recipes.b import RECIPE\n", "imports more than megatron_rl.config.suites"),
        ("recipes/a.py", "from dataclasses import replace\n", "imports more than megatron_rl.config.records"),
        (
            "recipes/variants/a.py",
            "from megatron_rl.config.records import Kl\n",
            "exactly one published recipe, not of []",
        ),
        (
            "recipes/variants/a.py",
            "from recipes.b import RECIPE\nfrom recipes.c import RECIPE as C\n",
            "exactly one published recipe, not of ['recipes.b', 'recipes.c']",
        ),
        (
            "recipes/variants/a.py",
            "from recipes.b import RECIPE\nfrom recipes.variants.c import RECIPE as C\n",
            f"imports more than {', '.join(RECIPE_IMPORTS)}, dataclasses",
        ),
        (
            "recipes/variants/a.py",
            "import recipes.b\nfrom recipes.b import RECIPE\n",
            "imports more than megatron_rl.config.records",
        ),
        ("slurm/other.py", "import nemo_run as run\n", "only slurm/launch.py may"),
    ],
)
def test_a_planted_violation_is_found(path: str, text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    (found,) = violations(tmp_path)
    assert expected in found


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("megatron_rl/train.py", "from megatron_rl import report, actor, rollout\nimport torch\n"),
        ("megatron_rl/commands/choose.py", "import recipes\ndef f():\n    import torch\n"),
        (
            "megatron_rl/config/records.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch import Tensor\n",
        ),
        ("megatron_rl/refit/phase.py", "import megatron, vllm\nfrom megatron_rl import actor, rollout\n"),
        ("megatron_rl/actor/precision.py", "import transformer_engine\nfrom megatron_rl.actor import model\n"),
        (
            "recipes/a.py",
            "from megatron_rl.config.records import Recipe\nfrom megatron_rl.config.publication import Publication\n",
        ),
        ("recipes/variants/a_b.py", "from dataclasses import replace\nfrom recipes.a import RECIPE\n"),
        ("recipes/variants/__init__.py", ""),
        ("recipes/suites/a.py", "from megatron_rl.config.suites import Suite\nfrom recipes.suites import math\n"),
        ("slurm/launch.py", "import nemo_run\n"),
    ],
)
def test_what_the_design_allows_is_allowed(path: str, text: str, tmp_path: Path) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    assert violations(tmp_path) == []


def test_the_modules_without_torch_pull_it_in_through_none_of_their_own() -> None:
    files = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / PACKAGE).rglob("*.py"))]
    files = [name for name in files if name.removeprefix(f"{PACKAGE}/").startswith(NO_TORCH)]
    modules = [name.removesuffix(".py").replace("/", ".") for name in files if "/__" not in name]
    modules.append(f"{PACKAGE}.data.items")
    program = f"import sys, {', '.join(modules)}\nprint([m for m in ('torch', 'vllm', 'megatron') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr
