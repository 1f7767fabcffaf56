"""The order in which problems are met: a permutation per pass, the same in every process, resumable by a number."""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from megatron_rl.config.checks import UserError
from megatron_rl.config.draws import Difficulty
from megatron_rl.config.records import Sampling
from megatron_rl.data.draws import Shares, chance_of_meeting, is_met, rates_of, updated_rate
from megatron_rl.data.items import Item
from megatron_rl.rewards.response import CLOSING, OPENING
from megatron_rl.runtime.log import get_logger
from megatron_rl.types import Groups, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "\ue000"  # of a private use area: no prompt and no template has it

LARGE_SHARE = 0.1  # chosen: of a domain's prompts


class Encoded(NamedTuple):
    """A problem as the model reads it."""

    item: Item
    token_ids: array[int]  # type code i: a tenth of a tuple's memory
    opens_thought: bool


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a model folder; nothing is downloaded. Raises UserError where it cannot be read."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise UserError(f"model folder {folder}: its tokenizer does not load ({error}); download it again") from None


class _Pool:
    """Some problems, each met once per pass."""

    def __init__(self, prompts: Sequence[Encoded], seed: int) -> None:
        self.prompts, self.seed = tuple(prompts), seed
        self._order: tuple[int, ...] = ()
        self._order_pass = -1

    def at(self, place: int) -> Encoded:
        number, place = divmod(place, len(self.prompts))
        if number != self._order_pass:
            keys = [_key(self.seed, number, encoded.item.id) for encoded in self.prompts]
            self._order = tuple(sorted(range(len(keys)), key=keys.__getitem__))
            self._order_pass = number
        return self.prompts[self._order[place]]


