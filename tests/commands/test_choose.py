import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from megatron_rl.commands.choose import build_run, check_data, find_recipe, find_scale, rebuild_run
from megatron_rl.commands.data import making
from megatron_rl.config.checks import UserError
from megatron_rl.config.lineage import FILE_NAME, model_folder_of
from megatron_rl.config.published import cached_snapshot, revision_of
from megatron_rl.config.run import Run
from megatron_rl.config.weights import digest_of_weights
from megatron_rl.report.provenance import write_run_file
from recipes.prorl_v1 import RECIPE as PRORL_V1
from recipes.prorl_v2 import RECIPE
from tests.folders import TOKENIZER, manifest, parent_facts, write_data, write_finished_run, write_model

FIVE_DOMAINS = Path(__file__).parents[1] / "data" / "five_domains"

CHANGED = "import dataclasses\nfrom recipes.prorl_v2 import RECIPE\nRECIPE = dataclasses.replace(RECIPE, {})\n"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    """Settings that give a run a model and data."""
    model, data = write_model(tmp_path / "model"), write_data(tmp_path / "data")
    return f"run.model_folder={model}", f"run.data_folder={data}"


def build(*settings: str, scale: str = "cpu", directory: Path | None = None, needs_files: bool = True) -> Run:
    return build_run("prorl_v2", scale, settings, directory, needs_files=needs_files)


def test_a_recipe_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    assert find_recipe("prorl_v2") == RECIPE
    assert find_recipe("prorl_v2_clip27").algorithm.clip_high == 0.27
    copy = tmp_path / "mine.py"
    copy.write_text(
        "import dataclasses\nfrom recipes import prorl_v2\nRECIPE = dataclasses.replace(prorl_v2.RECIPE, name='mine')\n"
    )
    assert find_recipe(str(copy)).name == "mine"


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("RECIPE = 1\n", "defines no RECIPE"),
        ("RECIPE = (\n", "SyntaxError"),
        ("RECIPE = {}['x']\n", "KeyError"),
        ("RECIPE = 1 / 0\n", "ZeroDivisionError"),
        ("RECIPE = open('none')\n", "FileNotFoundError"),
        ("import sys\nsys.exit(0)\n", "SystemExit"),
        (CHANGED.format("num_steps='10'"), "num_steps='10': must be of type int, not str"),
        (CHANGED.format("num_steps=True"), "num_steps=True: must be of type int, not bool"),
        (CHANGED.format("algorithm=None"), r"algorithm=None: must be Algorithm\(...\)"),
        (CHANGED.format("stages=[]"), "stages=.*: must be a tuple"),
        (CHANGED.format("domains=('math',)"), r"domains\[0\]='math': must be Domain\(...\)"),
        (
            CHANGED.format("sampling=dataclasses.replace(RECIPE.sampling, top_p=None)"),
            "sampling.top_p=None: must be of type float, not NoneType",
        ),
        (
            CHANGED.format("algorithm=dataclasses.replace(RECIPE.algorithm, advantage='best')"),
            "algorithm.advantage='best': must be one of 'group_mean_and_std', ",
        ),
        ("from megatron_rl.config.records import Kl\nRECIPE = Kl(estimator='k2')\n", "TypeError: .*coefficient"),
    ],
)
def test_a_recipe_file_with_a_fault_is_a_user_s_error(text: str, pattern: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError, match=pattern):
        find_recipe(str(tmp_path / "mine.py"))


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="recipe 'prorl_v22': there is none; did you mean 'prorl_v2'"):
        find_recipe("prorl_v22")
    with pytest.raises(UserError, match="recipe 'prorl_v2_clip72': there is none; did you mean 'prorl_v2_clip27'"):
        find_recipe("prorl_v2_clip72")
    for name in ("scales", "variants"):
        with pytest.raises(UserError, match=f"recipe '{name}': there is none"):
            find_recipe(name)
    with pytest.raises(UserError, match="scale 'h100x6': there is none; did you mean 'h100x64'"):
        find_scale("h100x6")
    with pytest.raises(UserError, match="no such file"):
        find_recipe("recipes/none.py")


