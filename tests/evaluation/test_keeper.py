"""The process that keeps samples writes them at once, judges them after, says what failed, and leaves when told."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from array import array
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from megatron_rl.commands.suites import find_suite
from megatron_rl.data.prompts import load_tokenizer
from megatron_rl.evaluation import store
from megatron_rl.evaluation.keeper import Keeper, Part
from megatron_rl.evaluation.plan import Ask, Evaluation, Policy, asks_of
from megatron_rl.evaluation.run import items_of
from megatron_rl.evaluation.store import SAMPLES, Wave
from megatron_rl.runtime.preempt import SIGNALS
from megatron_rl.types import Sample
from recipes.scales import SCALES
from tests.test_checkpoint_faults import small_disk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MODEL = Path(__file__).parents[2] / "demo" / "model"


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    policy = Policy(name="model", title="model", folder=MODEL, step=None, shape_folder=MODEL)
    asks = asks_of([find_suite("mini")], samples_per_problem=4)[:1]
    directory = tmp_path_factory.mktemp("kept")
    found = Evaluation(directory=directory, policies=(policy,), asks=asks, scale=SCALES["cpu"])
    items_of(found, asks[0])
    return found


@pytest.fixture
def keeper(evaluation: Evaluation) -> Iterator[Keeper]:
    with Keeper(evaluation) as keeper:
        yield keeper


def wave_of(evaluation: Evaluation, number: int, text: str, num_samples: int = 4) -> tuple[Ask, Wave, tuple[Part, ...]]:
    """A wave of one request, all of whose samples are `text`."""
    (ask,) = evaluation.asks
    tokens = array("i", load_tokenizer(MODEL)(text, add_special_tokens=False)["input_ids"])
    one = Sample(token_ids=tokens, logprobs=array("f"), finish_reason="stop", policy_version=0)
    folder = store.folder_of(evaluation.directory, "model", ask.name)
    problem = items_of(evaluation, ask)[0]
    part = Part(problem.id, 0, 7, False, (one,) * num_samples)
    return ask, Wave(folder=folder, number=number), (part,)


def right_answer(evaluation: Evaluation) -> str:
    return str(items_of(evaluation, evaluation.asks[0])[0].opened()["answer"])


def test_a_wave_is_written_and_judged_and_one_that_was_written_is_judged_again(
    evaluation: Evaluation, keeper: Keeper
) -> None:
    text = f"<{right_answer(evaluation)}>"
    ask, wave, parts = wave_of(evaluation, 0, text)
    keeper.keep(ask, wave, parts)
    keeper.wait(lambda: False)
    lines = store.read_lines(wave.path(SAMPLES))
    assert [(one["sample"], one["seed"], one["response"]) for one in lines] == [(i, 7 + i, text) for i in range(4)]
    first = wave.path("ours").read_bytes()
    wave.path("ours").unlink()
    keeper.judge(ask, wave)
    keeper.wait(lambda: False)
    assert wave.path("ours").read_bytes() == first and len(first.splitlines()) == 4


def test_what_cannot_be_written_is_an_error_of_the_evaluation(evaluation: Evaluation, keeper: Keeper) -> None:
    ask, wave, parts = wave_of(evaluation, 0, "1")
    blocked = evaluation.directory / "blocked"
    blocked.write_text("no folder")
    with pytest.raises(OSError, match="blocked"):
        keeper.keep(ask, dataclasses.replace(wave, folder=blocked), parts)
        keeper.wait(lambda: False)


def test_a_full_disk_is_named_and_what_was_written_is_whole(
    evaluation: Evaluation, keeper: Keeper, tmp_path: Path
) -> None:
    ask, wave, parts = wave_of(evaluation, 0, "1")
    with small_disk(tmp_path / "disk") as is_mounted:
        if not is_mounted:
            pytest.skip("a small disk is mounted, which needs root and a kernel that lets it")
        small = dataclasses.replace(wave, folder=tmp_path / "disk")
        keeper.keep(ask, small, parts)
        keeper.wait(lambda: False)
        with suppress(OSError), (tmp_path / "disk" / "rest").open("wb", buffering=0) as rest:
            while rest.write(b"0" * 4096):
                pass
        with pytest.raises(OSError, match=r"No space left on device: '.*samples/wave_00001\.jsonl'"):
            keeper.keep(ask, dataclasses.replace(small, number=1), parts)
            keeper.wait(lambda: False)
        assert small.has("ours") and not dataclasses.replace(small, number=1).has(SAMPLES)


def test_problems_that_cannot_be_read_are_an_error_and_nothing_waits_for_ever(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    ask, wave, parts = wave_of(evaluation, 0, "1")
    (store.problems_folder(tmp_path) / f"{ask.name}.jsonl").mkdir(parents=True)
    deadline = time.monotonic() + 60
    with (
        Keeper(dataclasses.replace(evaluation, directory=tmp_path)) as keeper,
        pytest.raises(OSError, match="Is a directory"),
    ):
        keeper.keep(ask, dataclasses.replace(wave, folder=tmp_path / "samples"), parts)
        keeper.wait(lambda: time.monotonic() > deadline)


def test_a_process_that_was_killed_is_named_and_nothing_waits_for_ever(evaluation: Evaluation, keeper: Keeper) -> None:
    wave = wave_of(evaluation, 9, "1")
    os.kill(keeper.process_id, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="keeps samples ended with status -9; what it wrote is whole: start again"):
        keeper.keep(*wave)
        keeper.wait(lambda: False)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_to_leave_is_for_its_parent(evaluation: Evaluation, keeper: Keeper, number: signal.Signals) -> None:
    os.kill(keeper.process_id, number)  # while it still imports
    ask, wave, parts = wave_of(evaluation, 10 + number, "1")
    keeper.keep(ask, wave, parts)
    keeper.wait(lambda: False)
    os.kill(keeper.process_id, number)
    keeper.keep(ask, dataclasses.replace(wave, number=100 + number), parts)
    keeper.wait(lambda: False)
    assert wave.has("ours") and dataclasses.replace(wave, number=100 + number).has("ours")


def test_leaving_writes_what_was_handed_over_and_waits_for_no_verdict(evaluation: Evaluation) -> None:
    with Keeper(evaluation) as keeper:
        waves = [wave_of(evaluation, number, "1" * (number % 7 + 1), 64) for number in range(20, 60)]
        for ask, wave, parts in waves:
            keeper.keep(ask, wave, parts)
        keeper.wait(lambda: True)
        began = time.monotonic()
    assert time.monotonic() - began < 60
    assert all(wave.has(SAMPLES) for _, wave, _ in waves)
