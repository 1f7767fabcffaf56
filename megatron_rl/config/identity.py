"""What a run may not change between two attempts, told by its content: held-out prompts, tokenizer, weights.

Folders may move; what is in them may not become something else without a word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from megatron_rl.config.tokenizer import stop_tokens
from megatron_rl.config.weights import digest_of_weights

DATA_FILES = ("validation.jsonl",)  # the prompts to train on have a digest of their own
# Of a model folder: what makes prompts of texts, and texts of responses.
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model"),
)
WEIGHTS, STOP_TOKENS = "weights", "stop tokens"


def identity(model_folder: Path, data_folder: Path, vocab_size: int) -> dict[str, str]:
    """Name -> digest, or value, of each; without what is not on this machine."""
    found = {name: digest_of(data_folder / name) for name in DATA_FILES if (data_folder / name).is_file()}
    if not model_folder.is_dir():
        return found
    return found | reading(model_folder, vocab_size) | {WEIGHTS: digest_of_weights(model_folder)}


def reading(model_folder: Path, vocab_size: int) -> dict[str, str]:
    """Name -> digest, or value, of what makes prompts of texts, and texts of responses."""
    found = {name: digest_of(model_folder / name) for name in TOKENIZER_FILES if (model_folder / name).is_file()}
    return found | {STOP_TOKENS: " ".join(map(str, stop_tokens(model_folder, vocab_size)))}


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names of what is not as it was; nothing of a folder that is not here.

    >>> changed({"validation.jsonl": "a", "weights": "b"}, {"validation.jsonl": "c"})
    ['validation.jsonl']
    >>> changed({"weights": "b"}, {"weights": "b", "chat_template.jinja": "d"})
    ['chat_template.jinja']
    """
    folders = (DATA_FILES, (*TOKENIZER_FILES, WEIGHTS, STOP_TOKENS))
    here = [names for names in folders if not now.keys().isdisjoint(names)]
    return [name for names in here for name in names if before.get(name) != now.get(name)]