@pytest.mark.parametrize(
    ("setting", "pattern"),
    [
        ("sampling.temprature=1", "did you mean 'sampling.temperature'"),
        ("clip_hihg=1", "did you mean 'algorithm.clip_high'"),
        ("scale.devices=1", "did you mean 'scale.device'"),
        ("run.sed=1", "did you mean 'run.seed'"),
        ("sampling.temperature", "write it as name=value"),
        ("sampling.temperature=hot", "must be a number"),
        ("sampling.temperature=nan", "must be finite"),
        ("sampling.temperature=1e400", "must be finite"),
        (f"run.seed=1{'0' * 400}", "must be finite"),
        ("run.data_folder=~nobody-here/data", "no such user's home"),
        ("sampling.prompts_per_step=1.5", "must be a whole number"),
        ("num_steps=1_0", "must be a whole number, in the digits 0 to 9 alone"),
        ("num_steps=\u0661\u0660", "must be a whole number, in the digits 0 to 9 alone"),
        ("sampling.temperature=1_0.5", "must be a number, in the digits 0 to 9 alone"),
        ("domains=math=1_0,logic=1", "the weight of math is '1_0'; write a number"),
        ("algorithm.length.starts_on=1", "must be true or false"),
        ("algorithm.statistics_over=words", "must be one of 'samples', 'tokens'"),
        (
            "algorithm.kl=none",
            "without algorithm.kl nothing is held to a reference; set algorithm.reference_reset=none",
        ),
        ("algorithm.kl=k2", "not a single value"),
        ("algorithm.kl.estimator=k4", "must be one of 'k1', 'k2', 'k3'"),
        ("algorithm.truncation.value=0", "algorithm.truncation is None here"),
        ("algorithm.reference_reset.stall.drop=0", "stall.drop=0.0: must be above 0"),
        ("stages=none", "not a single value"),
        ("domains=maths", "did you mean 'math'"),
        ("model.num_layers=2", "model cannot be set"),
        ("version=3", "version cannot be set"),
        ("scale.name=x", "scale.name cannot be set"),
        ("run.modified=x", "there is no such key"),
        ("run=3", "not a single value; set a field of it, as run.NAME"),
        ("scale=cpu", "not a single value; set a field of it, as scale.NAME"),
        ("sampling.top_p=0.9", "the loss needs the full distribution"),
        ("optimizer.beta1=1", r"must lie in \[0, 1\)"),
        ("run.stall_seconds=0", "must be above 0"),
        ("run.data_folder=", "must not be empty"),
        ("scale.tensor_parallel=3", "ranks do not divide into tensor_parallel=3"),
        ("scale.devices_per_node=1000000", "devices_per_node=1000000 must be at most 256"),
        ("scale.miniature.schedule_divisor=0", "miniature.schedule_divisor=0 must be at least 1"),
        ("scale.kv_cache_bytes=1000", "kv_cache_bytes=1000 cannot hold one sequence of 56 tokens; use at least"),
        ("num_steps=1000000", "num_steps=1000000: must be at most 999999"),
        ("starts_from=none", "starts_from cannot be set"),
        ("run.stall_seconds=1e15", "a year at most"),
        ("scale.max_tokens_per_microbatch=55", "cannot hold one sequence of 56 tokens"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, pattern: str, folders: tuple[str, str]) -> None:
    own = [one for one in folders if not setting.startswith(one.partition("=")[0])]
    with pytest.raises(UserError, match=pattern) as caught:
        build(*own, setting)
    assert "\n" not in str(caught.value)


def test_settings_are_typed_and_recorded(folders: tuple[str, str]) -> None:
    settings = (
        "sampling.temperature=1.2",
        "algorithm.length=none",
        "algorithm.statistics_over=tokens",
        "scale.time_limit_hours=0.5",
        "scale.sequence_parallel=True",
        "scale.tensor_parallel=2",
        "run.seed=7",
        "run.save_every_steps=3",
    )
    run = build(*folders, *settings)
    assert run.recipe.sampling.temperature == 1.2
    assert run.recipe.algorithm.length is None
    assert run.recipe.algorithm.statistics_over == "tokens"
    assert (run.scale.time_limit_hours, run.scale.sequence_parallel) == (0.5, True)
    assert (run.seed, run.save_every_steps) == (7, 3)
    assert run.modified == (*folders, *settings)
    assert run.published == RECIPE


def test_a_setting_lifts_a_cap(folders: tuple[str, str]) -> None:
    assert build(*folders, "sampling.prompts_per_step=32").recipe.sampling.prompts_per_step == 32
    assert build(*folders).recipe.sampling.prompts_per_step == 6


@pytest.mark.parametrize(
    ("settings", "pattern"),
    [
        (("run.seed=1", "run.seed=2"), "--set run.seed=2: is given twice; give it once"),
        (("run.seed=1", " run.seed = 1"), "--set run.seed=1: is given twice"),
        (
            ("algorithm.length=none", "algorithm.length.weight=1"),
            "algorithm.length.weight: algorithm.length is set",
        ),
        (
            ("algorithm.length.weight=1", "algorithm.length=none"),
            "algorithm.length.weight: algorithm.length is set",
        ),
    ],
)
def test_a_value_is_set_once(settings: tuple[str, str], pattern: str, folders: tuple[str, str]) -> None:
    with pytest.raises(UserError, match=pattern):
        build(*folders, *settings)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("samples_per_prompt", "did you mean 'sampling.samples_per_prompt', 'validation.samples_per_prompt' or "),
        ("algorithm.top_p", "did you mean 'sampling.top_p'"),
        ("CLIP_HIGH", "did you mean 'algorithm.clip_high'?"),
        ("Sampling.Temperature", "did you mean 'sampling.temperature'?"),
        ("zzzz", "the nearest are '"),
        ("", "the nearest are '"),
        ("run.", "run."),
    ],
)
def test_no_answer_lists_all_keys(name: str, answer: str, folders: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="there is no such key") as caught:
        build(*folders, f"{name}=1")
    assert answer in str(caught.value)
    assert str(caught.value).count("'") <= 6, "three names at most"


