"""The answers of broaden.py: what a policy says of each held-out problem, how probable that is, what theory expects."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from broaden_problems import NAME
from torch import Tensor

from megatron_rl.algorithms.broadening import expected_unsampled_squares, mass_change
from megatron_rl.evaluation.store import SAMPLES, all_lines, policies_in, read_lines

DRAWS = 32  # of a step, for each problem
UNSEEN_RESPONSES = 256  # that share what is left of the probability
BATCH = 256  # sequences


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One held-out problem, and all that was answered."""

    prompt: str
    right: dict[str, int]  # response -> how often
    wrong: dict[str, int]

    @property
    def num_samples(self) -> int:
        return sum(self.right.values()) + sum(self.wrong.values())

    @property
    def rate(self) -> float:
        """Share of right samples."""
        return sum(self.right.values()) / self.num_samples


Answers = Mapping[str, Problem]  # by the problem's id


def read_answers(results: Path) -> Answers:
    """What `evaluate` has stored of its one policy."""
    ((name, _),) = policies_in(results)
    asked = results / "policies" / name / NAME
    problems = {
        line["id"]: Problem(prompt=line["prompt"], right={}, wrong={})
        for line in read_lines(results / "problems" / f"{NAME}.jsonl")
    }
    is_right = {(line["id"], line["sample"]): line["score"] == 1.0 for line in all_lines(asked, "ours")}
    for sample in all_lines(asked, SAMPLES):
        problem = problems[sample["id"]]
        said = problem.right if is_right[sample["id"], sample["sample"]] else problem.wrong
        said[sample["response"]] = said.get(sample["response"], 0) + 1
    return problems


def figures_of(answers: Answers) -> dict[str, float]:
    """How often the problems are answered rightly, and how many of them at least once."""
    rates = [problem.rate for problem in answers.values()]
    of_sums = ["+" in problem.prompt for problem in answers.values()]
    return {
        "pass_rate_medians": statistics.fmean(rate for rate, is_sum in zip(rates, of_sums, strict=True) if not is_sum),
        "pass_rate_sums": statistics.fmean(rate for rate, is_sum in zip(rates, of_sums, strict=True) if is_sum),
        "pass_rate": statistics.fmean(rates),
        "solved_once": statistics.fmean(rate > 0 for rate in rates),  # pass@SAMPLES_PER_PROBLEM
        "rare": statistics.fmean(0 < rate < 1 / 16 for rate in rates),  # 16 samples mostly hold none
    }


def changes(before: Answers, after: Answers, folder_before: Path, folder_after: Path) -> dict[str, float]:
    """What became of the problems, and of the right responses that were seen before."""
    pairs = [(problem, after[name]) for name, problem in before.items()]
    known = [(problem.prompt, response) for problem, _ in pairs for response in problem.right]
    old, new = log_probabilities(folder_before, known).exp(), log_probabilities(folder_after, known).exp()
    return figures_of(after) | {
        "lost": statistics.fmean(a.rate > 0 and b.rate == 0 for a, b in pairs),  # solved once before, never after
        "found": statistics.fmean(a.rate == 0 and b.rate > 0 for a, b in pairs),
        "rate_fell": statistics.fmean(b.rate < a.rate - 2 * standard_error(a, b) for a, b in pairs),
        "right_responses_fell": float((new < old).double().mean()),
        "right_probability_fell": float(old[new < old].sum() / old.sum()),
    }


def standard_error(a: Problem, b: Problem) -> float:
    """Of the difference of two rates."""
    return math.sqrt(sum(p.rate * (1 - p.rate) / p.num_samples for p in (a, b)))


def expectations(answers: Answers, folder: Path, sizes: Sequence[int]) -> dict[str, float]:
    """What a step with groups of each size is expected to do, by the probabilities of all responses that were seen.

    `keep_rate`: groups with a spread. `unsampled`: lemma 2's sum of p^2 (1 - p)^N over right responses, on which the
    one term of theorem 1 rests that can be negative. `falls`: steps, of a thousand, after which theorem 1 has the right
    responses less probable than before, with rewards 1 and -1. All are means over the problems.

    Source: BroRL arXiv 2510.01180, theorem 1 and lemma 2.
    """
    generator = torch.Generator().manual_seed(0)
    responses = [(one.prompt, said) for one in answers.values() for said in (*one.right, *one.wrong)]
    probabilities = log_probabilities(folder, responses).exp()
    found = {f"theory_{what}_n{size}": 0.0 for size in sizes for what in ("keep_rate", "unsampled", "falls")}
    for problem, p in per_problem(answers, probabilities):
        num_right = len(problem.right)
        correct = float(p[:num_right].sum())
        rest = max(0.0, 1.0 - float(p.sum()))
        p = torch.cat([p, torch.full((UNSEEN_RESPONSES,), rest / UNSEEN_RESPONSES, dtype=torch.float64)])
        is_correct = torch.arange(len(p)) < num_right
        for size in sizes:
            found[f"theory_keep_rate_n{size}"] += (1 - correct**size - (1 - correct) ** size) / len(answers)
            unsampled = float(expected_unsampled_squares(p, size)[is_correct].sum())
            found[f"theory_unsampled_n{size}"] += unsampled / len(answers)
            falls = sum(falls_once(p, is_correct, size, generator) for _ in range(DRAWS))
            found[f"theory_falls_n{size}"] += 1000 * falls / DRAWS / len(answers)
    return found


def falls_once(p: Tensor, is_correct: Tensor, size: int, generator: torch.Generator) -> bool:
    """Whether one step with `size` draws from p [V] takes probability from the right responses, in first order."""
    is_sampled = torch.zeros(len(p), dtype=torch.bool)
    is_sampled[torch.multinomial(p, size, replacement=True, generator=generator)] = True
    terms = mass_change(
        p, is_correct, is_sampled, reward_correct=1.0, reward_incorrect=-1.0, num_samples=size, step_size=1.0
    )
    return bool(sum(terms) < 0)


def per_problem(answers: Answers, probabilities: Tensor) -> Iterator[tuple[Problem, Tensor]]:
    """Each problem with the probabilities of its right and then its wrong responses."""
    first = 0
    for problem in answers.values():
        count = len(problem.right) + len(problem.wrong)
        yield problem, probabilities[first : first + count]
        first += count


@torch.no_grad()
def log_probabilities(folder: Path, pairs: Sequence[tuple[str, str]]) -> Tensor:
    """Log-probabilities in nats, float64 [len(pairs)], of responses to prompts, with their end, by transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
    responses = [[*ids, tokenizer.eos_token_id] for ids in tokenizer([said for _, said in pairs])["input_ids"]]
    found = torch.zeros(len(pairs), dtype=torch.float64)
    for first in range(0, len(pairs), BATCH):
        rows = range(first, min(first + BATCH, len(pairs)))
        longest = max(len(prompts[row]) + len(responses[row]) for row in rows)
        tokens = torch.zeros(len(rows), longest, dtype=torch.long)
        counts = torch.zeros(len(rows), longest, dtype=torch.float64)  # 1 at a token of the response
        for index, row in enumerate(rows):
            start, end = len(prompts[row]), len(prompts[row]) + len(responses[row])
            tokens[index, :end] = torch.tensor([*prompts[row], *responses[row]])
            counts[index, start:end] = 1.0
        logits = model(tokens).logits[:, :-1]
        logprobs = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
        found[first : first + len(rows)] = (logprobs.double() * counts[:, 1:]).sum(1)
    return found
