"""16 or 512 samples for each prompt? Trains both ways by the real command and prints one line of JSON.

Both train on the same samples in a step, in the same steps and updates, and differ in the size of a group alone, as
BroRL (arXiv 2510.01180) asks it. Its theory says that a small group may take probability from correct answers that were
not sampled; here that is asked of the worked answers of held-out problems, which are known.
Not covered: the papers' model, lengths and 128 prompts a step, and a policy that has been trained for long.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from megatron_rl.config.lineage import model_folder_of
from megatron_rl.data.items import Item, read_items
from megatron_rl.report.journal import FILE_NAME, Row, is_validation, read_rows

ROOT = Path(__file__).parent.parent
MODEL, PROBLEMS = ROOT / "demo" / "model", ROOT / "demo" / "data" / "validation.jsonl"
SAMPLES_PER_STEP = 1024
WAYS = (16, 512)  # samples_per_prompt
COMMON = {
    "optimizer.learning_rate": 1e-4,  # the scale's 3e-5 for 96 samples, times the root of how many more: BroRL's rule
    "algorithm.updates_per_step": 2,  # with 512 samples a step has but two groups
    "algorithm.length": "none",  # BroRL names none
    "run.validate_every_steps": 5,
    "run.save_every_steps": 10**6,
}


def main() -> None:
    """Trains each way on seeds 1..n, then prints the figures."""
    options = parsed_arguments()
    before = worked_log_probabilities(MODEL, held_out := read_items(PROBLEMS))
    found: dict[int, list[dict[str, float]]] = {way: [] for way in WAYS}
    curves: dict[int, list[list[tuple[float, float]]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="megatron-rl-broaden-") as temporary:
        for seed in range(1, options.seeds + 1):
            for way in WAYS:
                directory = (options.directory or Path(temporary)) / f"n{way}_seed_{seed}"
                train(directory, {"num_steps": options.steps, "run.seed": seed, **sizes(way)})
                after = worked_log_probabilities(model_folder_of(directory), held_out)
                rows = list(read_rows(directory / FILE_NAME))
                found[way].append(figures(rows) | changes(before, after, held_out))
                curves[way].append(accuracy_by_samples(rows))
                say(f"{way} samples, seed {seed}: {json.dumps(rounded(found[way][-1]))}")
            budget = min(curves[way][-1][-1][0] for way in WAYS)
            for way in WAYS:
                found[way][-1]["accuracy_at_equal_samples"] = at_samples(budget, curves[way][-1])
    means = {
        f"n{way}_{name}": statistics.fmean(one[name] for one in seeds)
        for way, seeds in found.items()
        for name in seeds[0]
    }
    by_seed = {f"n{way}": [rounded(one) for one in seeds] for way, seeds in found.items()}
    sizes_used = {"samples_per_step": SAMPLES_PER_STEP, "steps": options.steps}
    print(json.dumps({**sizes_used, **rounded(means), "by_seed": by_seed}))


def sizes(samples_per_prompt: int) -> dict[str, int]:
    """Settings of one way."""
    return {
        "sampling.samples_per_prompt": samples_per_prompt,
        "sampling.prompts_per_step": SAMPLES_PER_STEP // samples_per_prompt,
    }


def train(directory: Path, settings: Mapping[str, Any]) -> None:
    """One run by the command; ends this program with the run's own exit code."""
    command = [sys.executable, "-m", "megatron_rl", "train", "prorl_v2", "--scale", "cpu"]
    command += ["--directory", str(directory)]
    command += [word for name, value in {**COMMON, **settings}.items() for word in ("--set", f"{name}={value}")]
    say(" ".join(command[1:]))
    code = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False).returncode
    if code:
        say(f"{directory.name}: the run ended with exit code {code}")
        raise SystemExit(code)