def test_a_cap_of_the_scale_can_be_set(folders: tuple[str, str]) -> None:
    run = build(*folders, "scale.caps.prompts_per_step=8", "scale.miniature.schedule_divisor=100")
    assert (run.recipe.sampling.prompts_per_step, run.recipe.num_steps) == (8, 30)


def test_the_fingerprint_does_not_depend_on_where_the_run_lives(folders: tuple[str, str], tmp_path: Path) -> None:
    assert build(*folders).recipe.fingerprint == build(*folders, directory=tmp_path / "x").recipe.fingerprint


def test_a_run_lives_in_runs_by_recipe_and_scale(folders: tuple[str, str], tmp_path: Path) -> None:
    assert build(*folders).directory == Path("runs/prorl_v2-cpu")
    (tmp_path / "taken").write_text("")
    for directory in (tmp_path / "taken", tmp_path / "taken" / "run"):
        with pytest.raises(UserError, match="is a file; choose another"):
            build(*folders, directory=directory)


def test_a_cluster_scale_is_checked_without_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("megatron_rl.commands.choose.cached_snapshot", lambda revision: None)
    monkeypatch.chdir(tmp_path)
    assert build(scale="h100x64", needs_files=False).recipe.model == RECIPE.model
    with pytest.raises(UserError, match=r"hf download deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"):
        build(scale="h100x64")


def test_another_model_than_the_recipe_s_is_refused(folders: tuple[str, str]) -> None:
    with pytest.raises(UserError, match=r"is not deepseek-ai/.*: num_layers is 4, the recipe's 28; hidden_size is 16"):
        build(*folders, scale="gpu1", needs_files=False)


