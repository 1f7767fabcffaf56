"""A run that goes on from a checkpoint is the run that was never stopped, and a bad checkpoint is never half used."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron_rl import checkpoint, device
from megatron_rl.config.run import Run
from megatron_rl.data.items import Item
from megatron_rl.data.prompts import PromptStream, load_tokenizer
from megatron_rl.runtime import parallel
from megatron_rl.runtime.log import get_logger
from megatron_rl.types import Batch, Collected, Reset, Scores, State, Update
from tests.actor.test_layouts import some_groups
from tests.folders import parent_facts
from tests.models import make_folder, make_run, replaced
from tests.ranks import run_ranks

DEMO = Path(__file__).parents[1] / "demo"
RECIPE = {
    "optimizer.learning_rate": 1e-3,
    "num_steps": 4,
}
RESETS = (1, 3)  # before the save, so that the reference is no copy of the folder, and after it


class Trained:
    """An Actor on random batches: the loop without its engine."""

    def __init__(self, folder: str, directory: str, recipe: dict[str, Any] | None = None, **scale: Any) -> None:
        from megatron_rl.actor.actor import Actor

        run = make_run(folder, recipe=RECIPE | (recipe or {}), **scale)
        self.run = dataclasses.replace(run, directory=Path(directory))
        hardware = device.select(run.scale)
        self.ranks = parallel.start(run.scale, hardware, 180)
        self.make_actor = lambda: Actor(run, self.ranks, hardware)
        self.actor, self.prompts = self.make_actor(), some_prompts()
        self.state, self.updates = State.fresh(), list[Update]()

    def step(self) -> None:
        batch = self.batch()
        updates = [self.actor.update(packs, self.run.recipe, self.state.step) for packs in batch.updates]
        self.updates += updates
        self.state = self.state.after(
            Collected(groups=batch.groups, tried=batch.groups, rounds=1, keep_rate=1.0), updates
        )
        if self.state.step in RESETS:
            self.actor.reset_reference(self.run.recipe)
            self.state = self.state.with_reset("planted")

    def batch(self) -> Batch:
        """A step's batch of its own: another order of the groups and other advantages; it takes prompts, too."""
        from megatron_rl.actor.pack import pack

        draw = random.Random(self.prompts.position)
        self.prompts.take(5)
        groups = some_groups(num_engines=self.ranks.world // self.ranks.engine_size, engine=self.ranks.engine)
        groups = groups.take(draw.sample(range(len(groups)), 6))
        batch = pack(groups, self.ranks, self.run.recipe.algorithm, self.actor.limits)
        view = self.actor.logprobs(batch, self.run.recipe)
        reference = self.actor.reference_logprobs(batch, self.run.recipe)
        batch = batch.with_logprobs(old=view.logprobs, reference=reference)
        return batch.with_advantages(torch.tensor([[draw.gauss(0, 1) for _ in range(6)] for _ in range(6)]))

    def save(self) -> Path:
        saver = checkpoint.Saver(self.run, self.actor, self.prompts, self.state)
        saver.save(self.state)
        saver.finish()
        return checkpoint.folder_of(self.run, self.state.step)

    def facts(self) -> dict[str, Any]:
        """All that a run must have in common with its repetition."""
        return {
            "state": dataclasses.asdict(self.state),
            "position": self.prompts.position,
            "updates": [dataclasses.asdict(update) for update in self.updates[-4:]],
            **{name: digest(value) for name, value in self.actor.state().items()},
        }


def some_prompts() -> PromptStream:
    items = [Item(id=f"i{k}", domain="math", prompt=f"{k:03d}", item={"answer": "5"}) for k in range(30)]
    return PromptStream(items, load_tokenizer(DEMO / "model"), seed=1, max_prompt_tokens=8)


def digest(value: Any) -> str:
    """A hash of nested tensors and numbers, to the bit."""
    if isinstance(value, Tensor):
        content = value.cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
        value = (str(value.dtype), tuple(value.shape), content)
    elif isinstance(value, dict):
        value = [(key, digest(inner)) for key, inner in value.items()]
    elif isinstance(value, list | tuple):
        value = [digest(inner) for inner in value]
    return hashlib.sha256(repr(value).encode()).hexdigest()


def random_states() -> str:
    """A digest of every global generator that a step could draw from."""
    import numpy
    from megatron.core import tensor_parallel

    states = tensor_parallel.get_cuda_rng_tracker().get_states()
    return digest([torch.get_rng_state(), states, random.getstate(), repr(numpy.random.get_state())])


def uninterrupted(folder: str, directory: str, world: int) -> dict[str, Any]:
    """Runs on every rank: two steps, a save, two more steps."""
    one = Trained(folder, directory, devices_per_node=world)
    before = random_states()
    for _ in range(2):
        one.step()
    assert random_states() == before, "a step draws from a global generator, which a checkpoint then has to hold"
    one.state = one.state.with_scores(Scores(step=2, accuracy={"math": 0.25}))
    saved = one.save()
    for _ in range(2):
        one.step()
    return one.facts() | {"saved": saved.name}


def resumed(folder: str, directory: str, world: int) -> dict[str, Any]:
    """Runs on every rank of a new process: resume, two more steps; then with a damaged file."""
    one = Trained(folder, directory, devices_per_node=world)
    unresumed = digest(one.actor.state()["weights"])
    one.actor.resharded = never  # each rank reads its own file
    one.state = checkpoint.resume(one.run, one.actor, one.prompts)
    changed = digest(one.actor.state()["weights"]) != unresumed
    for _ in range(2):
        one.step()
    facts = one.facts() | {"resuming_changed_the_weights": changed}
    newest = one.save()
    if one.ranks.is_main:  # on one rank only: all must pass it over
        flip_a_byte(newest / checkpoint.file_of(world - 1))
    parallel.barrier()
    with warnings_kept() as kept:
        state = checkpoint.resume(one.run, one.actor, one.prompts)
    return facts | {"after_damage": state.step, "warnings": kept}


def never(*_: Any) -> None:
    raise AssertionError("the layout did not change")


def behind(folder: str, directory: str, **scale: Any) -> dict[str, str]:
    """Runs on a rank of a device that saves in the background: the state when a save began, after it, and resumed."""
    one = Trained(folder, directory, **scale)
    assert one.actor.device.saves_in_background
    one.step()
    saver = checkpoint.Saver(one.run, one.actor, one.prompts, one.state)
    saver.save(one.state)
    found = {"saved": digest(one.actor.state())}
    one.step()
    saver.finish()
    found["after"] = digest(one.actor.state())
    checkpoint.resume(one.run, one.actor, one.prompts)
    return found | {"resumed": digest(one.actor.state())}


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@contextmanager
def warnings_kept() -> Iterator[list[str]]:
    kept: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: kept.append(record.getMessage())  # type: ignore[method-assign]
    get_logger().addHandler(handler)
    try:
        yield kept
    finally:
        get_logger().removeHandler(handler)


def odd_checkpoints(folder: str, directory: str) -> dict[str, Any]:
    """Runs on one rank: what resume makes of checkpoints that are missing, damaged, another run's or unfinished."""
    one = Trained(folder, directory, devices_per_node=1)
    one.run = dataclasses.replace(one.run, parent=parent_facts("prorl_v1 1.2.0"))
    found: dict[str, Any] = {}

    def resume(run: Run = one.run, only: Path | None = None) -> dict[str, Any]:
        one.actor, one.prompts = one.make_actor(), some_prompts()
        with warnings_kept() as kept:
            try:
                state = checkpoint.resume(run, one.actor, one.prompts, only)
            except (ValueError, RuntimeError) as error:
                return {"error": str(error), "warnings": kept}
        weights = digest(one.actor.state()["weights"])
        return {"step": state.step, "position": one.prompts.position, "weights": weights, "warnings": kept}

    found["none"] = resume()
    at_save, folders = {}, []
    for step in (1, 2, 3):
        one.step()
        folders.append(one.save())
        at_save[step] = digest(one.actor.state()["weights"])
    found |= {"at_save": at_save, "kept": sorted(path.name for path in folders[0].parent.iterdir())}
    found["newest"] = resume()
    soon = dataclasses.replace(one.run, save_every_minutes=1e-9)
    savers = [checkpoint.Saver(run, one.actor, one.prompts, one.state) for run in (one.run, soon)]
    found["overdue"] = [saver.is_overdue() for saver in savers]
    found["manifest"] = json.loads((folders[2] / "manifest.json").read_text())
    found["held"] = sorted(torch.load(folders[2] / checkpoint.file_of(0), weights_only=True))

    partial = folders[2].with_name("step_000009.partial")
    partial.mkdir()
    (partial / "manifest.json").write_text("{")
    found["beside_a_partial"] = resume()
    found["other_recipe"] = resume(
        dataclasses.replace(one.run, recipe=replaced(one.run.recipe, ["optimizer", "beta1"], 0.5))
    )
    found["other_precision"] = resume(
        dataclasses.replace(one.run, scale=dataclasses.replace(one.run.scale, precision="bf16"))
    )
    file = folders[2] / checkpoint.file_of(0)
    whole = file.read_bytes()
    for name, content in {"shorter": whole[:-100], "missing": None, "flipped": whole}.items():
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
        if name == "flipped":
            flip_a_byte(file)
        found[name] = resume()
    manifest = folders[2] / "manifest.json"
    whole_manifest = manifest.read_text()
    manifest.write_text(whole_manifest[:40])
    found["torn_manifest"] = resume()
    manifest.write_text(whole_manifest)
    flip_a_byte(folders[1] / checkpoint.file_of(0))
    found["all_damaged"] = resume()
    found["named"] = resume(only=folders[2])
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_folder(tmp_path_factory.mktemp("qwen2"), num_hidden_layers=2))