class PromptStream:
    """All problems pooled, each met once per pass, without end; or, with weights, a pool and a share of each domain.

    The order of a pass follows from the seed, the number of the pass and the ids alone: not from the order of the
    files, the process, or the version of Python or numpy. What a position of the stream holds depends on nothing that
    happened before; whether it is passed over, where a recipe asks for difficulty, on the pass rates known then.
    """

    def __init__(
        self,
        items: Sequence[Item],
        tokenizer: PreTrainedTokenizerBase,
        *,
        seed: int,
        max_prompt_tokens: int,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """`weights` are of all domains that the items have, or there are none.

        Raises UserError when no prompt is short enough.
        """
        self.seed = seed
        self.position = 0  # serial of the next prompt
        self.pass_rates: dict[str, float] = {}  # id -> running pass rate, of the prompts that `note` was told of
        self.response_tokens: dict[str, float] = {}  # id -> running mean, of those that `note_lengths` was told of
        prompts = encode(items, tokenizer, max_prompt_tokens=max_prompt_tokens)
        self.left_out = left_out(items, [one.item for one in prompts])
        self.domains = {encoded.item.domain for encoded in prompts}  # that there are prompts of
        self._all = _Pool(prompts, seed)
        self._pools = {
            domain: _Pool([one for one in prompts if one.item.domain == domain], seed) for domain in self.domains
        }
        self._shares = Shares({name: weights[name] for name in self.domains}, seed) if weights else None

    def __len__(self) -> int:
        """Number of prompts of one pass."""
        return len(self._all.prompts)

    def take(
        self, num_prompts: int, domains: Collection[str] | None = None, sampling: Sampling | None = None
    ) -> tuple[Prompt, ...]:
        """The next prompts; `serial` is the position in the stream. Those of other `domains` are passed over.

        So are, by chance, those that `sampling.difficulty` says. Raises UserError when there is none of these domains.
        """
        if domains is not None and self.domains.isdisjoint(domains):
            raise UserError(f"the data has no prompts of {', '.join(sorted(domains))}; it has {sorted(self.domains)}")
        taken: list[Prompt] = []
        while len(taken) < num_prompts:
            serial, encoded = self.position, self._at(self.position)
            self.position += 1
            if domains is not None and encoded.item.domain not in domains:
                continue
            if sampling is None or sampling.difficulty is None or self._is_met(serial, encoded.item.id, sampling):
                taken.append(_prompt(serial, encoded))
        return tuple(taken)

    def note(self, groups: Groups, difficulty: Difficulty) -> None:
        """Brings the pass rates of the prompts of some groups up to date, by what training paid."""
        found = rates_of([prompt.id for prompt in groups.prompts], groups.rewards, groups.judged)
        for name, rate in found.items():
            self.pass_rates[name] = updated_rate(self.pass_rates.get(name), rate, difficulty)

    def note_lengths(self, groups: Groups) -> None:
        """Brings the mean response tokens of the prompts of some groups up to date: half of each is what it was."""
        for prompt, mean in zip(groups.prompts, groups.lengths.double().mean(1).tolist(), strict=True):
            self.response_tokens[prompt.id] = (self.response_tokens.get(prompt.id, mean) + mean) / 2

    def expected_tokens(self, prompts: Sequence[Prompt], by_domain: Mapping[str, float]) -> list[float]:
        """Of a response to each prompt: as its own were, or else its domain's, or else those of all domains."""
        usual = sum(by_domain.values()) / len(by_domain) if by_domain else 1.0
        return [self.response_tokens.get(one.id, by_domain.get(one.domain, usual)) for one in prompts]

    def seek(self, position: int) -> None:
        """Makes `position` the serial of the next prompt."""
        if position < 0:
            raise UserError(f"prompt position {position}: must be 0 or more")
        self.position = position

    def _at(self, serial: int) -> Encoded:
        if self._shares is None:
            return self._all.at(serial)
        domain, place = self._shares.at(serial)
        return self._pools[domain].at(place)

    def _is_met(self, serial: int, identifier: str, sampling: Sampling) -> bool:
        assert sampling.difficulty is not None, "asked for where a recipe has it"
        rate = self.pass_rates.get(identifier)
        return is_met(self.seed, serial, chance_of_meeting(rate, sampling.difficulty, sampling.samples_per_prompt))


def held_out(encoded: Sequence[Encoded], *, max_prompts: int) -> tuple[Prompt, ...]:
    """At most `max_prompts` of the prompts, taken evenly, in file order."""
    num_prompts = min(max_prompts, len(encoded))
    return tuple(_prompt(serial, encoded[serial * len(encoded) // num_prompts]) for serial in range(num_prompts))


def left_out(items: Sequence[Item], kept: Sequence[Item]) -> dict[str, tuple[int, int]]:
    """Domain -> (prompts that are too long, all), of the domains that have such."""
    everyone = Counter(item.domain for item in items)
    missing = everyone - Counter(item.domain for item in kept)
    return {domain: (missing[domain], everyone[domain]) for domain in sorted(missing)}


def left_out_in_words(file: str, found: Mapping[str, tuple[int, int]], max_prompt_tokens: int) -> str:
    """One sentence on what `left_out` found in a file.

    >>> left_out_in_words("train", {"code": (19, 20), "math": (1, 80)}, 1024)
    'train: left out as longer than sampling.max_prompt_tokens=1024: 19 of 20 code prompts, 1 of 80 math prompts'
    """
    counts = ", ".join(f"{few:,} of {many:,} {domain} prompts" for domain, (few, many) in found.items())
    return f"{file}: left out as longer than sampling.max_prompt_tokens={max_prompt_tokens}: {counts}"


def tell_left_out(file: str, found: Mapping[str, tuple[int, int]], max_prompt_tokens: int) -> None:
    """Logs what was left out; as a warning where a domain loses so much that a human should look."""
    if found:
        level = logging.WARNING if is_a_large_share(found) else logging.INFO
        get_logger().log(level, "%s", left_out_in_words(file, found, max_prompt_tokens))


def overlap_in_words(found: Mapping[str, tuple[int, int]]) -> str:
    """One sentence on the validation prompts that are also trained on, `Data.overlap`.

    >>> overlap_in_words({"math": (3, 400)})
    'validation: 3 of 400 math prompts are in train, too, and tell nothing of other problems; take them out of one file'
    """
    counts = ", ".join(f"{few:,} of {many:,} {domain} prompts" for domain, (few, many) in found.items())
    return f"validation: {counts} are in train, too, and tell nothing of other problems; take them out of one file"


def tell_overlap(found: Mapping[str, tuple[int, int]]) -> None:
    """Logs a warning where validation prompts are trained on."""
    if found:
        get_logger().warning("%s", overlap_in_words(found))


def is_a_large_share(found: Mapping[str, tuple[int, int]]) -> bool:
    """True where a domain loses so much that a human should look."""
    return any(few > LARGE_SHARE * many for few, many in found.values())


def encode(
    items: Sequence[Item],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt_tokens: int,
    remedy: str = "raise sampling.max_prompt_tokens",
) -> list[Encoded]:
    """The items with their tokens, in order, without those of more than `max_prompt_tokens`.

    The chat template is applied where the tokenizer has one; else the prompt is encoded as `tokenizer(prompt)` does.
    Raises UserError, with that remedy, when none is left.
    """
    texts = [with_template(item.prompt, tokenizer) for item in items]
    token_ids = encoded_texts(texts, tokenizer)
    if empty := [item.id for item, ids in zip(items, token_ids, strict=True) if not ids]:
        raise UserError(f"prompt '{empty[0]}' has no tokens in this tokenizer; the model needs at least one")
    encoded = [
        Encoded(item, array("i", ids), opens_thought(item.prompt, text, tokenizer))
        for item, text, ids in zip(items, texts, token_ids, strict=True)
        if len(ids) <= max_prompt_tokens
    ]
    if not encoded:
        raise UserError(f"none of {len(items)} prompts has at most {max_prompt_tokens} tokens; {remedy}")
    return encoded


def encoded_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The tokens of each text, with the special ones that belong before it, each once.

    They are in the text already where a chat template wrote it. A token that the tokenizer puts behind every text and
    that ends it is left out, for the response is yet to come.
    """
    if not texts:
        return []
    if tokenizer.chat_template is not None:
        return list(tokenizer(list(texts), add_special_tokens=False)["input_ids"])
    plain = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    found: list[list[int]] = []
    for own, ids in zip(plain, tokenizer(list(texts))["input_ids"], strict=True):
        size = len(own)
        start = next((i for i in range(len(ids) - size + 1) if ids[i : i + size] == own), len(ids) - size)
        before = ids[:start]
        found.append(list(own) if own[: len(before)] == before else [*before, *own])
    return found


def opens_thought(prompt: str, text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether `text`, what the model reads of a prompt, ends within a thought that the response has to close.

    It does where it ends in `<think>`, and where the template writes, behind the prompt, a `<think>` that nothing
    closes. What the prompt itself says of thinking does not count. Source: the template of DeepSeek-R1-Distill, which
    since February 2025 ends in `<think>` and a new line. Not covered: thoughts between other marks.
    """
    if OPENING not in text:
        return False
    if text.rstrip().endswith(OPENING):
        return True
    marked = with_template(_MARK + prompt.replace(OPENING, " ").replace(CLOSING, " "), tokenizer)
    _, found, thought = marked.rpartition(_MARK)[2].rpartition(OPENING)
    return bool(found) and CLOSING not in thought


def with_template(prompt: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """What the model reads: the prompt in the tokenizer's chat template, or as it stands where there is none."""
    if tokenizer.chat_template is None:
        return prompt
    from jinja2.exceptions import TemplateError

    messages = [{"role": "user", "content": prompt}]
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        raise UserError(f"the chat template fails on prompt {prompt[:40]!r}: {error}; mend one of them") from None


def _prompt(serial: int, encoded: Encoded) -> Prompt:
    item = encoded.item
    return Prompt(
        serial=serial,
        id=item.id,
        domain=item.domain,
        token_ids=tuple(encoded.token_ids),
        opens_thought=encoded.opens_thought,
        item=item.opened(),
    )


def _key(seed: int, number: int, identifier: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{number}:{identifier}".encode(), digest_size=16).digest()