def test_a_folder_of_the_recipe_s_shape_is_accepted(folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = dataclasses.replace(build(*folders).recipe.model, name="owner/model")
    monkeypatch.setattr(
        "megatron_rl.commands.choose.find_recipe", lambda name: dataclasses.replace(RECIPE, model=model)
    )
    settings = (*folders, "sampling.max_prompt_tokens=100", "sampling.max_response_tokens=100")
    with pytest.raises(
        UserError, match="holds math, but .* trains on math, code, stem, logic, instruct; add .* of all"
    ):
        build(*settings, scale="gpu1")
    settings = (folders[0], *settings[2:], f"run.data_folder={FIVE_DOMAINS}")
    assert build(*settings, scale="gpu1").recipe.model.name == "owner/model"


def cached(hub: Path, repository: str, branches: dict[str, str], *commits: str) -> dict[str, Path]:
    """Commit -> folder, as huggingface_hub lays a cache out: blobs, snapshots of links to them, refs of branches."""
    place, folders = hub / f"models--{repository.replace('/', '--')}", {}
    for commit in (*branches.values(), *commits):
        folders[commit] = snapshot = place / "snapshots" / commit
        if snapshot.is_dir():
            continue
        snapshot.mkdir(parents=True)
        (place / "blobs").mkdir(exist_ok=True)
        made = write_model(hub / "made" / commit)
        (made / "marker.txt").write_text(commit)
        for file in made.iterdir():
            blob = place / "blobs" / hashlib.sha256(file.read_bytes() + commit.encode()).hexdigest()
            blob.write_bytes(file.read_bytes())
            (snapshot / file.name).symlink_to(Path("../..") / "blobs" / blob.name)
    (place / "refs").mkdir(parents=True, exist_ok=True)
    for branch, commit in branches.items():
        (place / "refs" / branch).write_text(commit)
    return folders


def test_a_cached_snapshot_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one, two = "1" * 40, "2" * 40
    folders = cached(tmp_path, "owner/model", {"main": one, "v1": two})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    def found(name: str) -> Path | None:
        return cached_snapshot(revision_of(name))

    assert found("owner/model") == found("owner/model@main") == found(f"owner/model@v1@{one}") == folders[one]
    assert found("owner/model@v1") == folders[two]
    for name in ("owner/other", "owner/model@v2", f"owner/model@main@{'3' * 40}", "no/such/name", str(tmp_path)):
        assert found(name) is None
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", "/huggingface-of-the-container")
    assert found("owner/model") is None
    (tmp_path / "hub").symlink_to(tmp_path)
    monkeypatch.setenv("CONTAINER_IMAGE", "image")
    monkeypatch.setenv("CONTAINER_MOUNTS", f"/x:/y,{tmp_path}:/huggingface-of-the-container")
    assert found("owner/model") == tmp_path / "hub" / folders[one].relative_to(tmp_path)


def test_a_preview_knows_a_container_s_paths(
    folders: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_IMAGE", "image")
    monkeypatch.setenv("CONTAINER_MOUNTS", f"{tmp_path}:/of-the-container:ro")
    settings = ["run.data_folder=/of-the-container/data", "run.model_folder=/of-the-container/model"]
    run = build(*settings, needs_files=False)
    assert (run.data_folder, run.model_folder) == (tmp_path / "data", tmp_path / "model")
    with pytest.raises(UserError, match="/of-the-container/model: there is no such folder"):
        build(*settings)  # a job sees its own paths alone


def test_what_a_training_would_refuse_is_noted_for_a_preview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron_rl.commands.choose.cached_snapshot", lambda revision: None)
    monkeypatch.chdir(tmp_path)
    lacking: list[str] = []
    build_run("brorl", "h100x64", [], None, needs_files=False, lacking=lacking)
    for lack, what in zip(lacking, ("continues a run of 'prorl_v2'", "hf download", "no such folder"), strict=True):
        assert what in lack


POLICIES = "nvidia/Nemotron-Research-Reasoning-Qwen-1.5B"


@pytest.mark.parametrize(
    ("recipe", "branch", "release", "step"),
    [
        ("brorl", "main", "prorl_v2", 3000),
        ("dler", "main", "prorl_v2", 3000),
        ("prorl_v2_after_v1", "v1", "prorl_v1", 2000),
    ],
)
def test_a_run_starts_from_a_published_policy_by_its_branch_and_writes_down_what_it_stood_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipe: str, branch: str, release: str, step: int
) -> None:
    old, new = "a" * 40, "b" * 40
    folders = cached(tmp_path / "hub", POLICIES, {branch: old}, new)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    data = f"run.data_folder={FIVE_DOMAINS}"

    def built(name: str, place: str) -> Run:
        return build_run(recipe, "cpu", [data], tmp_path / place, needs_files=True, parent=Path(name))

    run = built(f"{POLICIES}@{branch}", "run")
    assert run.parent is not None and run.parent.is_published and run.model_folder == folders[old]
    assert (run.parent.release.split()[0], run.parent.step, run.parent.policy_digest) == (release, step, POLICIES)
    assert (run.parent.branch, run.parent.commit) == (branch, old)
    assert run.parent.weights_digest == digest_of_weights(folders[old]) == run.identity["weights"]
    run.directory.mkdir()
    write_run_file(run, 0)
    # The branch moves; the run that began with it goes on with what it had.
    cached(tmp_path / "hub", POLICIES, {branch: new})
    assert rebuild_run(run.directory) == run
    assert built(f"{POLICIES}@{branch}", "other").model_folder == folders[new]
    pinned = built(f"{POLICIES}@{branch}@{old}", "pinned")
    assert (pinned.parent, pinned.model_folder) == (run.parent, folders[old])


def test_a_published_policy_is_asked_for_by_a_revision_that_the_cache_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    cached(tmp_path / "hub", POLICIES, {"main": "a" * 40, "v1": "b" * 40})

    def refused(recipe: str, name: str) -> str:
        with pytest.raises(UserError) as error:
            build_run(recipe, "cpu", [], tmp_path / "run", needs_files=True, parent=Path(name))
        return str(error.value)

    for name in (POLICIES, f"{POLICIES}@v3", f"{POLICIES}@{'a' * 40}"):
        found = refused("brorl", name)
        assert found.startswith(f"parent {name}: name the revision, for no source pins one: ")
        for branch in ("v1", "main", "brorl"):
            assert f"{POLICIES}@{branch}" in found
    assert f"`hf download {POLICIES} --revision brorl`" in refused("dler", f"{POLICIES}@brorl")
    missing = "c" * 40
    assert f"`hf download {POLICIES} --revision {missing}`" in refused("brorl", f"{POLICIES}@main@{missing}")
    assert "continues a run of 'prorl_v2', but the parent is one of 'prorl_v1" in refused("brorl", f"{POLICIES}@v1")
    with pytest.raises(UserError, match=f"--model {POLICIES}: name the revision"):
        build(f"model={POLICIES}")


def test_a_published_policy_is_a_model_like_any_other_and_its_commit_stands_in_the_recipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    folders = cached(tmp_path / "hub", POLICIES, {"main": "a" * 40})
    settings = [f"model={POLICIES}@main", f"run.data_folder={FIVE_DOMAINS}"]
    run = build_run("grpo_control", "gpu1", settings, tmp_path / "run", needs_files=True)
    assert run.model_folder == folders["a" * 40]
    assert run.recipe.model.name == f"{POLICIES}@{'a' * 40}"
    assert run.identity["weights"] == digest_of_weights(run.model_folder)
    own = write_model(tmp_path / "me@home")  # a folder is no repository, whatever it is called
    settings = [f"model={own}", f"run.data_folder={FIVE_DOMAINS}"]
    assert build_run("grpo_control", "gpu1", settings, tmp_path / "run", needs_files=True).recipe.model.name == str(own)


def test_a_run_is_not_resumed_by_another_recipe(folders: tuple[str, str], tmp_path: Path) -> None:
    directory = tmp_path / "run"
    run = build(*folders, directory=directory)
    checkpoint = directory / "checkpoints" / "step_000050"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text(
        json.dumps(manifest(run.recipe.fingerprint, run.scale.layout, run.identity, data=run.data_digest))
    )
    assert build(*folders, directory=directory) == run
    (directory / "run.json").write_text(json.dumps({"run": {"recipe": dataclasses.asdict(run.recipe)}}))
    with pytest.raises(UserError, match=r"by another recipe, .* --directory \(sampling.temperature: 1.0 -> 1.2\)"):
        build(*folders, "sampling.temperature=1.2", directory=directory)
    assert build(*folders, "scale.tensor_parallel=2", directory=directory).scale.tensor_parallel == 2
    with pytest.raises(UserError, match="was made with precision fp32, this run has bf16; give the one it was"):
        build(*folders, "scale.precision=bf16", directory=directory)
    with pytest.raises(UserError, match="was made with seed 1, this run has 2; give the one it was started with"):
        build(*folders, "run.seed=2", directory=directory)
    train = run.data_folder / "train.jsonl"
    lines = train.read_text().splitlines(True)
    train.write_text("".join(reversed(lines)))
    with pytest.raises(UserError, match=r"was made from other prompts than those of .*train.jsonl; give the file it"):
        build(*folders, directory=directory)
    train.write_text("".join(lines))
    (directory / "run.json").write_text("{")
    with pytest.raises(UserError, match="by another recipe, [0-9a-f]{16} instead of [0-9a-f]{16}; give the settings"):
        build(*folders, "sampling.temperature=1.2", directory=directory)


@pytest.fixture
def begun(folders: tuple[str, str], tmp_path: Path) -> tuple[Run, Path]:
    """A run that has a checkpoint, and its directory."""
    directory = tmp_path / "run"
    run = build(*folders, "num_steps=4", directory=directory)
    checkpoint = directory / "checkpoints" / "step_000002"
    checkpoint.mkdir(parents=True)
    facts = manifest(run.recipe.fingerprint, run.scale.layout, run.identity, data=run.data_digest, num_steps=4)
    (checkpoint / "manifest.json").write_text(json.dumps(facts))
    return run, directory


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("validation.jsonl", '{"id": "x", "domain": "math", "prompt": "1 + 1 = ?", "item": {"answer": "2"}}\n'),
        ("tokenizer_config.json", '{"eos_token": "<eos>", "chat_template": "{{ messages[0].content }}"}'),
        ("chat_template.jinja", "Question: {{ messages[0].content }}"),
        ("special_tokens_map.json", "{}"),
        ("tokenizer.json", json.dumps({**TOKENIZER, "truncation": None})),
    ],
)
def test_another_file_than_the_run_began_with_is_refused_by_name(
    begun: tuple[Run, Path], folders: tuple[str, str], name: str, content: str
) -> None:
    run, directory = begun
    folder = run.data_folder if name.endswith("jsonl") else run.model_folder
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=rf"was made with another {name} than in {folder}; give what it was started"):
        build(*folders, "num_steps=4", directory=directory)


