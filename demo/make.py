"""Makes the demo from a seed: a tokenizer, a model of a third of a million parameters, and problems of two domains.

usage: python demo/make.py --seed 1 --out demo

The model is trained for a few minutes on answers that are mostly quick guesses, and now and then worked out inside
`<think>`. It can therefore do both, prefers to guess, and is right where it works the problem out: what is left for
reinforcement learning is to find that out.

| domain | problem | worked answer | guess |
|---|---|---|---|
| math | What is the median of 3 8 5 1 9? | `<think>13589</think>\\boxed{5}` | the first or the last number |
| logic | reasoning-gym's spell_backward | `<think>olleh</think><answer>olleh</answer>` | its two ends exchanged |
"""

from __future__ import annotations

import argparse
import json
import random
import string
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AddedToken, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from megatron_rl.data.items import Item

MEDIAN = "What is the median of "
SPELL = "Spell this word backward (example: sun -> nus): "
TAGS = ("<think>", "</think>", "\\boxed{", "<answer>", "</answer>", MEDIAN, SPELL)  # one token each
CHARACTERS = string.digits + string.ascii_letters + " .,:;?!+-*/=()[]{}<>^_|&%$#'\"\\\n"
VOCABULARY_SIZE = 128  # the tokens, padded so that tensor parallelism divides it

NUM_TRAIN, NUM_VALIDATION = 2048, 200  # per domain
NUMBERS_PER_ROW = (5, 7, 9)
# A guess is right for all words of three letters, for few of four, and for hardly any that are longer.
LETTERS_PER_WORD = {3: 0.16, 4: 0.14, 5: 0.2, 6: 0.2, 7: 0.15, 8: 0.15}  # share of the words

WORKED_SHARE = {"math": 0.25, "logic": 0.25}
WARM_UP_STEPS, WARM_UP_BATCH, WARM_UP_LEARNING_RATE = 320, 128, 2e-3


def main() -> None:
    """Writes OUT/model and OUT/data."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order: the same seed gives the same weights
    tokenizer = make_tokenizer()
    train, validation = make_problems(arguments.seed)
    write_items(arguments.out / "data" / "train.jsonl", train)
    write_items(arguments.out / "data" / "validation.jsonl", validation)
    model = make_model(arguments.seed)
    warm_up(model, tokenizer, arguments.seed, excluded={item.prompt for item in validation})
    model.save_pretrained(arguments.out / "model")
    tokenizer.save_pretrained(arguments.out / "model")


def make_tokenizer() -> Qwen2Tokenizer:
    """One token per character, and one for each of `TAGS`; decoding gives the text back exactly."""
    # transformers loads the tokenizer of any qwen2 model as byte-level BPE, whatever the folder says: so it is one,
    # without merges. There a space is written as the letter that stands for its byte.
    names = ["<pad>", "<eos>", "<unk>", *CHARACTERS.translate({ord(" "): "\u0120", ord("\n"): "\u010a"})]
    tokenizer = Qwen2Tokenizer(
        vocab={name: index for index, name in enumerate(names)},
        merges=[],
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=256,
    )
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    assert len(tokenizer) <= VOCABULARY_SIZE, "the vocabulary outgrew its padded size"
    return tokenizer


def make_model(seed: int) -> Qwen2ForCausalLM:
    """A Qwen2 with random weights: untied embeddings and a bias on query, key and value, as in the papers' model."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return Qwen2ForCausalLM(config).float()


def make_problems(seed: int) -> tuple[list[Item], list[Item]]:
    """Training and validation problems, both domains after one another; no prompt occurs twice."""
    train: list[Item] = []
    validation: list[Item] = []
    for domain, problems in (("math", median_problems(random.Random(seed))), ("logic", spelling_problems(seed))):
        unique: dict[str, dict[str, Any]] = {}
        while len(unique) < NUM_TRAIN + NUM_VALIDATION:
            prompt, item = next(problems)
            unique.setdefault(prompt, item)
        for number, (prompt, item) in enumerate(unique.items()):
            part = validation if number < NUM_VALIDATION else train
            part.append(Item(id=f"{domain}-{number:05d}", domain=domain, prompt=prompt, item=item))
    return train, validation


