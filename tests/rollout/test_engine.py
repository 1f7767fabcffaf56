"""vLLM in this process: samples repeat, depend on nothing but their request and the weights, and say how they ended."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron_rl import device
from megatron_rl.config.tokenizer import stop_tokens
from megatron_rl.runtime import parallel
from megatron_rl.types import Prompt, Request, Sample
from tests.models import make_folder, make_run
from tests.ranks import run_ranks

TEMPERATURE, NUM_SAMPLES, MAX_TOKENS, EOS = 1.3, 8, 24, 1
LIMITS = {"sampling.max_prompt_tokens": 128, "sampling.max_response_tokens": 32}


def some_prompts() -> list[Prompt]:
    """Short ones and long ones; two share their first 80 tokens, more than two blocks of the cache."""
    draw = random.Random(5)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, 128) for _ in range(count))

    shared = tokens(80)
    texts = [tokens(5), tokens(31), shared + tokens(7), tokens(64), shared + tokens(20), tokens(100)]
    return [
        Prompt(serial=i, id=str(i), domain="math", token_ids=text, opens_thought=False, item={})
        for i, text in enumerate(texts)
    ]


def wave(engine: Any, prompts: list[Prompt], temperature: float = TEMPERATURE) -> dict[str, list[dict[str, Any]]]:
    """The samples of these prompts, each with the seed that goes with it wherever it is asked."""
    made = engine.generate(
        [
            Request(prompt=prompt, seed=prompt.serial << 16, num_samples=NUM_SAMPLES if temperature > 0 else 1)
            for prompt in prompts
        ],
        max_response_tokens=MAX_TOKENS,
        temperature=temperature,
        top_p=1.0,
    )
    return {prompt.id: [plain(one) for one in group] for prompt, group in zip(prompts, made, strict=True)}


def in_parts(engine: Any, prompts: list[Prompt]) -> dict[str, list[dict[str, Any]]]:
    """The same samples, each prompt's asked for in two requests, as a group that is larger than a wave is."""
    requests = [
        Request(prompt=prompt, seed=(prompt.serial << 16) + first, num_samples=count)
        for prompt in prompts
        for first, count in ((0, 3), (3, NUM_SAMPLES - 3))
    ]
    made = engine.generate(requests, max_response_tokens=MAX_TOKENS, temperature=TEMPERATURE, top_p=1.0)
    found: dict[str, list[dict[str, Any]]] = {prompt.id: [] for prompt in prompts}
    for request, part in zip(requests, made, strict=True):
        found[request.prompt.id] += [plain(sample) for sample in part]
    return found


def plain(sample: Sample) -> dict[str, Any]:
    return {**vars(sample), "token_ids": list(sample.token_ids), "logprobs": list(sample.logprobs)}


def weights_of(folder: str, scale: float = 1.0) -> Iterator[tuple[str, Tensor]]:
    """The folder's tensors; `scale` makes another policy of them."""
    from safetensors.torch import load_file

    for name, tensor in load_file(f"{folder}/model.safetensors").items():
        yield name, tensor * scale if "norm" in name else tensor


def waves(folder: str) -> dict[str, Any]:
    """Runs on one rank: everything the tests below look at that one engine can show."""
    from megatron_rl.rollout.engine import Engine

    run = make_run(folder, recipe=LIMITS)
    hardware = device.select(run.scale)
    engine = Engine(run, parallel.start(run.scale, hardware, 120), hardware)
    prompts, found = some_prompts(), {}
    try:
        wave(engine, prompts)
    except AssertionError as error:
        found["before_load"] = str(error)

    engine.load(weights_of(folder), 0)
    found["first"] = wave(engine, prompts)
    found["prefixes"] = [engine.prompt_tokens, engine.cached_tokens]
    found["later"] = wave(engine, prompts)
    found["in_parts"] = in_parts(engine, prompts)
    engine.load(weights_of(folder), 0)
    found["again"] = wave(engine, prompts)
    engine.load(weights_of(folder), 0)
    found["alone"] = {name: group for prompt in prompts for name, group in wave(engine, [prompt]).items()}
    found["other_company"] = wave(engine, prompts[::-1][:4])
    found |= launching_ahead(engine, prompts)
    found["greedy"] = wave(engine, prompts, temperature=0.0)
    state = torch.get_rng_state()
    wave(engine, some_prompts())
    found["random_state_stays"] = torch.equal(torch.get_rng_state(), state)
    found["nothing"] = engine.generate([], max_response_tokens=4, temperature=1.0, top_p=1.0)

    reset = engine.llm.reset_prefix_cache
    engine.llm.reset_prefix_cache = lambda: True  # the planted violation: nothing is dropped
    engine.load(weights_of(folder, 1.5), 1)
    found["stale_cache"] = wave(engine, prompts)
    engine.llm.reset_prefix_cache = lambda: False
    try:
        engine.load(weights_of(folder, 1.5), 1)
    except RuntimeError as error:
        found["reset_failed"] = str(error)
    engine.llm.reset_prefix_cache = reset
    engine.load(weights_of(folder, 1.5), 1)
    found["next_version"] = wave(engine, prompts)
    engine.close()
    return found