def test_other_weights_stop_tokens_or_held_out_prompts_are_refused(
    begun: tuple[Run, Path], folders: tuple[str, str]
) -> None:
    run, directory = begun
    with pytest.raises(UserError, match="was made with run.max_validation_prompts 1024, this run has 7"):
        build(*folders, "num_steps=4", "run.max_validation_prompts=7", directory=directory)
    (run.model_folder / "generation_config.json").write_text('{"eos_token_id": [1, 5]}')
    with pytest.raises(UserError, match="was made with other stop tokens than in"):
        build(*folders, "num_steps=4", directory=directory)
    (run.model_folder / "generation_config.json").unlink()
    with (run.model_folder / "model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\x80\x3f")
    with pytest.raises(UserError, match="was made with other weights than in"):
        build(*folders, "num_steps=4", directory=directory)


def test_a_moved_model_folder_is_the_same_model(
    begun: tuple[Run, Path], folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, directory = begun
    moved = run.model_folder.rename(run.model_folder.with_name("moved"))
    monkeypatch.chdir(moved.parent)
    for folder in (moved, Path("moved")):
        again = build(f"run.model_folder={folder}", folders[1], "num_steps=4", directory=directory)
        assert again.recipe.fingerprint == run.recipe.fingerprint and again.identity == run.identity


def test_a_run_may_be_made_longer_but_not_shorter(begun: tuple[Run, Path], folders: tuple[str, str]) -> None:
    _, directory = begun
    assert build(*folders, "num_steps=9", directory=directory).recipe.num_steps == 9
    with pytest.raises(UserError, match="is of a run of 4 steps, which cannot be made one of 3; give num_steps=4 or"):
        build(*folders, "num_steps=3", directory=directory)
    with pytest.raises(UserError, match="by another recipe"):
        build(*folders, "num_steps=9", "sampling.temperature=1.2", directory=directory)


def continued(recipe: str, parent: Path, *settings: str) -> Run:
    return build_run(recipe, "cpu", settings, None, needs_files=True, parent=parent)


def test_a_recipe_goes_on_with_the_policy_of_its_parent(folders: tuple[str, str], tmp_path: Path) -> None:
    parent = write_finished_run(tmp_path / "older", "prorl_v2_clip27 1.1.0")
    run = continued("brorl", parent, folders[1])
    assert run.parent == parent_facts("prorl_v2_clip27 1.1.0")
    assert run.model_folder == model_folder_of(parent)
    assert run.recipe.model.name == "prorl_v2_clip27 1.1.0 after step 7"
    moved = parent.rename(tmp_path / "moved")
    assert continued("brorl", moved, folders[1]).recipe.fingerprint == run.recipe.fingerprint


def test_a_parent_that_can_not_be_meant_is_refused(folders: tuple[str, str], tmp_path: Path) -> None:
    parent = write_finished_run(tmp_path / "older", "prorl_v2 2.1.0")
    with pytest.raises(UserError, match="recipe 'prorl_v2': starts from model .*; leave --parent out"):
        continued("prorl_v2", parent, folders[1])
    with pytest.raises(UserError, match="continues a run of 'prorl_v1', but the parent is one of 'prorl_v2 2.1.0'"):
        continued("prorl_v2_after_v1", parent, folders[1])
    with pytest.raises(UserError, match=r"--set run\.model_folder: the policy of --parent is trained"):
        continued("brorl", parent, *folders)
    with pytest.raises(UserError, match="is no run's directory"):
        continued("brorl", tmp_path / "none", folders[1])
    (model_folder_of(parent) / FILE_NAME).unlink()
    with pytest.raises(UserError, match="has not finished"):
        continued("brorl", parent, folders[1])
    with pytest.raises(UserError, match="continues a run of 'prorl_v2'; give that run's directory, or the published"):
        build_run("brorl", "cpu", folders, None, needs_files=True)
    assert build_run("brorl", "cpu", folders, None, needs_files=False).parent is None  # to look at it


def test_a_run_is_rebuilt_from_its_directory(folders: tuple[str, str], tmp_path: Path) -> None:
    first = build(*folders, "sampling.temperature=1.2", "run.seed=3", directory=tmp_path / "first")
    older = write_finished_run(tmp_path / "older", "prorl_v2 2.1.0")
    second = build_run("brorl", "cpu", folders[1:], tmp_path / "second", needs_files=True, parent=older)
    for run in (first, second):
        run.directory.mkdir()
        write_run_file(run, 0)
        assert rebuild_run(run.directory) == run


@pytest.mark.parametrize("text", ["{", "{}", '{"run": {}}', "[]"])
def test_a_directory_that_tells_of_no_run_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run's directory, for it holds no run.json; give the one of a run"):
        rebuild_run(tmp_path)
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match="run.json: cannot be read; start the run once more"):
        rebuild_run(tmp_path)


