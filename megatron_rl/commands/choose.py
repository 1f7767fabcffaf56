"""From the words of a command line to a Run: finds recipe and scale, applies --set, checks the folders."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pkgutil
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import recipes
from megatron_rl.commands.modules import run_module
from megatron_rl.commands.settings import RUN_FIELDS, VARIED, change, parse, path_of, require_known, sort_settings
from megatron_rl.config.checks import UserError, check_scale, require
from megatron_rl.config.fit import fitted
from megatron_rl.config.identity import identity
from megatron_rl.config.lineage import PUBLISHED, Parent, no_run, parent_of, read_parent
from megatron_rl.config.mounts import seen_here
from megatron_rl.config.pretrained import read_model
from megatron_rl.config.publication import Publication
from megatron_rl.config.published import Revision, cached_snapshot, revision_of
from megatron_rl.config.recipe_checks import check_parent
from megatron_rl.config.records import Model, Recipe, Scale, canonical_json, differences
from megatron_rl.config.run import Run
from megatron_rl.config.tokenizer import check_tokenizer
from megatron_rl.config.typed import check_types
from megatron_rl.config.variant import domains_of, shortened, variant_of
from megatron_rl.config.weights import check_tensors, digest_of_weights
from megatron_rl.config.words import lack
from megatron_rl.data.files import missing_parts
from megatron_rl.runtime import rundir
from megatron_rl.runtime.contents import RUN, check_contents

NO_RECIPES = ("domains", "models", "scales")  # modules of recipes/ that recipes are made of, or placed by
REPOSITORY = Path(recipes.__file__).resolve().parent.parent
OWN_REWARD_SECONDS = 5.0  # that a reward of one's own has to say whether an item is one of its own
MOUNTS_UNKNOWN = ", after `source slurm/site.env`, which says what a container's paths are on this machine"


def build_run(
    recipe_name: str,
    scale_name: str,
    settings: Sequence[str],
    directory: Path | None,
    *,
    needs_files: bool,
    parent: Path | None = None,
    lacking: list[str] | None = None,
) -> Run:
    """The Run that a command line asks for, with everything checked that can be checked without torch.

    Settings are `name=value`: `scale.x` changes the scale, `run.x` a field of the Run, any other name the recipe as
    the scale fitted it, so that a setting also lifts a cap. `parent` is the run, or its exported policy, that this one
    starts from, or the name of a published one. Without `needs_files` a scale without a miniature is accepted on a
    machine that has neither its model nor its data, and a recipe that continues another without the parent: what a
    training would say to that is added to `lacking`. Paths are then a job's, in its container. Raises UserError.
    """
    asked_for, scale = find_recipe(recipe_name), find_scale(scale_name)
    of_scale, of_run, of_recipe = sort_settings(settings)
    scale = change(scale, of_scale, "scale.")
    check_scale(scale)
    is_shown, lacking = lacking is not None, None if needs_files else lacking if lacking is not None else []
    fields = {name: parse(f"run.{name}", RUN_FIELDS[name], text) for name, text in of_run.items()}
    if not needs_files:
        fields = {name: seen_here(value) if isinstance(value, Path) else value for name, value in fields.items()}
        parent = seen_here(parent) if parent is not None else None
    older, model_folder = find_parent(parent) if parent is not None else (None, fields.pop("model_folder", None))
    require("model_folder" not in fields, "--set run.model_folder: the policy of --parent is trained; give one of them")
    varied = {name: of_recipe.pop(name) for name in VARIED if name in of_recipe}
    if "model" in varied:
        require(older is None, "--model: the policy of --parent is trained; give one of them")
        require(model_folder is None, "--set run.model_folder: --model gives the folder; give one of them")
        model_folder = find_model(varied["model"], lacking)
    published = varied_recipe(asked_for, varied, model_folder)
    scale = shortened(scale, published) if varied else scale
    with noted(lacking if older is None else None):
        check_parent(asked_for, older.release if older is not None else None)
    model, model_folder = choose_model(published, scale, model_folder, lacking)
    if older is not None and scale.miniature is not None:  # not its folder: that may move while the run goes on
        model = dataclasses.replace(model, name=f"{older.release} after step {older.step}")
    recipe = change(fitted(published, model, scale), of_recipe)
    data_folder = choose_data(published, scale, fields.pop("data_folder", None), lacking, is_shown=is_shown)
    check_directory(directory := directory or Path("runs") / f"{recipe.name}-{scale.name}")
    run = Run(
        recipe=recipe,
        published=asked_for,
        scale=scale,
        directory=directory,
        model_folder=model_folder,
        data_folder=data_folder,
        data_digest=digest_of_data(data_folder),
        identity=identity(model_folder, data_folder, model.vocab_size),
        asked_for=recipe_name,
        modified=tuple(settings),
        parent=older,
        **fields,
    )
    check_resume(run)
    return run


def check_directory(directory: Path) -> None:
    """Raises UserError where a file stands in the way of a run's directory, or it holds something else than a run."""
    for path in (directory, *directory.parents):
        require(path.is_dir() or not path.exists(), f"directory {directory}: {path} is a file; choose another")
    check_contents(directory, RUN, "--directory")


