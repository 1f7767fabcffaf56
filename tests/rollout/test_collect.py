"""A step's groups: uniform ones are replaced, in order, and never for ever. The engine answers from a script."""

from __future__ import annotations

import dataclasses
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from megatron_rl.config.records import Recipe
from megatron_rl.data.items import Item
from megatron_rl.data.prompts import PromptStream, encode, held_out, load_tokenizer
from megatron_rl.evaluation.evaluate import evaluate
from megatron_rl.rewards.score import Scorer
from megatron_rl.rollout.collect import Rollouts, concatenated
from megatron_rl.rollout.engine import Wanted
from megatron_rl.runtime.parallel import Ranks
from megatron_rl.runtime.preempt import Preempted, Preemption
from megatron_rl.runtime.seeds import SAMPLES_PER_REQUEST, request_seed
from megatron_rl.types import Request, Sample, State
from recipes import prorl_v2
from tests.models import make_run, replaced
from tests.samples import sample_of

DEMO = Path(__file__).parents[2] / "demo"
WANTED, NUM_SAMPLES, MAX_RESPONSE_TOKENS, MAX_ROUNDS, VERSION = 4, 3, 16, 5, 7
RIGHT, WRONG, CUT_OFF = r"\boxed{5}", r"\boxed{6}", "555555555555555555555"
CRASHES = "<answer>5</answer>"  # with an entry that lacks what its scorer needs
ONE = Ranks(
    rank=0, world=1, tensor=0, pipeline=0, data=0, tensor_parallel=1, pipeline_parallel=1, data_parallel=1,
    engine=0, engine_rank=0, engine_size=1,
    is_first_of_machine=True,
)  # fmt: skip


class ScriptedEngine:
    """Answers as the script says, and keeps what it was asked."""

    prompt_tokens = cached_tokens = 0

    def __init__(self, tokenizer: Any, answers: Callable[[int], Sequence[str]], version: int | None = VERSION) -> None:
        self.tokenizer, self.answers, self.version, self.ranks = tokenizer, answers, version, ONE
        self.stop_tokens = (tokenizer.eos_token_id,)
        self.asked: list[tuple[list[int], list[int], dict[str, Any]]] = []
        self.streams: list[int] = []  # waves of each

    def generate(self, requests: Sequence[Request], **options: Any) -> list[tuple[Sample, ...]]:
        self.asked.append(([r.prompt.serial for r in requests], [r.seed for r in requests], options))
        made = []
        for request in requests:
            first = request.seed % SAMPLES_PER_REQUEST  # a part of a group has the seeds of its place in it
            texts = self.answers(request.prompt.serial)[first : first + request.num_samples]
            made.append(tuple(map(self.sample, texts)))
        return made

    def stream(self, waves: Iterable[Wanted]) -> Iterator[tuple[int, list[tuple[Sample, ...]]]]:
        self.streams.append(0)
        for place, wave in enumerate(waves):
            self.streams[-1] += 1
            yield place, self.generate(wave.requests, **wave.options)

    def sample(self, text: str) -> Sample:
        tokens = [*self.tokenizer(text)["input_ids"], *self.stop_tokens]
        is_cut = len(tokens) > MAX_RESPONSE_TOKENS
        tokens = tokens[:MAX_RESPONSE_TOKENS]
        return sample_of(tokens, [-0.5] * len(tokens), is_cut=is_cut, version=VERSION)


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


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    values = {
        "sampling.prompts_per_step": WANTED,
        "sampling.samples_per_prompt": NUM_SAMPLES,
        "sampling.max_response_tokens": MAX_RESPONSE_TOKENS,
        "algorithm.dynamic_sampling.max_rounds": MAX_ROUNDS,
    }
    recipe: Any = prorl_v2.RECIPE
    for name, value in values.items():
        recipe = replaced(recipe, name.split("."), value)
    return recipe


@pytest.fixture
def stream(tokenizer: Any) -> PromptStream:
    return stream_of(tokenizer, "5")


def items_of(answer: str) -> list[Item]:
    return [Item(id=f"i{k}", domain="math", prompt=f"{k:03d}", item={"answer": answer}) for k in range(100)]