def test_a_preview_names_the_files_that_a_data_folder_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron_rl.commands.choose.cached_snapshot", lambda revision: None)
    monkeypatch.chdir(tmp_path)

    def noted_of(*settings: str) -> str:
        lacking: list[str] = []
        build_run("prorl_v2", "h100x64", list(settings), None, needs_files=False, lacking=lacking)
        return lacking[-1]

    other = write_data(tmp_path / "data" / "prorl")
    found = noted_of()
    assert found.startswith("data folder data: has no train.jsonl and no validation.jsonl; data/prorl has them, for ")
    assert "`megatron-rl data prepare prorl --to data` makes them" in found
    assert noted_of("run.data_folder=data") == found
    assert noted_of("run.data_folder=data/prorl").startswith("data folder data/prorl: holds math, but from step 0 on")
    (other / "validation.jsonl").unlink()
    assert noted_of("run.data_folder=data/prorl").startswith("data folder data/prorl: has no validation.jsonl; `mega")
    assert "data/prorl has them" not in noted_of()
    for needs_files in (True, False):  # what shows nothing of it refuses a folder that was given
        with pytest.raises(UserError, match=r"has no validation.jsonl|is not in the Hugging Face cache"):
            build_run("prorl_v2", "h100x64", ["run.data_folder=data/prorl"], None, needs_files=needs_files)