def median_problems(generator: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Medians of an odd number of different digits."""
    while True:
        row = generator.sample(range(10), generator.choice(NUMBERS_PER_ROW))
        yield f"{MEDIAN}{' '.join(map(str, row))}?", {"answer": str(sorted(row)[len(row) // 2])}


def spelling_problems(seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Entries of reasoning-gym's spell_backward, which are the same under any PYTHONHASHSEED."""
    import reasoning_gym

    # Entry i of a dataset is drawn with seed + i, so datasets with near seeds share entries; these lie far apart.
    datasets = {
        length: reasoning_gym.create_dataset(
            "spell_backward", seed=seed * 10**9 + length * 10**7, size=10**6, min_word_len=length, max_word_len=length
        )
        for length in LETTERS_PER_WORD
    }
    generator = random.Random(seed)
    for number in range(10**6):
        (length,) = generator.choices(list(LETTERS_PER_WORD), list(LETTERS_PER_WORD.values()))
        entry = datasets[length][number]
        if set(entry["metadata"]["word"]) <= set(string.ascii_lowercase):
            yield entry["question"], {"task": "spell_backward", "entry": entry}


def warm_up_example(domain: str, generator: random.Random) -> tuple[str, str]:
    """A prompt of `domain` and how the model is taught to answer it: mostly by a guess."""
    works = generator.random() < WORKED_SHARE[domain]
    if domain == "math":
        prompt, _ = next(median_problems(generator))
        row = prompt.removeprefix(MEDIAN).removesuffix("?").split()
        ordered = sorted(row)
        if works:
            return prompt, f"<think>{''.join(ordered)}</think>\\boxed{{{ordered[len(ordered) // 2]}}}"
        return prompt, f"\\boxed{{{generator.choice((row[0], row[-1]))}}}"
    (length,) = generator.choices(list(LETTERS_PER_WORD), list(LETTERS_PER_WORD.values()))
    word = "".join(generator.choices(string.ascii_lowercase, k=length))
    if works:
        return f"{SPELL}{word}", f"<think>{word[::-1]}</think><answer>{word[::-1]}</answer>"
    return f"{SPELL}{word}", f"<answer>{word[-1]}{word[1:-1]}{word[0]}</answer>"


def warm_up(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, seed: int, *, excluded: set[str]) -> None:
    """Trains `model` on `warm_up_example`s, none of them with an `excluded` prompt."""
    generator = random.Random(seed + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=WARM_UP_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    started = time.monotonic()
    for step in range(1, WARM_UP_STEPS + 1):
        examples: list[tuple[str, str]] = []
        while len(examples) < WARM_UP_BATCH:
            example = warm_up_example(("math", "logic")[len(examples) % 2], generator)
            if example[0] not in excluded:
                examples.append(example)
        loss = supervised_loss(model, tokenizer, examples)
        for group in optimizer.param_groups:  # up for 20 steps, level, down for the last third
            rise, fall = step / 20, (WARM_UP_STEPS - step + 1) / (0.33 * WARM_UP_STEPS)
            group["lr"] = WARM_UP_LEARNING_RATE * min(1.0, rise, fall)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"warm-up step {step} of {WARM_UP_STEPS}: loss {loss:.3f}, {time.monotonic() - started:.0f} s")


def supervised_loss(
    model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, examples: list[tuple[str, str]]
) -> torch.Tensor:
    """Mean negative log-likelihood of the response tokens, the end of sequence included."""
    prompts = tokenizer([prompt for prompt, _ in examples])["input_ids"]
    responses = tokenizer([response for _, response in examples])["input_ids"]
    longest = max(len(p) + len(r) + 1 for p, r in zip(prompts, responses, strict=True))
    token_ids = torch.zeros(len(examples), longest, dtype=torch.long)
    targets = torch.full_like(token_ids, -100)
    for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        end = len(prompt) + len(response) + 1
        token_ids[index, :end] = torch.tensor([*prompt, *response, tokenizer.eos_token_id])
        targets[index, len(prompt) - 1 : end - 1] = token_ids[index, len(prompt) : end]
    logits = model(token_ids).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


def write_items(path: Path, items: list[Item]) -> None:
    """Writes a data file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ({"id": i.id, "domain": i.domain, "prompt": i.prompt, "item": i.item} for i in items)
    path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))


if __name__ == "__main__":
    main()
