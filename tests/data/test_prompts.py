"""The prompt stream: one order everywhere, resumable, a permutation per pass."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.config.checks import UserError
from megatron_rl.data.items import Item
from megatron_rl.data.prompts import PromptStream, encode, held_out, load_tokenizer

DEMO = Path(__file__).parents[2] / "demo"
GOLDEN = ["i9", "i4", "i1", "i5", "i8", "i3", "i7", "i0", "i2", "i6", "i0", "i4"]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(DEMO / "model")


def items(count: int, length: int = 3) -> list[Item]:
    return [Item(id=f"i{k}", domain="math", prompt=f"{k:0{length}d}", item={"answer": str(k)}) for k in range(count)]


def identifiers(stream: PromptStream, count: int) -> list[str]:
    return [prompt.id for prompt in stream.take(count)]


def test_every_pass_meets_every_prompt_once_in_another_order(tokenizer) -> None:
    stream = PromptStream(items(50), tokenizer, seed=1, max_prompt_tokens=8)
    passes = [identifiers(stream, 50) for _ in range(3)]
    assert all(sorted(one) == sorted(item.id for item in items(50)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3


def test_the_order_depends_on_the_seed_and_not_on_the_order_of_the_file(tokenizer) -> None:
    order = identifiers(PromptStream(items(50), tokenizer, seed=1, max_prompt_tokens=8), 70)
    assert order == identifiers(PromptStream(items(50)[::-1], tokenizer, seed=1, max_prompt_tokens=8), 70)
    assert order != identifiers(PromptStream(items(50), tokenizer, seed=2, max_prompt_tokens=8), 70)


def test_the_order_is_the_same_in_every_version(tokenizer) -> None:
    stream = PromptStream(items(10), tokenizer, seed=1, max_prompt_tokens=8)
    assert identifiers(stream, 12) == GOLDEN, "blake2b of 'seed:pass:id', sorted; it must never change"


def test_a_stream_goes_on_from_any_position(tokenizer) -> None:
    whole = PromptStream(items(7), tokenizer, seed=3, max_prompt_tokens=8)
    prompts = whole.take(30)
    assert [prompt.serial for prompt in prompts] == list(range(30))
    for position in (0, 5, 7, 13, 20):
        resumed = PromptStream(items(7), tokenizer, seed=3, max_prompt_tokens=8)
        resumed.seek(position)
        assert resumed.take(3) + resumed.take(2) == prompts[position : position + 5]
        assert resumed.position == position + 5


def test_long_prompts_are_dropped_and_counted(tokenizer) -> None:
    mixed = items(4, length=3) + [Item(id="long", domain="math", prompt="1" * 9, item={"answer": "1"})]
    stream = PromptStream(mixed, tokenizer, seed=1, max_prompt_tokens=8)
    assert (len(stream), stream.left_out) == (4, {"math": (1, 5)})
    assert "long" not in identifiers(stream, 8)
    with pytest.raises(ValueError, match=r"none of 5 prompts has at most 2 tokens; raise sampling\.max_prompt_tokens"):
        PromptStream(mixed, tokenizer, seed=1, max_prompt_tokens=2)


def test_a_negative_position_is_refused(tokenizer) -> None:
    with pytest.raises(ValueError, match="position -1"):
        PromptStream(items(4), tokenizer, seed=1, max_prompt_tokens=8).seek(-1)


def test_prompts_are_encoded_without_special_tokens(tokenizer) -> None:
    (prompt,) = PromptStream(items(1), tokenizer, seed=1, max_prompt_tokens=8).take(1)
    assert prompt.token_ids == tuple(tokenizer.convert_tokens_to_ids(list("000")))


def test_a_chat_template_is_applied_where_there_is_one() -> None:
    tokenizer = load_tokenizer(DEMO / "model")
    tokenizer.chat_template = "[{{ messages[0].content }}]{% if add_generation_prompt %}={% endif %}"
    (prompt,) = PromptStream(items(1), tokenizer, seed=1, max_prompt_tokens=8).take(1)
    assert tokenizer.decode(prompt.token_ids) == "[000]="


R1 = (  # as DeepSeek-R1-Distill's of February 2025
    "{% for message in messages %}{{ '<user>' + message.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant><think>\\n' }}{% endif %}"
)
TEMPLATES = {  # and whether it opens a thought, whatever the prompt says
    "[{{ messages[0].content }}]": False,
    R1: True,
    R1.replace("<think>\\n", ""): False,  # of January 2025
    R1.replace("<think>\\n", "<think>\\n\\n</think>\\n\\n"): False,  # Qwen3's where it is not to think
    R1.replace("<think>\\n", "<think>\\nLet me see: "): True,
    "{{ messages[0].content }}=<think>": True,  # written without being asked for
    "Start with <think> and go on. [{{ messages[0].content }}]=": False,  # spoken of before the prompt
    "Use <think> and </think>. [{{ messages[0].content }}]=<think>\n": True,
    "[{{ messages[0].content | trim }}]=<think></think><think>": True,
    "[{{ messages[0].content }}]={{ '<think></think>' if '/no' in messages[0].content else '<think>' }}": True,
}
MENTIONS = ("2+2", "What is <think>?", "</think> closes <think>", "<think>", "<thi<think>nk>", "a", "think", "")


@pytest.mark.parametrize("template", TEMPLATES)
def test_whether_a_prompt_opens_a_thought_is_known_from_what_its_template_writes(template: str) -> None:
    tokenizer = load_tokenizer(DEMO / "model")
    tokenizer.chat_template = template
    problems = [Item(id=f"i{k}", domain="math", prompt=text, item={"answer": "4"}) for k, text in enumerate(MENTIONS)]
    stream = PromptStream(problems, tokenizer, seed=1, max_prompt_tokens=200)
    for prompt in (
        *stream.take(len(MENTIONS)),
        *held_out(encode(problems, tokenizer, max_prompt_tokens=200), max_prompts=9),
    ):
        assert prompt.opens_thought is TEMPLATES[template], f"{tokenizer.decode(prompt.token_ids)}"


def test_a_template_may_open_a_thought_of_some_prompts_alone() -> None:
    tokenizer = load_tokenizer(DEMO / "model")
    tokenizer.chat_template = list(TEMPLATES)[-1]
    problems = [Item(id=text, domain="math", prompt=text, item={"answer": "4"}) for text in ("2+2", "2+2 /no")]
    prompts = held_out(encode(problems, tokenizer, max_prompt_tokens=200), max_prompts=2)
    assert [prompt.opens_thought for prompt in prompts] == [True, False]


def test_without_a_template_a_prompt_opens_a_thought_where_it_ends_in_one(tokenizer) -> None:
    texts = {"User: 2+2\nAssistant: <think>\n": True, "What is <think>?": False, "<think>2</think> 2+2": False}
    problems = [Item(id=text, domain="math", prompt=text, item={"answer": "4"}) for text in texts]
    prompts = held_out(encode(problems, tokenizer, max_prompt_tokens=200), max_prompts=3)
    assert [prompt.opens_thought for prompt in prompts] == list(texts.values())


def test_where_no_prompt_is_short_enough_the_error_says_what_to_do(tokenizer) -> None:
    with pytest.raises(UserError, match=r"none of 3 prompts has at most 1 tokens; raise sampling\.max_prompt_tokens$"):
        encode(items(3), tokenizer, max_prompt_tokens=1)
    with pytest.raises(UserError, match=r"at most 1 tokens; give --max-prompt-tokens$"):
        encode(items(3), tokenizer, max_prompt_tokens=1, remedy="give --max-prompt-tokens")


def test_held_out_prompts_are_taken_evenly_and_in_order(tokenizer) -> None:
    chosen = held_out(encode(items(100), tokenizer, max_prompt_tokens=8), max_prompts=4)
    assert [prompt.id for prompt in chosen] == ["i0", "i25", "i50", "i75"]
    assert [prompt.serial for prompt in chosen] == [0, 1, 2, 3]
    assert len(held_out(encode(items(3), tokenizer, max_prompt_tokens=8), max_prompts=4)) == 3


def of_three_domains() -> list[Item]:
    domains = ("math", "logic", "instruct")
    return [
        Item(id=f"i{k}", domain=domains[k % 3], prompt=f"{k:03d}", item={})  # type: ignore[arg-type]
        for k in range(30)
    ]


def test_prompts_of_other_domains_are_passed_over_and_the_order_stays(tokenizer) -> None:
    def stream() -> PromptStream:
        return PromptStream(of_three_domains(), tokenizer, seed=1, max_prompt_tokens=8)

    every = stream().take(30)
    some = stream()
    assert some.take(20, {"math", "logic"}) == tuple(prompt for prompt in every if prompt.domain != "instruct")
    assert {prompt.domain for prompt in every} == stream().domains == {"math", "logic", "instruct"}


def test_a_stream_that_passes_prompts_over_goes_on_from_any_position(tokenizer) -> None:
    def stream() -> PromptStream:
        return PromptStream(of_three_domains(), tokenizer, seed=1, max_prompt_tokens=8)

    whole = stream()
    first = whole.take(7, {"math"})
    assert whole.position == first[-1].serial + 1
    resumed = stream()
    resumed.seek(whole.position)
    assert resumed.take(9) == whole.take(9)  # another stage: what was passed over is not met again
    assert resumed.take(4, {"logic"}) == whole.take(4, {"logic"})
    assert resumed.position == whole.position


def test_domains_that_the_data_lacks_are_refused_rather_than_looked_for_without_end(tokenizer) -> None:
    stream = PromptStream(of_three_domains(), tokenizer, seed=1, max_prompt_tokens=8)
    with pytest.raises(ValueError, match=r"no prompts of code, stem; it has \['instruct', 'logic', 'math'\]"):
        stream.take(1, {"stem", "code"})
    assert stream.position == 0
    assert len(stream.take(3, {"stem", "math"})) == 3


def with_specials(single: str, folder: Path) -> Any:
    """The demo's tokenizer with <pad> as its BOS, put where `single` says, as a Llama's post-processor does."""
    rules = json.loads((DEMO / "model" / "tokenizer.json").read_text())
    pieces = [
        {"Sequence": {"id": "A", "type_id": 0}} if piece == "$A" else {"SpecialToken": {"id": piece, "type_id": 0}}
        for piece in single.split()
    ]
    known = {
        token["content"]: {"id": token["content"], "ids": [token["id"]], "tokens": [token["content"]]}
        for token in rules["added_tokens"]
    }
    rules["post_processor"] = {"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": known}
    shutil.copytree(DEMO / "model", folder)
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"bos_token": "<pad>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return load_tokenizer(folder)


def ids_of(text: str, tokenizer: Any) -> list[int]:
    item = Item(id="i", domain="math", prompt=text, item={"answer": "1"})
    (prompt,) = held_out(encode([item], tokenizer, max_prompt_tokens=32), max_prompts=1)
    return list(prompt.token_ids)


def test_without_a_template_a_prompt_begins_as_its_tokenizer_begins_it(tokenizer, tmp_path: Path) -> None:
    begins = with_specials("<pad> $A", tmp_path / "begins")
    plain, bos = list(tokenizer("12+3=")["input_ids"]), begins.bos_token_id
    assert ids_of("12+3=", begins) == list(begins("12+3=")["input_ids"]) == [bos, *plain]
    assert ids_of("<pad>12+3=", begins) == [bos, *plain], "a prompt that brings it has it once"


def test_what_a_tokenizer_puts_behind_a_text_does_not_end_a_prompt(tokenizer, tmp_path: Path) -> None:
    ends = with_specials("<pad> $A <eos>", tmp_path / "ends")
    assert ids_of("12+3=", ends) == [ends.bos_token_id, *tokenizer("12+3=")["input_ids"]]


def test_a_template_that_writes_the_bos_gives_one(tokenizer, tmp_path: Path) -> None:
    begins = with_specials("<pad> $A", tmp_path / "begins")
    begins.chat_template = "{{ bos_token }}{{ messages[0].content }}"
    assert ids_of("12+3=", begins) == [begins.bos_token_id, *tokenizer("12+3=")["input_ids"]]
    begins.chat_template = "{{ messages[0].content }}"
    assert ids_of("12+3=", begins) == list(tokenizer("12+3=")["input_ids"]), "a template decides by itself"


def test_a_template_that_fails_on_a_prompt_names_it(tmp_path: Path) -> None:
    begins = with_specials("$A", tmp_path / "begins")
    begins.chat_template = "{{ raise_exception('no sums') if '+' in messages[0].content else messages[0].content }}"
    with pytest.raises(ValueError, match=r"the chat template fails on prompt '12\+3=': no sums"):
        ids_of("12+3=", begins)


def test_a_tokenizer_that_does_not_load_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"model folder {tmp_path}: its tokenizer does not load"):
        load_tokenizer(tmp_path)