def test_the_command_that_makes_a_recipe_s_prompts_has_its_mixture() -> None:
    assert making(Path("data"), find_recipe("justrl")) == "`megatron-rl data prepare justrl --to data`"
    assert making(Path("/a/b"), find_recipe("brorl")) == "`megatron-rl data prepare prorl --to /a/b`"


def test_every_stage_needs_a_domain_that_the_data_has(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    check_data(data, PRORL_V1, needs_all=False)
    early, late = PRORL_V1.stages[0], PRORL_V1.stages[2]
    stages = (early, dataclasses.replace(late, domains=("code", "stem")))
    with pytest.raises(UserError, match="holds math, but from step 514 on prorl_v1 trains on code, stem; add prompts"):
        check_data(data, dataclasses.replace(PRORL_V1, stages=stages), needs_all=False)
    check_data(FIVE_DOMAINS, PRORL_V1, needs_all=True)
    with pytest.raises(
        UserError, match="from step 0 on prorl_v1 trains on .*; add prompts of all of these, or write a"
    ):
        check_data(data, PRORL_V1, needs_all=True)


def test_a_broken_mixture_is_no_matter_to_who_has_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("MIXTURE =", encoding="utf-8")
    monkeypatch.setattr("megatron_rl.commands.data._mixture_files", lambda: {"broken": tmp_path / "broken.py"})
    build_run("prorl_v2", "cpu", [], tmp_path / "run", needs_files=True)
    with pytest.raises(UserError, match=r"mixture.*broken.*"):
        making(tmp_path, RECIPE)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("train.jsonl.gz", "has no train.jsonl, but train.jsonl.gz; its files are called train.jsonl and"),
        ("Train.jsonl", "has no train.jsonl, but Train.jsonl; its files are called"),
        ("train.json", "has no train.jsonl, but train.json; its files are called"),
        ("train.jsonl/", "has no train.jsonl, but train.jsonl (is a folder, not a file); its"),
        ("train.jsonl@", "has no train.jsonl, but train.jsonl (is a link to gone, where nothing is); its"),
    ],
)
def test_a_data_folder_with_a_file_that_was_meant_otherwise_is_told_of_it(
    folders: tuple[str, str], tmp_path: Path, name: str, said: str
) -> None:
    place = tmp_path / "meant"
    place.mkdir()
    (place / "validation.jsonl").write_text("")
    if name.endswith("@"):
        (place / name[:-1]).symlink_to("gone")
    elif name.endswith("/"):
        (place / name).mkdir()
    else:
        (place / name).write_text("")
    with pytest.raises(UserError) as caught:
        build(folders[0], f"run.data_folder={place}")
    assert said in str(caught.value)


@pytest.mark.parametrize("kind", ["data_folder", "model_folder"])
def test_a_file_or_a_dangling_link_for_a_folder_is_named_and_nothing_offers_to_make_it(
    folders: tuple[str, str], tmp_path: Path, kind: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("gone")
    others = [one for one in folders if kind not in one]
    for name, said in (
        ("file", "is a file, not a folder; give"),
        ("link", "is a link to gone, where nothing is; give"),
    ):
        with pytest.raises(UserError, match=f"{name}: {said}"):
            build(*others, f"run.{kind}={tmp_path / name}")


def test_a_path_that_has_no_model_is_nothing_to_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron_rl.commands.choose.cached_snapshot", lambda revision: None)
    (tmp_path / "file").write_text("")
    for name, said in (("file", "is a file, not a folder; give the"), ("none", "there is no such folder; give the")):
        with pytest.raises(UserError, match=f"--model {tmp_path / name}: {said}"):
            build(f"model={tmp_path / name}")
    with pytest.raises(UserError, match="not in the Hugging Face cache; run `hf download owner/none`"):
        build("model=owner/none")
