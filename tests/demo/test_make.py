"""The demo's committed files are what its script makes and what its verifiers accept."""

from __future__ import annotations

import importlib.util
import itertools
import json
import random
import struct
from pathlib import Path
from types import ModuleType

import pytest

from megatron_rl.data.items import Item, read_items
from megatron_rl.data.prompts import load_tokenizer
from megatron_rl.rewards.score import VERIFIERS
from megatron_rl.types import Verdict

DEMO = Path(__file__).parents[2] / "demo"
MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS = 24, 24


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_make", DEMO / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(DEMO / "model")


@pytest.fixture(scope="module")
def items() -> dict[str, tuple[Item, ...]]:
    return {name: read_items(DEMO / "data" / f"{name}.jsonl") for name in ("train", "validation")}


def verdict(item: Item, response: str) -> Verdict:
    verifier = VERIFIERS[item.domain]
    found = verifier.prepare(response, item.item)
    return found if isinstance(found, Verdict) else verifier.judge(found, item.item)


def test_training_and_validation_share_no_problem(items: dict[str, tuple[Item, ...]]) -> None:
    prompts = [item.prompt for part in items.values() for item in part]
    assert len(set(prompts)) == len(prompts)
    assert len({item.id for part in items.values() for item in part}) == len(prompts)


def test_every_reference_answer_is_right_and_another_is_wrong(items: dict[str, tuple[Item, ...]]) -> None:
    for item in itertools.chain(*items.values()):
        if item.domain == "math":
            right, wrong = f"\\boxed{{{item.item['answer']}}}", "\\boxed{10}"
        else:
            right, wrong = f"<answer>{item.item['entry']['answer']}</answer>", f"<answer>{item.id}</answer>"
        assert verdict(item, right).score == 1.0, item
        assert verdict(item, wrong).score == 0.0, item


def test_both_domains_are_there_in_equal_numbers(items: dict[str, tuple[Item, ...]]) -> None:
    for part in items.values():
        counts = [sum(item.domain == domain for item in part) for domain in ("math", "logic")]
        assert counts[0] == counts[1] == len(part) // 2


def test_the_script_makes_the_committed_problems_and_tokenizer(make: ModuleType, tmp_path: Path) -> None:
    for name, part in zip(("train", "validation"), make.make_problems(1), strict=True):
        make.write_items(tmp_path / name, part)
        assert (tmp_path / name).read_bytes() == (DEMO / "data" / f"{name}.jsonl").read_bytes()
    make.make_tokenizer().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text()) == json.loads(
        (DEMO / "model" / "tokenizer.json").read_text()
    )


def test_text_survives_the_tokenizer(make: ModuleType, tokenizer, items: dict[str, tuple[Item, ...]]) -> None:
    texts = [item.prompt for part in items.values() for item in part[::50]]
    generator = random.Random(1)
    texts += [
        text for domain in ("math", "logic") for _ in range(50) for text in make.warm_up_example(domain, generator)
    ]
    for text in [*texts, make.CHARACTERS, " a  b , . \n\n' ?", "x".join(make.TAGS)]:
        token_ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(token_ids) == text
        assert tokenizer.decode([*token_ids, tokenizer.eos_token_id], skip_special_tokens=True) == text


def test_prompts_and_answers_are_short(make: ModuleType, tokenizer, items: dict[str, tuple[Item, ...]]) -> None:
    prompts = tokenizer([item.prompt for part in items.values() for item in part])["input_ids"]
    assert max(map(len, prompts)) <= MAX_PROMPT_TOKENS
    generator = random.Random(1)
    responses = [make.warm_up_example(domain, generator)[1] for domain in ("math", "logic") for _ in range(300)]
    assert max(len(tokens) + 1 for tokens in tokenizer(responses)["input_ids"]) <= MAX_RESPONSE_TOKENS


def test_worked_examples_are_right_and_guesses_mostly_are_not(make: ModuleType) -> None:
    generator = random.Random(1)
    for domain in ("math", "logic"):
        scores: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(400):
            prompt, response = make.warm_up_example(domain, generator)
            if domain == "math":
                row = sorted(prompt.removeprefix(make.MEDIAN).removesuffix("?").split())
                item = {"answer": row[len(row) // 2]}
            else:
                word = prompt.removeprefix(make.SPELL)
                entry = {"question": prompt, "answer": word[::-1], "metadata": {"word": word}}
                item = {"task": "spell_backward", "entry": entry}
            found = verdict(Item(id="x", domain=domain, prompt=prompt, item=item), response)
            scores["<think>" in response].append(found.score)
        assert set(scores[True]) == {1.0}
        assert sum(scores[False]) / len(scores[False]) < 0.3


def test_the_model_is_a_small_untied_fp32_qwen2() -> None:
    config = json.loads((DEMO / "model" / "config.json").read_text())
    assert (config["model_type"], config["tie_word_embeddings"], config["vocab_size"] % 64) == ("qwen2", False, 0)
    weights = DEMO / "model" / "model.safetensors"
    assert weights.stat().st_size < 3_000_000
    with weights.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    del header["__metadata__"]
    assert {tensor["dtype"] for tensor in header.values()} == {"F32"}
    assert {"lm_head.weight", "model.layers.0.self_attn.q_proj.bias"} <= header.keys()