def broken_stream(tokenizer: Any) -> PromptStream:
    """Puzzles whose verifier fails on any answer."""
    item = {"task": "sudoku", "entry": {"question": "", "answer": "", "metadata": {}}}
    items = [Item(id=f"i{k}", domain="logic", prompt=f"{k:03d}", item=item) for k in range(100)]
    return PromptStream(items, tokenizer, seed=1, max_prompt_tokens=8)


def stream_of(tokenizer: Any, answer: str) -> PromptStream:
    return PromptStream(items_of(answer), tokenizer, seed=1, max_prompt_tokens=8)


@pytest.fixture
def rollouts(tokenizer: Any, scorer: Scorer, tmp_path: Path) -> Callable[..., Rollouts]:
    """Rollouts over a scripted engine: mixed answers for these prompts of the stream, right ones for the others."""

    def make(
        informative: set[int], *, sequences_per_wave: int = 300, directory: Path = tmp_path, stores: bool = False
    ) -> Rollouts:
        def answers(serial: int) -> list[str]:
            return [WRONG, RIGHT, WRONG] if serial in informative else [RIGHT] * NUM_SAMPLES

        engine: Any = ScriptedEngine(tokenizer, answers)
        run = dataclasses.replace(
            make_run(DEMO / "model", sequences_per_wave=sequences_per_wave),
            seed=11,
            directory=directory,
            max_unjudged_share=0.5,
            store_waves_longer_than_seconds=0.0 if stores else 1e9,
        )
        return Rollouts(engine, tokenizer, scorer, Preemption(None, 0.0), run)

    return make


def at(step: int, keep_rate: float = 1.0) -> State:
    return dataclasses.replace(State.fresh(), step=step, keep_rate=keep_rate)


def serials(groups: Any) -> list[int]:
    return [prompt.serial for prompt in groups.prompts]


@pytest.mark.parametrize("opens", [False, True])
def test_a_thought_that_the_prompt_opened_has_to_be_closed_in_training_and_validation(
    rollouts, recipe: Recipe, opens: bool
) -> None:
    thinking = load_tokenizer(DEMO / "model")
    thinking.chat_template = "{{ messages[0].content }}=" + ("<think>\n" if opens else "")
    items = [Item(id=f"i{k}", domain="math", prompt=f"{k:03d}", item={"answer": "5"}) for k in range(WANTED)]
    scripted = rollouts(set())
    scripted.engine.answers = lambda _: [RIGHT, f"{WRONG}</think>{RIGHT}", f"{RIGHT}, but"]
    stream = PromptStream(items, thinking, seed=1, max_prompt_tokens=16)
    expected = [[0, 1, 0] if opens else [1, 1, 1]] * WANTED
    assert scripted.collect(stream, recipe, at(0)).tried.rewards[:WANTED].tolist() == expected
    validation = replaced(recipe, ["validation", "samples_per_prompt"], NUM_SAMPLES)
    prompts = held_out(encode(items, thinking, max_prompt_tokens=16), max_prompts=WANTED)
    run = dataclasses.replace(scripted.run, recipe=replaced(validation, ["algorithm", "updates_per_step"], 1))
    assert evaluate(scripted, prompts, run, 0).scores.accuracy == {"math": pytest.approx(1 / 3 if opens else 1.0)}


