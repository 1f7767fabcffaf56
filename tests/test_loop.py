"""The loop's edges, all real but the two engines: an actor of plain numbers, a rollout engine of a script."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from megatron_rl import checkpoint, train
from megatron_rl.actor.actor import Actor
from megatron_rl.actor.pack import Limits
from megatron_rl.config.records import Difficulty, Kl
from megatron_rl.config.run import Run
from megatron_rl.data.prompts import PromptStream, encode, held_out, load_tokenizer
from megatron_rl.rewards.score import Scorer
from megatron_rl.rollout.collect import Rollouts
from megatron_rl.runtime import rundir
from megatron_rl.runtime.preempt import Preempted, Preemption
from megatron_rl.types import Batch, Pack, PolicyView, State, Update
from tests.models import make_run
from tests.report.records import update as an_update
from tests.rollout.test_collect import DEMO, NUM_SAMPLES, ONE, RIGHT, WRONG, ScriptedEngine, items_of

STEPS, PROMPTS_PER_STEP, UPDATES = 5, 4, 2
RECIPE: dict[str, Any] = {
    "num_steps": STEPS,
    "sampling.prompts_per_step": PROMPTS_PER_STEP,
    "sampling.samples_per_prompt": NUM_SAMPLES,
    "sampling.max_response_tokens": 16,
    "algorithm.updates_per_step": UPDATES,
    "algorithm.dynamic_sampling": None,
    "algorithm.length": None,
    "algorithm.advantage": "leave_one_out",
    "algorithm.reference_reset.period_steps": 3,
    "algorithm.reference_reset.min_steps_between": 1,
    "algorithm.reference_reset.kl_spike": None,
    "algorithm.reference_reset.stall": None,
    "validation.samples_per_prompt": 1,
}
IN_REWARD = Kl(estimator="k1", coefficient=0.5, log_ratio_clamp=10.0, value_clamp=None, place="reward")


class CountingActor:
    """An actor whose whole policy is the number of its updates."""

    kl_in_reward = Actor.kl_in_reward

    def __init__(self, events: list[str]) -> None:
        self.events, self.weights, self.reference = events, 0, 0
        self.ranks, self.places = ONE, {"of": "nothing"}
        self.limits = Limits(max_tokens=10_000, multiple=1, packs_multiple=1, one_length=False)
        self.device: Any = type(
            "Host", (), {"host_copy": staticmethod(torch.clone), "saves_in_background": True, "dtype": torch.float32}
        )
        self.trained_on: list[list[tuple[int, float]]] = []

    def old_logprobs(self, batch: Batch, recipe: Any) -> PolicyView:
        packs = [pack.rollout_logprobs for pack in batch.packs]
        return PolicyView(
            logprobs=list(packs),
            num_tokens=1,
            entropy_nats=1.0,
            mismatch_mean_nats=0.0,
            mismatch_max_nats=0.0,
            mismatch_kl_nats=0.0,
        )

    def reference_logprobs(self, batch: Batch, recipe: Any) -> list[Any]:
        """A token's own, and less by a tenth of the sample's place in its group."""
        return [pack.rollout_logprobs - 0.1 * (pack.sequences % NUM_SAMPLES) for pack in batch.packs]

    def update(self, packs: Sequence[Pack], recipe: Any, step: int) -> Update:
        self.weights += 1
        found: dict[int, float] = {}
        for pack in packs:
            assert pack.advantages is not None
            trained = pack.response_mask > 0
            found |= dict(zip(pack.sequences[trained].tolist(), pack.advantages[trained].tolist(), strict=True))
        self.trained_on.append(sorted(found.items()))
        self.events.append(f"update {step}")
        return dataclasses.replace(an_update(), loss=float(self.weights))

    def reset_reference(self, recipe: Any) -> None:
        self.reference = self.weights
        self.events.append("reset")

    def keep_if_best(self, state: State) -> None:
        self.events.append(f"best? {state.scores[-1].step}")

    def state(self) -> dict[str, Any]:
        self.events.append(f"saved {self.weights // UPDATES}")
        numbers = {"weights": [torch.tensor([self.weights])], "reference": [torch.tensor([self.reference])]}
        return numbers | {"best": None, "optimizer": {}, "torch_rng": torch.zeros(1), "places": self.places}

    def load_state(self, saved: dict[str, Any]) -> None:
        self.weights, self.reference = int(saved["weights"][0]), int(saved["reference"][0])


class Diary:
    """Stands for the report: what it is told, in order."""

    def __init__(self, events: list[str]) -> None:
        self.events, self.states = events, []

    def start(self, state: State) -> None:
        self.events.append(f"start {state.step}")

    def scores(self, state: State, examples: Any) -> None:
        self.events.append(f"scores {state.step}")

    def step(self, state: State, collected: Any, batch: Batch, policy: Any, updates: Any) -> None:
        assert batch.advantages is not None and batch.advantages.shape == collected.groups.rewards.shape
        self.states.append(state)
        self.events.append(f"step {state.step}")

    def finish(self) -> None:
        self.events.append("finish")


@pytest.fixture(scope="module", autouse=True)
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(DEMO / "model")


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    with Scorer(num_processes=1, timeout_seconds=20.0) as scorer:
        yield scorer


class Attempt:
    """One attempt at a run in a directory, and what was seen of it."""

    def __init__(self, directory: Path, tokenizer: Any, scorer: Scorer, **changes: Any) -> None:
        run: Run = make_run(DEMO / "model", recipe=RECIPE | changes, sequences_per_wave=2 * NUM_SAMPLES)
        self.run = dataclasses.replace(
            run, directory=directory, validate_every_steps=2, save_every_steps=2, store_waves_longer_than_seconds=0.0
        )
        self.events: list[str] = []
        self.actor, self.diary = CountingActor(self.events), Diary(self.events)
        engine: Any = ScriptedEngine(tokenizer, lambda serial: [RIGHT, WRONG, RIGHT if serial % 2 else WRONG])
        self.rollouts = Rollouts(engine, tokenizer, scorer, Preemption(None, 0.0), self.run)
        items = items_of("5")
        self.prompts = PromptStream(items, tokenizer, seed=1, max_prompt_tokens=8)
        self.validation = held_out(encode(items, tokenizer, max_prompt_tokens=8), max_prompts=2)

    def go(self) -> State:
        parts: Any = (self.run, self.actor, self.rollouts, self.prompts, self.validation, self.diary)
        return train.loop(*parts)

    def leave_in_wave(self, number: int) -> None:
        """The notice comes while this wave of the attempt is generated, validations counted."""
        engine, generate = self.rollouts.engine, self.rollouts.engine.generate

        def until_told(*arguments: Any, **options: Any) -> Any:
            if len(engine.asked) == number - 1:  # type: ignore[attr-defined]
                self.rollouts.preemption.deadline = 0.0
            return generate(*arguments, **options)

        engine.generate = until_told  # type: ignore[method-assign]


@pytest.fixture
def attempt(tmp_path: Path, tokenizer: Any, scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Attempt]:
    @contextmanager
    def phase(actor: CountingActor, engine: ScriptedEngine, version: int) -> Iterator[None]:
        actor.events.append(f"awake {version}")
        engine.version = version
        yield
        actor.events.append("asleep")

    def exported(run: Run, state: State, actor: CountingActor, folder: Path) -> None:
        actor.events.append(f"export {state.step}")

    def agreed(actor: CountingActor, engine: Any, prompts: Any, recipe: Any, step: int) -> None:
        actor.events.append(f"agreed {step}")

    monkeypatch.setattr(train.agreement, "check_start", agreed)
    monkeypatch.setattr(train, "rollout_phase", phase)
    monkeypatch.setattr(train, "export", exported)
    return lambda name="run", **changes: Attempt(tmp_path / name, tokenizer, scorer, **changes)


def test_a_run_goes_through_its_phases_in_order(attempt: Callable[..., Attempt]) -> None:
    one = attempt()
    state = one.go()
    step = [["asleep", f"update {k}", f"update {k}"] for k in range(STEPS)]
    assert one.events == [
        "agreed 0", "start 0",
        "awake 0", "scores 0", "best? 0", *step[0], "step 1",
        "awake 1", *step[1], "step 2", "saved 2",
        "awake 2", "scores 2", "best? 2", *step[2], "reset", "step 3",
        "awake 3", *step[3], "step 4", "saved 4",
        "awake 4", "scores 4", "best? 4", *step[4], "step 5", "saved 5",
        "awake 5", "scores 5", "best? 5", "asleep",
        "export 5", "finish",
    ]  # fmt: skip
    assert (state.step, [reset.step for reset in state.reference_resets]) == (STEPS, [3])
    assert one.actor.reference == 3 * UPDATES
    assert [path.name for path in rundir.checkpoints(one.run.directory)] == ["step_000004", "step_000005"]
    manifest = rundir.manifest_of(checkpoint.folder_of(one.run, 4))
    assert manifest is not None and manifest["prompt_position"] == 4 * PROMPTS_PER_STEP


@pytest.mark.parametrize("wave", [4, 9])
def test_a_run_that_thins_out_easy_prompts_goes_on_to_the_same_end(attempt: Callable[..., Attempt], wave: int) -> None:
    difficulty = Difficulty(memory=0.5, easy_rate=0.6, min_probability=0.3)

    def thinned(name: str) -> Attempt:
        one = attempt(name, **{"sampling.difficulty": difficulty})
        one.prompts = PromptStream(items_of("5")[:12], one.rollouts.tokenizer, seed=1, max_prompt_tokens=8)
        return one

    whole, first, again = thinned("whole"), thinned("broken"), thinned("broken")
    expected = whole.go()
    assert whole.prompts.position > STEPS * PROMPTS_PER_STEP, "some prompts were passed over"
    first.leave_in_wave(wave)
    with pytest.raises(Preempted):
        first.go()
    assert again.go() == expected
    assert (again.prompts.position, again.prompts.pass_rates) == (whole.prompts.position, whole.prompts.pass_rates)
    assert again.prompts.response_tokens == whole.prompts.response_tokens
    assert first.actor.trained_on + again.actor.trained_on == whole.actor.trained_on


@pytest.mark.parametrize("name", ["pass_rates", "response_tokens"])
def test_a_checkpoint_with_damaged_notes_on_prompts_is_come_past(attempt: Callable[..., Attempt], name: str) -> None:
    one = attempt(**{"sampling.difficulty": Difficulty(memory=0.5, easy_rate=0.6, min_probability=0.3)})
    one.go()
    newest = checkpoint.folder_of(one.run, STEPS)
    assert json.loads((newest / f"{name}.json").read_text()) == getattr(one.prompts, name)
    (newest / f"{name}.json").write_text("{}")
    state = checkpoint.resume(one.run, one.actor, one.prompts)  # type: ignore[arg-type]
    assert state.step == STEPS - 1
    assert len(getattr(one.prompts, name)) == (STEPS - 1) * PROMPTS_PER_STEP


def test_a_checkpoint_is_saved_after_every_step_that_outlasts_the_interval(attempt: Callable[..., Attempt]) -> None:
    slow = attempt()
    slow.run = dataclasses.replace(slow.run, save_every_minutes=1e-9)
    slow.go()
    assert [event for event in slow.events if event.startswith("saved")] == [f"saved {k}" for k in range(1, STEPS + 1)]


def test_a_kl_in_the_reward_makes_what_strays_from_the_reference_worth_less(attempt: Callable[..., Attempt]) -> None:
    found = {}
    for name, kl in (("reward", IN_REWARD), ("loss", dataclasses.replace(IN_REWARD, place="loss"))):
        one = attempt(name, **{"algorithm.kl": kl, "num_steps": 1})
        one.go()
        found[name] = {int(row): value for rows in one.actor.trained_on for row, value in rows}
    for group in range(PROMPTS_PER_STEP):
        raw = [1.0, 0.0, float(group % 2)]
        length = len(one.rollouts.engine.sample(RIGHT).token_ids)  # type: ignore[attr-defined]
        # k1 of a token is log pi - log pi_ref: a tenth of the sample's place, for each of its tokens.
        paid = [reward - 0.5 * 0.1 * place * length for place, reward in enumerate(raw)]
        for name, rewards in (("reward", paid), ("loss", raw)):
            for place, reward in enumerate(rewards):
                others = [other for j, other in enumerate(rewards) if j != place]
                row = group * NUM_SAMPLES + place
                assert found[name][row] == pytest.approx(reward - sum(others) / len(others), abs=1e-6), (name, row)


@pytest.mark.parametrize("wave", range(1, 15))
def test_a_run_told_to_leave_in_any_wave_goes_on_to_the_same_end(attempt: Callable[..., Attempt], wave: int) -> None:
    whole = attempt("whole")
    expected = whole.go()
    first, again = attempt("broken"), attempt("broken")
    first.leave_in_wave(wave)
    with pytest.raises(Preempted):
        first.go()
    num_steps = len(first.diary.states)
    assert first.events[-1] not in ("finish", f"export {STEPS}")
    saved = [rundir.step_of(path) for path in rundir.checkpoints(first.run.directory)]
    assert (saved or [0])[-1] == num_steps, "a step that was done is saved"
    saves = [event for event in first.events if event.startswith("saved")]
    assert len(saves) == len(set(saves)), "and none is saved twice"
    assert again.go() == expected
    assert first.actor.trained_on + again.actor.trained_on == whole.actor.trained_on
    assert (again.actor.weights, again.actor.reference) == (whole.actor.weights, whole.actor.reference)
    asked = [sum(len(a[0]) for a in attempt.rollouts.engine.asked) for attempt in (first, again, whole)]  # type: ignore
    validated_twice = len(first.validation) * checkpoint.is_due(num_steps, 2, STEPS)
    assert asked[0] + asked[1] == asked[2] + validated_twice, "no wave of a step is generated twice"