def rebuild_run(directory: Path) -> Run:
    """The Run that lives in a directory, as its run.json tells. Raises UserError."""
    path = directory / "run.json"
    require(path.is_file(), no_run(directory))
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))["run"]
        asked_for, scale, settings = facts["asked_for"], facts["scale"]["name"], facts["modified"]
        "".join((asked_for, scale, *settings))  # all are texts
        older = parent_of(facts["parent"]) if facts["parent"] else None
        parent = None
        if older is not None:
            parent = Path(older.published_name if older.is_published else facts["model_folder"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: cannot be read; start the run once more, which writes it anew") from None
    return build_run(asked_for, scale, settings, directory, needs_files=True, parent=parent)


def find_recipe(name: str) -> Recipe:
    """The RECIPE of a module of `recipes`, or of a file when `name` ends with .py. Raises UserError."""
    recipe = getattr(_module(name), "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise UserError(f"recipe '{name}': defines no RECIPE = Recipe(...)")
    try:
        check_types(recipe, Recipe, "")
    except UserError as error:
        raise UserError(f"recipe '{name}': {error}") from None
    return recipe


def find_page(name: str) -> Publication | None:
    """What the sources say about the recipe of that name; None where its module does not tell."""
    page = getattr(_module(name), "PAGE", None)
    return page if isinstance(page, Publication) else None


def find_parent(given: Path) -> tuple[Parent, Path]:
    """The run that `given` is the directory or the exported policy of, or the published policy of that name.

    With the folder that has the policy. Raises UserError.
    """
    asked = revision_of(str(given))
    releases = checkpoints_of(asked.repository)
    if not releases:
        return read_parent(given)
    recipe = find_recipe(releases[asked_branch(asked, f"parent {given}", releases)])
    folder = cached_snapshot(asked)
    require(folder is not None, f"parent {given}: is not in the Hugging Face cache; run `{asked.download}`")
    assert folder is not None
    published = Parent(
        release=recipe.release,
        fingerprint=recipe.fingerprint,
        scale=PUBLISHED,
        step=recipe.num_steps,
        samples_seen=0,  # not stated
        policy_digest=asked.repository,
        parent=None,
        branch=asked.branch,
        commit=folder.name,
        weights_digest=digest_of_weights(folder),
    )
    return published, folder


def checkpoints_of(repository: str) -> dict[str, str]:
    """Branch -> recipe of the policies that were published in a repository of Hugging Face; empty for others."""
    pages = {name: page for name in recipe_files() if (page := find_page(name)) is not None}
    return {page.branch: name for name, page in pages.items() if page.branch and page.checkpoint == repository}


def asked_branch(asked: Revision, what: str, releases: Mapping[str, str]) -> str:
    """The branch of a published policy that was asked for. Raises UserError where it is none, or was not said."""
    name = asked.repository
    require(
        asked.branch in releases,
        f"{what}: name the revision, for no source pins one: {' or '.join(f'{name}@{branch}' for branch in releases)}, "
        "and @COMMIT behind it to pin it",
    )
    return asked.branch


def _module(name: str) -> types.ModuleType:
    known = recipe_files()
    if name in known:
        return _own_module(name, known[name])
    if not name.endswith(".py"):
        require_known(name, known, f"recipe '{name}': there is none")
    return run_module("recipe", name, path_of(f"recipe '{name}'", name))


@functools.cache
def _own_module(name: str, path: Path) -> types.ModuleType:
    """A recipe of this repository, run once: to tell published policies from others, each is asked for its page."""
    return run_module("recipe", name, path)


def released_fingerprint(release: str) -> str | None:
    """The fingerprint that a recipe was released with, by its name and version; None where it never was."""
    text = (Path(recipes.__file__).parent / "released.json").read_text(encoding="utf-8")
    found: str | None = json.loads(text).get(release)
    return found


@functools.cache
def recipe_files() -> Mapping[str, Path]:
    """Name -> file of every recipe, the published ones first, then their variants."""
    folder = Path(recipes.__file__).parent
    found = {
        module.name: place / f"{module.name}.py"
        for place in (folder, folder / "variants")
        for module in pkgutil.iter_modules([str(place)])
        if module.name not in NO_RECIPES and not module.ispkg
    }
    return types.MappingProxyType(found)


def find_scale(name: str) -> Scale:
    """The scale of that name in recipes/scales.py. Raises UserError."""
    from recipes.scales import SCALES

    require_known(name, SCALES, f"scale '{name}': there is none")
    return SCALES[name]


@contextmanager
def noted(lacking: list[str] | None) -> Iterator[None]:
    """Adds what is refused to `lacking` instead, where there is one."""
    try:
        yield
    except UserError as error:
        if lacking is None:
            raise
        lacking.append(str(error))


def choose_model(recipe: Recipe, scale: Scale, given: Path | None, lacking: list[str] | None) -> tuple[Model, Path]:
    """The model to train and the folder with its weights. Raises UserError."""
    if scale.miniature is not None:
        folder = given or REPOSITORY / scale.miniature.model_folder
        model = read_model(folder)
        check_tensors(folder, model)
        check_tokenizer(folder, model.vocab_size)
        # The name enters the fingerprint, and the folder may move; what is in it is part of the run's identity.
        return dataclasses.replace(model, name=f"{model.family} of {model.num_parameters:,} weights"), folder
    found = given or cached_snapshot(revision_of(recipe.model.name)) or _folder(recipe.model.name)
    if found is None:
        with noted(lacking):
            raise UserError(
                f"model {recipe.model.name}: is not in the Hugging Face cache; run `hf download {recipe.model.name}`, "
                "or give its folder with --set run.model_folder=FOLDER"
            )
        return recipe.model, Path(recipe.model.name)
    model = dataclasses.replace(read_model(found), name=recipe.model.name)
    differing = [
        f"{field.name} is {getattr(model, field.name)}, the recipe's {getattr(recipe.model, field.name)}"
        for field in dataclasses.fields(Model)
        if getattr(model, field.name) != getattr(recipe.model, field.name)
    ]
    require(not differing, f"model folder {found}: is not {recipe.model.name}: {'; '.join(differing)}")
    check_tensors(found, model)
    check_tokenizer(found, model.vocab_size)
    return model, found


def varied_recipe(recipe: Recipe, varied: Mapping[str, str], model_folder: Path | None) -> Recipe:
    """The recipe, or the variant of it that `--model` and `--domains` ask for. Raises UserError."""
    if not varied:
        return recipe
    from recipes.models import MODELS

    model = None
    if "model" in varied and model_folder is not None:
        asked = revision_of(varied["model"])
        # A branch may move; the commit that it stands for is what was trained.
        is_pinned = asked.branch and cached_snapshot(asked) == model_folder
        name = f"{asked.repository}@{model_folder.name}" if is_pinned else varied["model"]
        model = dataclasses.replace(read_model(model_folder), name=name)
    elif "model" in varied:  # of one that is not on this machine, `check` may know the shape
        model = MODELS.get(varied["model"])
    return variant_of(recipe, model, domains_of(varied["domains"]) if "domains" in varied else None)


def find_model(text: str, lacking: list[str] | None) -> Path | None:
    """The folder that `--model` names, or a model of that name in the Hugging Face cache. Raises UserError."""
    require(bool(text.strip()), "--model: must not be empty; give a folder, or a name on the Hugging Face hub")
    found, asked = _folder(text), revision_of(text)
    if found is None and (releases := checkpoints_of(asked.repository)):
        asked_branch(asked, f"--model {text}", releases)
    found = found or cached_snapshot(asked)
    with noted(lacking):
        require(found is not None, f"--model {text}: {asked.not_here}")
    return found


def _folder(text: str) -> Path | None:
    path = path_of(f"model {text[:80]}", text)
    return path if path.is_dir() else None


def choose_data(recipe: Recipe, scale: Scale, given: Path | None, lacking: list[str] | None, *, is_shown: bool) -> Path:
    """The folder of prompts, its files read once to find what is wrong with them. Raises UserError.

    Where all that is lacking `is_shown`, a folder that was given may lack files or domains, too.
    """
    from megatron_rl.commands.data import check_whole, making

    default = Path("data") if scale.miniature is None else REPOSITORY / scale.miniature.data_folder
    folder = given or default
    may_lack = given is None and scale.miniature is None
    if folder.is_dir():
        with noted(lacking if may_lack or is_shown else None):
            check_whole(folder, recipe)
            check_data(folder, recipe, needs_all=scale.miniature is None)
        return folder
    # Where something else stands no command can make it.
    makes = "" if os.path.lexists(folder) else f"{making(folder, recipe)} makes it, or "
    with noted(lacking if may_lack else None):
        raise UserError(
            f"data folder {folder}: {lack(folder, 'folder')}; {makes}give the one with "
            f"{recipe.name}'s prompts with --set run.data_folder=FOLDER{MOUNTS_UNKNOWN * mounts_are_unknown()}"
        )
    return folder


def mounts_are_unknown() -> bool:
    """True where the site has a file of mounts that this shell has not read."""
    return (REPOSITORY / "slurm" / "site.env").is_file() and "CONTAINER_IMAGE" not in os.environ


def check_data(folder: Path, recipe: Recipe, *, needs_all: bool) -> None:
    """Raises UserError unless `folder` holds prompts to validate with, and prompts to train on at every stage.

    Of every domain of the stage, where it `needs_all`: without one it would be another recipe. A miniature is anyway.
    """
    from megatron_rl.data.items import read_data
    from megatron_rl.rewards import own

    data = read_data(folder)
    found = {item.domain for item in data.train}
    asked = ((item.id, item.domain, item.opened()) for item in (*data.train, *data.validation))
    try:
        own.check_items(data.own_rewards, asked if data.own_rewards else (), OWN_REWARD_SECONDS)
    except ValueError as error:
        raise UserError(f"data folder {folder}: {error}") from None
    for step in (0, *(stage.from_step for stage in recipe.stages)):
        wanted = [domain.name for domain in recipe.at_step(step).domains]
        require(
            found.issuperset(wanted) if needs_all else not found.isdisjoint(wanted),
            f"data folder {folder}: holds {', '.join(sorted(found))}, but from step {step} on {recipe.name} trains on "
            f"{', '.join(wanted)}; add prompts of {'all' if needs_all else 'one'} of these"
            + ", or write a recipe of your own with fewer domains"
            * needs_all,
        )


def digest_of_data(folder: Path) -> str:
    """The SHA-256 of the prompts to train on; empty where there are none on this machine."""
    from megatron_rl.data.items import read_data

    return "" if missing_parts(folder) else read_data(folder).digest


def check_resume(run: Run) -> None:
    """Raises UserError where the run's directory holds a checkpoint that this run cannot go on from."""
    for folder in reversed(rundir.checkpoints(run.directory)):
        if (manifest := rundir.manifest_of(folder)) is None:
            continue
        try:
            rundir.check_manifest(folder, manifest, run)
        except ValueError as error:
            raise UserError(f"{error}{changed_since(run)}") from None
        return


def changed_since(run: Run) -> str:
    """What run.json of the directory says differs from the recipe of this run; empty when it does not say."""
    try:
        recipe = json.loads((run.directory / "run.json").read_text(encoding="utf-8"))["run"]["recipe"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    lines = differences(recipe, json.loads(canonical_json(run.recipe)))
    return f" ({'; '.join(lines)})" if lines else ""