def figures(rows: Sequence[Row]) -> dict[str, float]:
    """What a run's journal says: accuracy, pass rate, speed."""
    scores = [row["validation/accuracy"] for row in rows if is_validation(row)]
    steps = [row for row in rows if "time/step_seconds" in row]

    def total(name: str) -> float:
        return sum(float(row.get(name, 0.0)) for row in steps)

    aside = sum(total(f"time/{name}_seconds") for name in ("validate", "save", "report"))
    samples = float(steps[-1]["run/samples_count"])
    kept = sum(row["dynamic_sampling/keep_rate"] * row["dynamic_sampling/tried_count"] for row in steps)
    return {
        "accuracy_before": scores[0],
        "accuracy_after": scores[-1],
        "pass_rate": kept / total("dynamic_sampling/tried_count"),
        "samples_generated": samples,
        "generated_per_second": samples / total("time/generate_seconds"),
        "samples_per_second": samples / (total("time/step_seconds") - aside),
    }


def accuracy_by_samples(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """(samples generated until then, accuracy) of each validation."""
    counts = {row["step"]: float(row["run/samples_count"]) for row in rows if "run/samples_count" in row}
    return [(counts.get(row["step"], 0.0), row["validation/accuracy"]) for row in rows if is_validation(row)]


def at_samples(budget: float, curve: Sequence[tuple[float, float]]) -> float:
    """The accuracy once so many samples had been generated, in a line between the validations around."""
    for (early, low), (late, high) in zip(curve, curve[1:], strict=False):
        if early <= budget <= late:
            return low + (high - low) * (budget - early) / (late - early)
    raise ValueError(f"{budget} samples: the curve ends at {curve[-1][0]}")


def changes(before: Sequence[float], after: Sequence[float], items: Sequence[Item]) -> dict[str, float]:
    """Share of the held-out problems whose worked answer became less probable, whole and by domain; median change."""
    fell = [new < old for old, new in zip(before, after, strict=True)]
    found = {"correct_fell": statistics.fmean(fell)}
    for domain in sorted({item.domain for item in items}):
        found[f"correct_fell_{domain}"] = statistics.fmean(
            down for down, item in zip(fell, items, strict=True) if item.domain == domain
        )
    gains = [new - old for old, new in zip(before, after, strict=True)]
    return found | {"correct_gain_nats": statistics.median(gains), "correct_gain_nats_least": min(gains)}


@torch.no_grad()
def worked_log_probabilities(folder: Path, items: Sequence[Item]) -> list[float]:
    """Log-probability in nats of each problem's worked answer with its end, by transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for item in items:
        prompt = tokenizer(item.prompt)["input_ids"]
        tokens = torch.tensor([*prompt, *tokenizer(worked_answer(item))["input_ids"], tokenizer.eos_token_id])
        logprobs = model(tokens[None]).logits[0, :-1].log_softmax(-1).gather(-1, tokens[1:, None])
        found.append(float(logprobs[len(prompt) - 1 :].sum()))
    return found


def worked_answer(item: Item) -> str:
    """The answer that demo/make.py teaches as worked: it is right, and there is one."""
    if item.domain == "math":
        digits = "".join(sorted(character for character in item.prompt if character.isdigit()))
        return f"<think>{digits}</think>\\boxed{{{item.item['answer']}}}"
    answer = item.item["entry"]["answer"]
    return f"<think>{answer}</think><answer>{answer}</answer>"


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Four digits after the point."""
    return {name: round(value, 4) for name, value in values.items()}


def say(line: str) -> None:
    """Writes a line of progress; standard output is for the figures."""
    print(line, file=sys.stderr, flush=True)


def parsed_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="run.seed is 1..N")
    parser.add_argument("--steps", type=int, default=30, metavar="N", help="of each run")
    parser.add_argument("--quick", action="store_true", help="one seed, two steps: shows that it runs")
    parser.add_argument("--directory", type=lambda text: Path(text).resolve(), help="keeps the runs, in fresh folders")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.steps = 1, 2
    for name in ("seeds", "steps"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: must be at least 1")
    # A run that exists would be resumed, and its speed mean nothing.
    if options.directory is not None and any(options.directory.glob("n*_seed_*")):
        parser.error(f"--directory {options.directory}: holds runs already; choose another or remove them")
    return options


if __name__ == "__main__":
    main()