@pytest.mark.parametrize(("how", "expected"), [("fraction", [0.5, 1.0, 0.5]), ("binary", [0.0, 1.0, 0.0])])
def test_a_domain_pays_what_the_recipe_says(rollouts, tokenizer: Any, recipe: Recipe, how: str, expected: Any) -> None:
    item = {"instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}]}
    items = [Item(id=f"i{k}", domain="instruct", prompt=f"{k:03d}", item=item) for k in range(WANTED)]
    domains = tuple(dataclasses.replace(one, reward=how) for one in recipe.domains)
    scripted = rollouts(set())
    scripted.engine.answers = lambda _: ["7", '"7"', "5"]
    stream = PromptStream(items, tokenizer, seed=1, max_prompt_tokens=8)
    found = scripted.collect(stream, dataclasses.replace(recipe, domains=domains), at(0))
    assert found.tried.rewards.tolist() == found.groups.rewards.tolist() == [expected] * WANTED


def test_a_full_first_round_is_the_only_one(rollouts, stream: PromptStream, recipe: Recipe) -> None:
    collected = rollouts(set(range(100))).collect(stream, recipe, at(0))
    assert (serials(collected.groups), collected.rounds, stream.position) == ([0, 1, 2, 3], 1, 4)
    assert collected.groups.rewards.tolist() == [[0, 1, 0]] * WANTED
    assert collected.groups.judged.all()
    assert collected.groups.policy_version == VERSION


def test_the_first_round_is_larger_where_the_last_step_kept_few(rollouts, stream: PromptStream, recipe: Recipe) -> None:
    collected = rollouts({1, 2, 5, 7}).collect(stream, recipe, at(0, keep_rate=0.5))
    assert serials(collected.groups) == [1, 2, 5, 7]
    assert (collected.rounds, stream.position, collected.keep_rate) == (1, 8, 0.5)


def test_uniform_groups_are_replaced_and_the_order_is_kept(rollouts, stream: PromptStream, recipe: Recipe) -> None:
    collected = rollouts({1, 2, 5, 7}).collect(stream, recipe, at(0))
    assert serials(collected.groups) == [1, 2, 5, 7]
    assert serials(collected.tried) == list(range(8))
    assert (collected.rounds, stream.position) == (2, 8)  # 2 more at a rate of 2 in 4 need 4 prompts


def test_surplus_groups_are_dropped_and_their_prompts_are_not_met_again(
    rollouts, stream: PromptStream, recipe: Recipe
) -> None:
    over = rollouts({1, 2, 4, 5, 6, 7})
    assert serials(over.collect(stream, recipe, at(0)).groups) == [1, 2, 4, 5]
    assert over.engine.asked[-1][0] == [4, 5, 6, 7]
    assert stream.position == 8
    assert min(serials(over.collect(stream, recipe, at(1)).tried)) == 8


def test_the_samples_of_a_group_are_its_own_after_the_choice(rollouts, stream: PromptStream, recipe: Recipe) -> None:
    chosen = rollouts({1, 2, 5, 7})
    chosen.engine.answers = lambda serial: [f"\\boxed{{{serial}}}", RIGHT, WRONG]  # 5 and 6 are uniform in no group
    groups = chosen.collect(stream, recipe, at(0)).groups
    for index, serial in enumerate(serials(groups)):
        mine = [groups.samples[index * NUM_SAMPLES + j] for j in range(NUM_SAMPLES)]
        assert mine[0] == chosen.engine.sample(f"\\boxed{{{serial}}}")
        assert groups.lengths[index].tolist() == [len(sample.token_ids) for sample in mine]


@pytest.mark.parametrize("informative", [set(), {3, 9}])
def test_a_step_ends_after_the_last_round_with_what_there_is(
    rollouts, stream: PromptStream, recipe: Recipe, informative: set[int]
) -> None:
    collected = rollouts(informative).collect(stream, recipe, at(0))
    assert collected.rounds == MAX_ROUNDS
    assert serials(collected.groups) == sorted(informative)
    assert serials(collected.tried) == list(range(stream.position))
    assert collected.groups.rewards.shape == (len(informative), NUM_SAMPLES)
    assert collected.tried.samples == {}


def test_seeds_come_from_run_step_and_place_in_the_stream(rollouts, stream: PromptStream, recipe: Recipe) -> None:
    stream.seek(20)
    watched = rollouts({22})
    watched.collect(stream, recipe, at(3))
    assert len(watched.engine.asked) == MAX_ROUNDS
    for asked, seeds, _ in watched.engine.asked:
        assert seeds == [request_seed(11, 3, serial) for serial in asked]


def test_the_recipe_s_sampling_reaches_the_engine(rollouts, stream: PromptStream, recipe: Recipe) -> None:
    watched = rollouts(set(range(100)))
    watched.collect(stream, replaced(recipe, ["sampling", "temperature"], 1.3), at(0))
    assert watched.engine.asked[0][2] == {
        "max_response_tokens": MAX_RESPONSE_TOKENS,
        "temperature": 1.3,
        "top_p": recipe.sampling.top_p,
    }


def test_waves_are_of_the_fixed_size_and_change_nothing(rollouts, stream: PromptStream, recipe: Recipe) -> None:
    in_waves, at_once = rollouts({0, 2, 3, 5}, sequences_per_wave=9), rollouts({0, 2, 3, 5})
    waved = in_waves.collect(stream, recipe, at(0))
    stream.seek(0)
    whole = at_once.collect(stream, recipe, at(0))
    assert [asked for asked, _, _ in in_waves.engine.asked] == [[0, 1, 2], [3], [4, 5]]
    assert [asked for asked, _, _ in at_once.engine.asked] == [[0, 1, 2, 3], [4, 5]]
    assert serials(waved.groups) == serials(whole.groups) == [0, 2, 3, 5]
    assert dict(waved.groups.samples) == dict(whole.groups.samples)


@pytest.mark.parametrize(("deterministic", "streams"), [(False, [2, 1]), (True, [1, 1, 1])])
def test_waves_of_a_round_share_the_engine_unless_each_is_to_come_out_the_same(
    deterministic: bool, streams: list[int], rollouts, stream: PromptStream, recipe: Recipe
) -> None:
    found = rollouts({0, 2, 3, 5}, sequences_per_wave=9)
    found.run = dataclasses.replace(found.run, scale=dataclasses.replace(found.run.scale, deterministic=deterministic))
    found.engine.prompt_tokens, found.engine.cached_tokens = 10, 3
    collected = found.collect(stream, recipe, at(0))
    assert (found.engine.streams, serials(collected.groups)) == (streams, [0, 2, 3, 5])
    assert found.spent[1:] == (10 * len(streams), 3 * len(streams), 0, 0)


def test_a_group_larger_than_a_wave_is_the_same_in_parts(rollouts, stream: PromptStream, recipe: Recipe) -> None:
    in_parts, at_once = rollouts({0, 2, 3, 5}, sequences_per_wave=2), rollouts({0, 2, 3, 5})
    for one in (in_parts, at_once):
        one.engine.answers = lambda serial: [WRONG, RIGHT, CUT_OFF]  # no part is like another
    parted = in_parts.collect(stream, recipe, at(0)).groups
    stream.seek(0)
    whole = at_once.collect(stream, recipe, at(0)).groups
    # The larger parts come first, in order.
    assert [asked for asked, _, _ in in_parts.engine.asked[:6]] == [[0], [1], [2], [3], [0, 1], [2, 3]]
    assert dict(parted.samples) == dict(whole.samples)
    for field in ("rewards", "outcomes", "lengths", "truncated", "owners"):
        assert torch.equal(getattr(parted, field), getattr(whole, field)), field


def test_stored_waves_are_not_generated_again(rollouts, stream: PromptStream, recipe: Recipe) -> None:
    first, again = (rollouts({0, 2, 3, 5}, sequences_per_wave=9, stores=True) for _ in range(2))
    whole = first.collect(stream, recipe, at(0))
    stream.seek(0)
    from_bank = again.collect(stream, recipe, at(0))
    assert again.engine.asked == []
    everything = from_bank.tried.rewards.numel(), int(from_bank.tried.lengths.sum())
    assert (from_bank.stored_samples, from_bank.stored_tokens) == everything
    assert whole.stored_samples == whole.stored_tokens == 0
    assert dict(from_bank.groups.samples) == dict(whole.groups.samples)
    assert torch.equal(from_bank.groups.rewards, whole.groups.rewards)


def test_a_damaged_wave_is_generated_again(rollouts, stream: PromptStream, recipe: Recipe, tmp_path: Path) -> None:
    first, again = (rollouts({0, 2, 3, 5}, sequences_per_wave=9, stores=True) for _ in range(2))
    whole = first.collect(stream, recipe, at(0))
    stream.seek(0)
    files = sorted((tmp_path / "rollouts" / "step_000000").iterdir())
    assert len(files) == 3
    files[0].write_bytes(files[0].read_bytes()[:-1])
    assert dict(again.collect(stream, recipe, at(0)).groups.samples) == dict(whole.groups.samples)
    assert len(again.engine.asked) == 1


def test_another_policy_s_waves_are_left_alone(rollouts, stream: PromptStream, recipe: Recipe) -> None:
    first, again = (rollouts({0, 2, 3, 5}, stores=True) for _ in range(2))
    first.collect(stream, recipe, at(0))
    stream.seek(0)
    again.collect(stream, recipe, dataclasses.replace(at(0), policy_digest="another"))
    assert len(again.engine.asked) == 2


def test_waves_of_other_weights_are_left_alone_before_the_first_checkpoint(
    rollouts, stream: PromptStream, recipe: Recipe
) -> None:
    first, again = (rollouts({0, 2, 3, 5}, stores=True) for _ in range(2))
    first.collect(stream, recipe, at(0))
    stream.seek(0)
    again.run = dataclasses.replace(again.run, identity={"weights": "of another model"})
    again.collect(stream, recipe, at(0))
    assert len(again.engine.asked) == 2


def test_a_step_that_has_to_leave_goes_on_with_what_it_finished(rollouts, stream: PromptStream, recipe: Recipe) -> None:
    leaving, again = (rollouts({0, 2, 3, 5}, sequences_per_wave=3, stores=True) for _ in range(2))
    generate = leaving.engine.generate

    def until_told(requests: Sequence[Request], **options: Any) -> list[tuple[Sample, ...]]:
        if len(leaving.engine.asked) == 1:
            leaving.preemption.deadline = 0.0  # time is up during the second wave
        return generate(requests, **options)

    leaving.engine.generate = until_told
    with pytest.raises(Preempted, match="the time limit is near"):
        leaving.collect(stream, recipe, at(0))
    assert stream.position == 0, "the stream is where the step began"
    collected = again.collect(stream, recipe, at(0))
    assert [asked for asked, _, _ in leaving.engine.asked] == [[0], [1]]
    assert [asked for asked, _, _ in again.engine.asked] == [[2], [3], [4], [5]]
    stream.seek(0)
    whole = rollouts({0, 2, 3, 5}, sequences_per_wave=3).collect(stream, recipe, at(0))
    assert dict(collected.groups.samples) == dict(whole.groups.samples)


def test_an_answer_cut_off_is_told_from_one_that_ended(rollouts, stream: PromptStream, recipe: Recipe) -> None:
    cut = rollouts(set())
    cut.engine.answers = lambda serial: [RIGHT, CUT_OFF, WRONG]
    groups = cut.collect(stream, recipe, at(0)).groups
    num_tokens = len(cut.engine.sample(RIGHT).token_ids)
    assert groups.truncated.tolist() == [[False, True, False]] * WANTED
    assert groups.lengths.tolist() == [[num_tokens, MAX_RESPONSE_TOKENS, num_tokens]] * WANTED
    assert groups.rewards.tolist() == [[1, 0, 0]] * WANTED


def test_the_verifier_reads_the_response_without_its_stop_token(
    rollouts, stream: PromptStream, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    watched = rollouts(set())
    watched.engine.answers = lambda serial: [RIGHT, CUT_OFF, WRONG]
    submit = watched.scorer.submit

    def watching(cases: list[Any]) -> list[Any]:
        read.extend(case.response for case in cases)
        return submit(cases)

    monkeypatch.setattr(watched.scorer, "submit", watching)
    watched.collect(stream, recipe, at(0))
    assert read == [RIGHT, CUT_OFF[:MAX_RESPONSE_TOKENS], WRONG] * WANTED


def test_a_sample_whose_verifier_failed_is_unjudged_and_makes_no_group_informative(
    rollouts, tokenizer: Any, recipe: Recipe
) -> None:
    failing = rollouts(set())
    failing.engine.answers = lambda serial: ["no box", "none", CRASHES]
    stream = broken_stream(tokenizer)
    collected = failing.collect(stream, replaced(recipe, ["algorithm", "dynamic_sampling", "max_rounds"], 2), at(0))
    assert collected.tried.judged.tolist() == [[True, True, False]] * (4 + 16)
    assert collected.tried.rewards.tolist() == [[0, 0, 0]] * (4 + 16)
    assert len(collected.groups) == 0


def test_a_step_whose_verifiers_are_broken_ends_the_run(rollouts, tokenizer: Any, recipe: Recipe) -> None:
    failing = rollouts(set())
    failing.engine.answers = lambda serial: [CRASHES, CRASHES, "no box"]
    with pytest.raises(RuntimeError, match=r"67% of 12 samples could not be judged \(8 crashed in logic\)"):
        failing.collect(broken_stream(tokenizer), recipe, at(3))


def test_an_engine_without_weights_is_not_asked(rollouts, stream: PromptStream, recipe: Recipe) -> None:
    empty = rollouts(set())
    empty.engine.version = None
    with pytest.raises(AssertionError, match="no weights before its first refit"):
        empty.collect(stream, recipe, at(0))


def test_taking_groups_keeps_numbers_and_samples_together(rollouts, stream: PromptStream, recipe: Recipe) -> None:
    made = rollouts({0, 3})
    groups = made.answer(
        stream.take(4), 0, samples_per_prompt=NUM_SAMPLES, max_response_tokens=9, temperature=1.0, top_p=1.0
    )
    taken = groups.take([3, 1])
    assert serials(taken) == [3, 1]
    assert taken.rewards.tolist() == [[0, 1, 0], [1, 1, 1]]
    for new, old in enumerate([3, 1]):
        for j in range(NUM_SAMPLES):
            assert taken.samples[new * NUM_SAMPLES + j] == groups.samples[old * NUM_SAMPLES + j]
    assert torch.equal(taken.lengths, groups.lengths[[3, 1]])
    assert len(groups.take([])) == 0


def test_joined_groups_are_those_of_the_parts_in_order(rollouts, stream: PromptStream, recipe: Recipe) -> None:
    made = rollouts({0, 3, 5})
    groups = made.answer(
        stream.take(6), 0, samples_per_prompt=NUM_SAMPLES, max_response_tokens=9, temperature=1.0, top_p=1.0
    )
    elsewhere = {row: sample for row, sample in groups.samples.items() if row % 4 != 3}  # the rest: another engine's
    groups = type(groups)(**{**vars(groups), "samples": elsewhere})
    again = concatenated([groups.take([0, 1]), groups.take([]), groups.take([2, 3, 4, 5])])
    assert again.prompts == groups.prompts
    assert dict(again.samples) == elsewhere
    for field in ("rewards", "outcomes", "lengths", "truncated", "owners"):
        assert torch.equal(getattr(again, field), getattr(groups, field))


def test_an_engine_without_prompts_scores_nothing(rollouts, recipe: Recipe) -> None:
    groups = rollouts(set()).answer(
        (), 0, samples_per_prompt=NUM_SAMPLES, max_response_tokens=4, temperature=1.0, top_p=1.0
    )
    assert (len(groups), groups.rewards.shape, groups.samples) == (0, (0, NUM_SAMPLES), {})


def test_what_is_dropped_has_no_bias_of_length(rollouts, stream: PromptStream, recipe: Recipe) -> None:
    """Whatever is answered first or last: kept are the first of the stream that teach something."""
    draw = random.Random(3)
    informative = {serial for serial in range(4000) if draw.random() < 0.6}
    extra = {serial: draw.randrange(6) for serial in range(4000)}  # characters before the answer
    biased = rollouts(informative)
    answers = biased.engine.answers
    biased.engine.answers = lambda serial: ["1" * extra[serial] + text for text in answers(serial)]
    kept, met, of_shortest = [], [], []
    for step in range(40):
        begin = stream.position
        state = dataclasses.replace(at(step, keep_rate=0.6), response_tokens={"math": 12.0})
        collected = biased.collect(stream, recipe, state)
        found = [serial for serial in range(begin, stream.position) if serial in informative]
        assert serials(collected.groups) == found[:WANTED]
        kept += collected.groups.lengths.flatten().tolist()
        met += collected.tried.take([serial - begin for serial in found]).lengths.flatten().tolist()
        of_shortest += sorted(found, key=extra.__getitem__)[:WANTED]  # as if what ends first were kept
    assert len(met) > 1.1 * len(kept), "some were dropped"
    mean, error = statistics.fmean(met), statistics.stdev(met) / len(kept) ** 0.5
    assert abs(statistics.fmean(kept) - mean) < 3 * error
    assert min(met) + statistics.fmean(map(extra.__getitem__, of_shortest)) < mean - 3 * error