@pytest.fixture(scope="module")
def odd(folder: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    (facts,) = run_ranks(
        "tests.test_checkpoint:odd_checkpoints", 1, folder=folder, directory=str(tmp_path_factory.mktemp("run"))
    )
    return facts


@pytest.mark.ranks
def test_a_resumed_run_is_bit_identical_to_one_that_was_not_stopped(folder: str, tmp_path: Path) -> None:
    arguments = {"folder": folder, "directory": str(tmp_path), "world": 2}
    whole = run_ranks("tests.test_checkpoint:uninterrupted", 2, **arguments)
    again = run_ranks("tests.test_checkpoint:resumed", 2, **arguments)
    for expected, found in zip(whole, again, strict=True):
        assert expected.pop("saved") == "step_000002"
        assert found.pop("resuming_changed_the_weights")
        assert found.pop("after_damage") == 2
        warnings = found.pop("warnings")
        assert len(warnings) == 1
        assert "rank_00001.pt has another checksum" in warnings[0]
        assert found == expected
        assert [reset["step"] for reset in found["state"]["reference_resets"]] == list(RESETS)
        assert found["state"]["scores"] == [{"step": 2, "accuracy": {"math": 0.25}, "unjudged": {}}]
        assert found["position"] == 20


@pytest.mark.ranks
def test_without_a_checkpoint_the_state_is_fresh(odd: dict[str, Any]) -> None:
    assert (odd["none"]["step"], odd["none"]["position"]) == (0, 0)


@pytest.mark.ranks
def test_a_save_is_overdue_by_the_time_since_the_last_one(odd: dict[str, Any]) -> None:
    assert odd["overdue"] == [False, True]


@pytest.mark.ranks
def test_only_the_newest_checkpoints_are_kept(odd: dict[str, Any]) -> None:
    assert odd["kept"] == ["step_000002", "step_000003"]


@pytest.mark.ranks
@pytest.mark.parametrize("name", ["newest", "beside_a_partial"])
def test_the_newest_finished_checkpoint_is_taken(odd: dict[str, Any], name: str) -> None:
    assert len(set(odd["at_save"].values())) == 3
    assert odd[name] == {"step": 3, "position": 15, "weights": odd["at_save"]["3"], "warnings": []}


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("name", "what"),
    [("shorter", "bytes instead of"), ("missing", "is missing"), ("flipped", "has another checksum")],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(odd: dict[str, Any], name: str, what: str) -> None:
    (warning,) = odd[name].pop("warnings")
    assert what in warning and "step_000003" in warning and "trying the one before" in warning
    assert odd[name] == {"step": 2, "position": 10, "weights": odd["at_save"]["2"]}


@pytest.mark.ranks
def test_a_run_whose_checkpoints_are_all_damaged_ends_and_says_so(odd: dict[str, Any]) -> None:
    assert "none of its 2 checkpoints can be used" in odd["all_damaged"]["error"]
    assert len(odd["all_damaged"]["warnings"]) == 2


@pytest.mark.ranks
def test_a_checkpoint_that_was_named_and_is_damaged_is_refused(odd: dict[str, Any]) -> None:
    assert odd["named"]["error"].endswith("has another checksum); name another checkpoint of its run")
    assert not odd["named"]["warnings"]


@pytest.mark.ranks
def test_a_checkpoint_whose_manifest_is_unreadable_is_passed_over(odd: dict[str, Any]) -> None:
    assert odd["torn_manifest"]["step"] == 2
    assert "manifest.json cannot be read" in odd["torn_manifest"]["warnings"][0]


@pytest.mark.ranks
def test_everything_that_outlives_a_step_is_in_a_checkpoint(odd: dict[str, Any]) -> None:
    run, manifest = make_run(DEMO / "model", recipe=RECIPE), odd["manifest"]
    assert odd["held"] == ["best", "optimizer", "places", "reference", "torch_rng", "weights"]
    assert manifest["state"].keys() == {field.name for field in dataclasses.fields(State)}
    assert [reset["step"] for reset in manifest["state"]["reference_resets"]] == list(RESETS)
    assert (manifest["prompt_position"], manifest["seed"]) == (15, run.seed)
    assert manifest["parent"]["release"] == "prorl_v1 1.2.0"
    assert (manifest["scale"], manifest["layout"]) == ("cpu", run.scale.layout)
    assert manifest["recipe"] == "prorl_v2 2.1.0" and len(manifest["fingerprint"]) == 16


@pytest.mark.ranks
def test_another_recipe_s_checkpoint_is_refused(odd: dict[str, Any]) -> None:
    assert "made by another recipe" in odd["other_recipe"]["error"] and "--directory" in odd["other_recipe"]["error"]


@pytest.mark.ranks
def test_another_precision_s_checkpoint_is_refused(odd: dict[str, Any]) -> None:
    assert "was made with precision fp32, this run has bf16" in odd["other_precision"]["error"]


def test_a_state_survives_its_json_form() -> None:
    state = State(
        step=3,
        samples_seen=768,
        tokens_seen=12345,
        keep_rate=0.375,
        reference_resets=(Reset(step=1, reason="period"), Reset(step=3, reason="a spike")),
        kl_history=(0.25, 1 / 3),
        idle_steps=2,
        idle_streak=1,
        news=("longer",),
        policy_digest="0123456789abcdef",
        scores=(Scores(step=0, accuracy={"logic": 0.25, "math": 0.5}), Scores(step=2, accuracy={"math": 1 / 3})),
    )
    assert checkpoint.state_of(json.loads(json.dumps(dataclasses.asdict(state)))) == state
    assert checkpoint.state_of(json.loads(json.dumps(dataclasses.asdict(State.fresh())))) == State.fresh()
