"""The tokenizer files of a Hugging Face model folder, read without torch: what they promise must fit the model.

Not covered: a tokenizer that is only a sentencepiece file, whose ids and end-of-sequence token are not looked up.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from megatron_rl.config.checks import UserError, require
from megatron_rl.config.pretrained import read_object

SETTINGS, WHOLE, TEMPLATE = "tokenizer_config.json", "tokenizer.json", "chat_template.jinja"
OLD_FILES = ("vocab.json", "tokenizer.model", "vocab.txt", "spiece.model")  # of tokenizers without a tokenizer.json
SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
PROMPT = "What is 2 + 3?"
FAULTS_OF_A_TEMPLATE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def check_tokenizer(folder: Path, vocab_size: int) -> None:
    """Raises UserError where the tokenizer of `folder` does not go with an embedding of `vocab_size` rows."""
    files = [name for name in (WHOLE, *OLD_FILES) if (folder / name).is_file()]
    require(bool(files), f"model folder {folder}: has no {WHOLE}; download the files of its tokenizer")
    spoken = read_template(folder) or ""
    spoken_of = {token[0] for role in ("bos_token", "eos_token") if (token := _token_of(folder, role))}
    # One for padding may lie beyond: nothing writes it, and the model cannot sample it.
    ids = [
        number
        for text, number, is_special in _tokens(folder)
        if not is_special or text in spoken_of or (text and text in spoken)
    ]
    wrong = [number for number in ids if type(number) is not int or number < 0]
    require(not wrong, f"{folder / WHOLE}: gives a token the id {[*wrong, 0][0]!r}; download it again")
    require(
        max(ids, default=0) < vocab_size,
        f"model folder {folder}: its tokenizer has ids up to {max(ids, default=0)}, and config.json's "
        f"vocab_size={vocab_size} ends before; take the tokenizer that belongs to the model",
    )
    stop_tokens(folder, vocab_size)
    check_template(folder)


def stop_tokens(folder: Path, vocab_size: int | None = None) -> tuple[int, ...]:
    """The end-of-sequence tokens of a folder: those of its configs, and the tokenizer's own.

    Raises UserError when there is none, and where one is not a token of `vocab_size`.
    """
    found: dict[int, str] = {}
    for name in ("generation_config.json", "config.json"):
        given = read_object(folder / name).get("eos_token_id") if (folder / name).exists() else None
        for token in given if isinstance(given, list) else [given]:
            if token is not None:
                _check_token(token, vocab_size, f"{folder / name}: eos_token_id={token!r}")
                found[token] = name
    if (own := _token_of(folder, "eos_token")) is not None:
        _check_token(own[1], vocab_size, f"{folder}: the tokenizer's eos_token {own[0]!r}, id {own[1]},")
        found[own[1]] = SETTINGS
    if not found:
        raise UserError(f"{folder}: no eos_token_id in config.json or generation_config.json; add it")
    return tuple(sorted(found))


def _check_token(token: Any, vocab_size: int | None, what: str) -> None:
    require(type(token) is int and token >= 0, f"{what} must be a token's number")
    require(vocab_size is None or token < vocab_size, f"{what} is none of the {vocab_size} tokens of the model")


def check_template(folder: Path) -> None:
    """Raises UserError where the chat template of a folder, if it has one, fails on a prompt or leaves it out."""
    template = read_template(folder)
    if template is None:
        return
    from jinja2.exceptions import TemplateError

    try:
        text = _rendered(template, {name: (_token_of(folder, name) or ("", 0))[0] for name in SPECIAL})
    except (TemplateError, *FAULTS_OF_A_TEMPLATE) as error:
        raise UserError(
            f"model folder {folder}: its chat template fails: {error}; mend it, or take the published one"
        ) from None
    require(PROMPT in text, f"model folder {folder}: its chat template leaves the prompt out; take the published one")


def prompt_lengths(folder: Path, prompts: Sequence[str]) -> list[int]:
    """Tokens of each prompt as the model reads it; nothing where the folder has no tokenizer.json.

    Raises UserError where the file is none of a tokenizer.

    Not covered: a template that changes the text of the prompt, which is counted as if it did not.
    """
    if not (folder / WHOLE).is_file():
        return []
    from tokenizers import Tokenizer

    template = read_template(folder)
    around = PROMPT
    if template is not None:
        around = _rendered(template, {name: (_token_of(folder, name) or ("", 0))[0] for name in SPECIAL})
    texts = [around.replace(PROMPT, prompt) for prompt in prompts]
    try:
        tokenizer = Tokenizer.from_file(str(folder / WHOLE))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{folder / WHOLE}: is none of a tokenizer ({error}); download it again") from None
    return [len(one.ids) for one in tokenizer.encode_batch(texts, add_special_tokens=template is None)]


def read_template(folder: Path) -> str | None:
    """The chat template that transformers takes from a folder; None where there is none."""
    if (folder / TEMPLATE).is_file():
        try:
            return (folder / TEMPLATE).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{folder / TEMPLATE}: is no UTF-8 ({error}); save it as UTF-8") from None
    given = _settings(folder).get("chat_template")
    if isinstance(given, list):  # several by name
        named = {str(one.get("name")): one.get("template") for one in given if isinstance(one, dict)}
        given = named.get("default")
        require(
            given is not None,
            f"{folder / SETTINGS}: chat_template has no default one; it has {sorted(named)}",
        )
    require(given is None or isinstance(given, str), f"{folder / SETTINGS}: chat_template={given!r} must be a text")
    return given


def _rendered(template: str, tokens: dict[str, str]) -> str:
    """What transformers would make of a prompt."""
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The block {% generation %} of transformers, which changes no text."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.filters["tojson"] = lambda value, **how: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    messages = [{"role": "user", "content": PROMPT}]
    return environment.from_string(template).render(
        messages=messages, tools=None, documents=None, add_generation_prompt=True, **tokens
    )


def _token_of(folder: Path, role: str) -> tuple[str, int] | None:
    """The text and the id of the token that the tokenizer has for a role; None where it has none, or no such id."""
    given = _settings(folder).get(role)
    if given is None and (folder / "special_tokens_map.json").is_file():
        given = read_object(folder / "special_tokens_map.json").get(role)
    text = given.get("content") if isinstance(given, dict) else given
    return next(((text, number) for content, number, _ in _tokens(folder) if content == text), None) if text else None


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    return read_object(path) if path.is_file() else {}


def _tokens(folder: Path) -> Iterator[tuple[str, int, bool]]:
    """(text, id, whether it is special) of every token, as far as they stand in files of JSON; those added first."""
    whole = read_object(folder / WHOLE) if (folder / WHOLE).is_file() else {}
    try:
        for number, token in _settings(folder).get("added_tokens_decoder", {}).items():
            yield token["content"], int(number), bool(token.get("special"))
        for token in whole.get("added_tokens") or []:
            yield token["content"], token["id"], bool(token.get("special"))
        if whole:
            vocab = whole["model"]["vocab"]
        else:
            vocab = read_object(folder / "vocab.json") if (folder / "vocab.json").is_file() else {}
        pairs = vocab.items() if isinstance(vocab, dict) else ((token[0], i) for i, token in enumerate(vocab))
        yield from ((text, number, False) for text, number in pairs)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{folder / WHOLE}: is none of a tokenizer ({error!r}); download it again") from None