def launching_ahead(engine: Any, prompts: list[Prompt]) -> dict[str, Any]:
    """The same of an engine that launches a step before it has the answer of the last one, as it does on a GPU."""
    from megatron_rl.rollout.engine import Wanted

    core = engine.llm.llm_engine.engine_core.engine_core
    before = core.batch_queue, core.batch_queue_size, core.step_fn
    core.batch_queue, core.batch_queue_size, core.step_fn = deque(maxlen=2), 2, core.step_with_batch_queue
    lengths = []
    launch = core.step_with_batch_queue

    def step() -> Any:
        launched = launch()
        lengths.append(len(core.batch_queue))
        return launched

    core.step_fn = step
    whole = wave(engine, prompts)
    left = [len(core.batch_queue)]
    wanted = Wanted([Request(prompt=prompts[0], seed=0, num_samples=2)], MAX_TOKENS, TEMPERATURE, 1.0)
    looks = iter((False, True))
    assert not list(engine.stream([wanted], has_to_leave=lambda: next(looks)))
    left.append(len(core.batch_queue))
    core.batch_queue, core.batch_queue_size, core.step_fn = before
    return {"ahead": whole, "ahead_at_most": max(lengths), "left_ahead": left}


def fresh_waves(folder: str) -> dict[str, Any]:
    """Runs on one rank: an engine that never held other weights than those of version 1."""
    from megatron_rl.rollout.engine import Engine

    run = make_run(folder, recipe=LIMITS)
    hardware = device.select(run.scale)
    engine = Engine(run, parallel.start(run.scale, hardware, 120), hardware)
    engine.load(weights_of(folder, 1.5), 1)
    found = wave(engine, some_prompts())
    engine.close()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    (facts,) = run_ranks("tests.rollout.test_engine:waves", 1, folder=str(folder))
    return facts


@pytest.fixture(scope="module")
def fresh(folder: Path) -> dict[str, Any]:
    (facts,) = run_ranks("tests.rollout.test_engine:fresh_waves", 1, folder=str(folder))
    return facts


def tokens_of(groups: dict[str, list[dict[str, Any]]]) -> dict[str, list[list[int]]]:
    return {name: [sample["token_ids"] for sample in group] for name, group in groups.items()}


