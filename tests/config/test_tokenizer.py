"""What a tokenizer's files promise must fit the model; said in one line, before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_rl.config.tokenizer import check_tokenizer, stop_tokens
from tests.folders import TOKENIZER, write_model

VOCAB_SIZE = 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def write(folder: Path, name: str, **content: Any) -> None:
    (folder / name).write_text(json.dumps(content))


def refusal(folder: Path, vocab_size: int = VOCAB_SIZE) -> str:
    with pytest.raises(ValueError, match=".") as caught:
        check_tokenizer(folder, vocab_size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_template(folder: Path, template: Any) -> None:
    write(folder, "tokenizer_config.json", eos_token="<eos>", chat_template=template)


def test_a_tokenizer_that_fits_is_accepted(folder: Path) -> None:
    check_tokenizer(folder, VOCAB_SIZE)
    assert stop_tokens(folder, VOCAB_SIZE) == (1,)


@pytest.mark.parametrize("eos", ["<end>", {"content": "<end>", "lstrip": False}])
@pytest.mark.parametrize("place", ["tokenizer_config.json", "special_tokens_map.json"])
def test_a_stop_token_that_only_the_tokenizer_knows_stops_too(folder: Path, eos: Any, place: str) -> None:
    tokens = [*TOKENIZER["added_tokens"], {"id": 28, "content": "<end>", "special": True}]
    write(folder, "tokenizer.json", **{**TOKENIZER, "added_tokens": tokens})
    write(folder, "tokenizer_config.json")
    write(folder, place, eos_token=eos)
    assert stop_tokens(folder, VOCAB_SIZE) == (1, 28)


def test_a_stop_token_of_an_old_tokenizer_is_found_in_its_vocabulary(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    write(folder, "vocab.json", a=3, b=9)
    write(folder, "tokenizer_config.json", eos_token="b")
    assert stop_tokens(folder, VOCAB_SIZE) == (1, 9)


@pytest.mark.parametrize(
    ("token", "said"), [(5000, "5000"), (64, "64"), ([1, 70], "70"), (-1, "-1"), ("<eos>", "'<eos>'"), (1.0, "1.0")]
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_stop_token_that_cannot_be_is_named_with_its_file(folder: Path, name: str, token: Any, said: str) -> None:
    write(folder, name, eos_token_id=token)
    found = refusal(folder)
    assert f"{name}: eos_token_id={said}" in found
    assert ("none of the 64 tokens of the model" in found) or ("must be a token's number" in found)


def test_the_tokenizer_s_own_stop_token_must_be_one_of_the_model_s(folder: Path) -> None:
    tokens = [*TOKENIZER["added_tokens"], {"id": 90, "content": "<end>", "special": True}]
    write(folder, "tokenizer.json", **{**TOKENIZER, "added_tokens": tokens})
    write(folder, "tokenizer_config.json", eos_token="<end>")
    assert "ids up to 90, and config.json's vocab_size=64 ends before" in refusal(folder)
    with pytest.raises(ValueError, match="eos_token '<end>', id 90, is none of the 64 tokens of the model"):
        stop_tokens(folder, VOCAB_SIZE)


def test_ids_beyond_the_embedding_are_refused_with_both_numbers(folder: Path) -> None:
    assert "ids up to 27, and config.json's vocab_size=20 ends before" in refusal(folder, vocab_size=20)


def test_a_padding_token_beyond_the_embedding_harms_nobody(folder: Path) -> None:
    tokens = [*TOKENIZER["added_tokens"], {"id": 64, "content": "[PAD]", "special": True}]
    write(folder, "tokenizer.json", **{**TOKENIZER, "added_tokens": tokens})
    check_tokenizer(folder, VOCAB_SIZE)
    with_template(folder, "{{ messages[0].content }}[PAD]")
    assert "ids up to 64" in refusal(folder)


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["{", "[1]", "", "[" * 100_000, "9" * 5000])
def test_a_broken_file_is_named(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    assert name in refusal(folder)


@pytest.mark.parametrize(
    "content", [{"model": {}}, {"model": None}, {"model": {"vocab": 3}}, {"added_tokens": [7], "model": {"vocab": {}}}]
)
def test_a_tokenizer_of_another_shape_is_named(folder: Path, content: dict[str, Any]) -> None:
    write(folder, "tokenizer.json", **content)
    assert "tokenizer.json: is none of a tokenizer" in refusal(folder)


@pytest.mark.parametrize("number", ["5", 1.5, None, -1, True])
def test_an_id_that_is_no_number_is_named(folder: Path, number: Any) -> None:
    vocab = {**TOKENIZER["model"]["vocab"], "z": number}
    write(folder, "tokenizer.json", **{**TOKENIZER, "model": {**TOKENIZER["model"], "vocab": vocab}})
    assert f"gives a token the id {number!r}" in refusal(folder)


def test_a_template_in_another_encoding_is_named(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"\xff{{ messages[0].content }}")
    assert "chat_template.jinja: is no UTF-8" in refusal(folder)


def test_a_folder_without_a_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer.json; download the files of its tokenizer" in refusal(folder)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('roles must alternate') }}", "its chat template fails: roles must alternate"),
        ("{% if %}", "its chat template fails: Expected an expression"),
        ("{{ messages[0].content + 3 }}", "its chat template fails: can only concatenate str"),
        ("{{ nothing.at.all }}", "its chat template fails: 'nothing' is undefined"),
        ("{{ messages[0]['content'] | no_such_filter }}", "its chat template fails: No filter named"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "its chat template fails: maximum recursion depth"),
        ("Answer this.", "its chat template leaves the prompt out"),
        ([{"name": "tool_use", "template": "x"}], "chat_template has no default one; it has ['tool_use']"),
        (7, "chat_template=7 must be a text"),
    ],
)
def test_a_template_that_fails_is_refused_in_its_own_words(folder: Path, template: Any, said: str) -> None:
    with_template(folder, template)
    assert said in refusal(folder) and str(folder) in refusal(folder)


@pytest.mark.parametrize(
    "template",
    [
        "{% for message in messages %}<|{{ message.role }}|>{{ message['content'] | trim }}{% endfor %}",
        "{{ bos_token }}{% generation %}{{ messages[0].content }}{% endgeneration %}",
        "{% if tools is none %}{{ messages[0].content }}{% endif %}{{ strftime_now('%Y') }}",
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{% endfor %}{{ messages | tojson }}",
        [{"name": "default", "template": "{{ messages[0].content }}"}, {"name": "other", "template": "{{ no }}"}],
    ],
)
def test_a_template_that_transformers_renders_is_accepted(folder: Path, template: Any) -> None:
    with_template(folder, template)
    check_tokenizer(folder, VOCAB_SIZE)


def test_a_template_in_a_file_of_its_own_wins(folder: Path) -> None:
    with_template(folder, "{{ messages[0].content }}")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no users') }}")
    assert "its chat template fails: no users" in refusal(folder)