def logprobs_by_transformers(folder: Path, groups: dict[str, list[dict[str, Any]]], temperature: float) -> Tensor:
    """Of every sampled token, in order."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    parts = []
    for prompt in some_prompts():
        for sample in groups[prompt.id]:
            tokens = torch.tensor([[*prompt.token_ids, *sample["token_ids"]]])
            with torch.no_grad():
                logits = model(tokens).logits[0, len(prompt.token_ids) - 1 : -1].double() / temperature
            parts.append(logits.log_softmax(-1).gather(-1, tokens[0, len(prompt.token_ids) :, None])[:, 0])
    return torch.cat(parts)


def logprobs_of(groups: dict[str, list[dict[str, Any]]]) -> Tensor:
    return torch.tensor([value for group in groups.values() for one in group for value in one["logprobs"]]).double()


@pytest.mark.ranks
def test_an_engine_without_weights_does_not_generate(found: dict[str, Any]) -> None:
    assert found["before_load"] == "the engine has no weights before its first refit"


@pytest.mark.ranks
def test_the_same_wave_gives_the_same_bits(found: dict[str, Any]) -> None:
    assert found["first"] == found["again"] == found["later"]


@pytest.mark.ranks
def test_nothing_that_was_launched_ahead_is_under_way_when_an_engine_is_done(found: dict[str, Any]) -> None:
    """Weights are replaced next, and their memory may be given to the actor."""
    assert found["ahead_at_most"] == 1  # there was something to wait for
    assert found["left_ahead"] == [0, 0]
    assert found["ahead"] == found["first"]


@pytest.mark.ranks
def test_generating_leaves_the_random_state_of_the_process_alone(found: dict[str, Any]) -> None:
    assert found["random_state_stays"]  # a wave may come from the disk instead, and the checkpoint holds that state


@pytest.mark.ranks
def test_samples_do_not_depend_on_their_company(found: dict[str, Any]) -> None:
    tokens = tokens_of(found["first"])
    assert tokens_of(found["alone"]) == tokens
    assert tokens_of(found["other_company"]) == {name: tokens[name] for name in ("5", "4", "3", "2")}
    assert tokens_of(found["in_parts"]) == tokens


@pytest.mark.ranks
def test_samples_of_a_prompt_and_of_equal_beginnings_differ(found: dict[str, Any]) -> None:
    everything = [tuple(sample) for group in tokens_of(found["first"]).values() for sample in group]
    assert len(set(everything)) == len(everything)


@pytest.mark.ranks
def test_a_stop_token_ends_a_response_and_is_its_last_token(found: dict[str, Any]) -> None:
    samples = [sample for group in found["first"].values() for sample in group]
    stopped = [sample["token_ids"] for sample in samples if sample["finish_reason"] == "stop"]
    cut = [sample["token_ids"] for sample in samples if sample["finish_reason"] == "length"]
    assert stopped and cut and len(stopped) + len(cut) == len(samples)
    assert all(tokens[-1] == EOS and EOS not in tokens[:-1] for tokens in stopped)
    assert all(len(tokens) == MAX_TOKENS and EOS not in tokens for tokens in cut)


@pytest.mark.ranks
def test_logprobs_are_those_of_the_distribution_that_is_sampled(folder: Path, found: dict[str, Any]) -> None:
    logprobs = logprobs_of(found["first"])
    gap = logprobs - logprobs_by_transformers(folder, found["first"], TEMPERATURE)
    assert float(gap.abs().max()) < 1e-5
    unscaled = logprobs - logprobs_by_transformers(folder, found["first"], 1.0)
    assert float(unscaled.abs().mean()) > 1e-2, "the temperature makes no difference here"


@pytest.mark.ranks
def test_greedy_takes_the_likeliest_token_and_keeps_no_logprobs(folder: Path, found: dict[str, Any]) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for prompt in some_prompts():
        (sample,) = found["greedy"][prompt.id]
        assert sample["logprobs"] == []
        tokens = torch.tensor([[*prompt.token_ids, *sample["token_ids"]]])
        with torch.no_grad():
            logits = model(tokens).logits[0, len(prompt.token_ids) - 1 : -1]
        assert logits.argmax(-1).tolist() == sample["token_ids"]


@pytest.mark.ranks
def test_no_prompts_have_no_samples(found: dict[str, Any]) -> None:
    assert found["nothing"] == []


@pytest.mark.ranks
def test_samples_carry_the_version_that_made_them(found: dict[str, Any]) -> None:
    for name, version in (("first", 0), ("next_version", 1)):
        assert {one["policy_version"] for group in found[name].values() for one in group} == {version}


@pytest.mark.ranks
def test_the_prefix_cache_does_not_cross_versions(found: dict[str, Any], fresh: dict[str, Any]) -> None:
    assert found["next_version"] == fresh
    assert found["stale_cache"] != fresh, "the prompts are too short to be cached: this test shows nothing"


@pytest.mark.ranks
def test_a_prompt_is_read_once_for_its_samples(found: dict[str, Any]) -> None:
    asked, cached = found["prefixes"]
    assert asked == NUM_SAMPLES * sum(len(prompt.token_ids) for prompt in some_prompts())
    # Whole blocks of 32, but for the last token: of 87, 64, 100 and 100 tokens; the third of them begins as the first.
    assert 0 < cached <= 7 * 64 + 7 * 32 + 64 + 7 * 96 + 7 * 96


@pytest.mark.ranks
def test_a_cache_that_is_not_dropped_is_an_error(found: dict[str, Any]) -> None:
    assert found["reset_failed"].startswith("vLLM did not drop its prefix cache")


def write_json(path: Path, **content: Any) -> None:
    path.write_text(json.dumps(content))


def test_stop_tokens_are_those_of_both_files(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", eos_token_id=7)
    assert stop_tokens(tmp_path) == (7,)
    write_json(tmp_path / "generation_config.json", eos_token_id=[9, 3])
    assert stop_tokens(tmp_path) == (3, 7, 9)
    write_json(tmp_path / "config.json", eos_token_id=None)
    assert stop_tokens(tmp_path) == (3, 9)


def test_token_number_zero_is_a_stop_token(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", eos_token_id=0)
    assert stop_tokens(tmp_path) == (0,)


@pytest.mark.parametrize("content", [{}, {"eos_token_id": None}, {"eos_token_id": []}])
def test_a_folder_without_a_stop_token_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    write_json(tmp_path / "config.json", **content)
    with pytest.raises(ValueError, match=r"no eos_token_id in config\.json or generation_config\.json; add it"):
        stop_tokens(tmp_path)
